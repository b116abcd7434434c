"""Which tiles of the whole network add most to what the locator has found, in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.engine import Tile
from flarekit.preprocess import Placement
from flarekit.segmentation.locator import LocatorMap

_STEPS = 8  # places along a tile at which another one may begin
_MOST_IN_TURN = 64  # tiles that are chosen one by one; the rest comes by what they add by then
_BORDER = 8  # the outer part of a tile, one of so many, sees less around it
_AT_BORDER = 0.6  # and counts this much
_AT_ENDS = 0.5  # of the worth of the middle is missing at the ends, where nothing is found
_LEAST = 1e-4  # of the whole worth: what adds less comes in any order


class Priorities:
    """Puts tiles into the order of what they add to those before them."""

    def __init__(
        self,
        worth: NDArray[np.float64],
        expected: NDArray[np.float64],
        placement: Placement,
        tile_ZYX: tuple[int, int, int],
    ) -> None:
        """Begin with values on a thinned form of the network's grid; see `of_map`, `of_body`.

        Args:
            worth: what tiles may add, in blocks.
            expected: how much label is expected there.
            placement: of the scan on the network's grid.
            tile_ZYX: what is run at once; a few slices of a 2D network.
        """
        self._strides = np.array(_strides(tile_ZYX))
        self._shape = np.array(placement.shape_ZYX)
        self._tile_ZYX = tile_ZYX
        self._worth, self._expected = worth, expected
        self._size = np.minimum(np.maximum(1, np.array(tile_ZYX) // self._strides), worth.shape)
        self._border = np.where(self._size >= _BORDER, self._size // _BORDER, 0)
        self._whole = max(float(worth.sum()), 1e-12)

    @classmethod
    def of_map(
        cls, found: LocatorMap, placement: Placement, tile_ZYX: tuple[int, int, int]
    ) -> Priorities:
        """Return what a locator's map says, brought onto the network's grid.

        Args:
            found: what the locator says.
            placement: of the scan on the network's grid.
            tile_ZYX: what is run at once; a few slices of a 2D network.
        """
        strides, on = _strides(tile_ZYX), found.placement
        worth = _thinned(found.worth_ZYX, on, placement, strides)
        expected = _thinned(found.expected_ZYX, on, placement, strides)
        return cls(worth, expected, placement, tile_ZYX)

    @classmethod
    def of_body(cls, placement: Placement, tile_ZYX: tuple[int, int, int]) -> Priorities:
        """Return what can be said without a locator: a label may be anywhere in the body.

        The middle of the scan counts a little more than its ends: who scans something has it there.

        Args:
            placement: of the scan on the network's grid.
            tile_ZYX: what is run at once; a few slices of a 2D network.
        """
        needed = placement.needed_ZYX
        if needed is None:
            needed = np.broadcast_to(np.bool_(True), placement.shape_ZYX)
        body = needed.astype(np.float32)
        for axis, (stride, size) in enumerate(
            zip(_strides(tile_ZYX), placement.shape_ZYX, strict=True)
        ):
            body = np.add.reduceat(body, np.arange(0, size, stride), axis=axis)
        worth = body.astype(np.float64)
        for axis, n in enumerate(worth.shape):
            off_centre = np.abs(np.arange(n) + 0.5 - n / 2) / n
            weights = 1 - _AT_ENDS * off_centre
            worth *= weights.reshape([-1 if k == axis else 1 for k in range(3)])
        return cls(worth, body.astype(np.float64), placement, tile_ZYX)

    def anywhere(self, count: int, *, alone: bool = False) -> list[Tile]:
        """Return the best places for so many tiles at most, wherever on the grid they are.

        Args:
            count: of the tiles.
            alone: the first one will hardly have others beside it, and stands where most label is
                expected: by itself that gains more than what is worth most.
        """
        left, tiles = _Left(self._worth), list[Tile]()
        while len(tiles) < count:
            scores = left.scores(self._size, self._border)
            if scores.max() < _LEAST * self._whole:
                break
            wanted = scores
            if alone and not tiles:
                wanted = _Left(self._expected).scores(self._size, self._border)
            best = np.unravel_index(int(wanted.argmax()), scores.shape)
            left.cover([int(n) for n in best], self._size, self._border)
            tiles.append(self._tile(best))
        return list(dict.fromkeys(tiles))

    def ordered(self, tiles: Sequence[Tile]) -> list[Tile]:
        """Return tiles in the order of what each adds to those before it."""
        all_tiles = list(dict.fromkeys(tiles))
        left, order, waits = _Left(self._worth), list[Tile](), np.ones(len(all_tiles), bool)
        places = self._thinned(all_tiles, np.array(self._worth.shape) - self._size + 1)
        while waits.any():
            scores = left.scores(self._size, self._border)
            values = np.where(waits, scores[tuple(places.T)], -np.inf)
            best = int(np.argmax(values))
            if values[best] < _LEAST * self._whole or len(order) == _MOST_IN_TURN:
                rest = np.argsort(-values, kind="stable")[: int(waits.sum())]
                return order + [all_tiles[k] for k in rest]
            left.cover([int(n) for n in places[best]], self._size, self._border)
            order.append(all_tiles[best])
            waits[best] = False
        return order

    def shares(self, tiles: Sequence[Tile]) -> list[float]:
        """Return which share of the expected label lies in the first tile, the first two, ..."""
        seen, shares = np.zeros(self._expected.shape, bool), []
        whole = max(float(self._expected.sum()), 1e-12)
        for first in self._thinned(tiles, self._expected.shape):
            seen[tuple(slice(a, a + n) for a, n in zip(first, self._size, strict=True))] = True
            shares.append(float(self._expected[seen].sum()) / whole)
        return shares

    def added(self, tiles: Sequence[Tile]) -> float:
        """Return which share of all that there is to be gained these tiles gain together."""
        left, gained = _Left(self._worth), 0.0
        for tile in tiles:
            scores = left.scores(self._size, self._border)
            place = [int(n) for n in self._thinned([tile], scores.shape)[0]]
            gained += float(scores[tuple(place)])
            left.cover(place, self._size, self._border)
        return gained / self._whole

    def _tile(self, place: Sequence[np.intp]) -> Tile:
        highest = np.maximum(self._shape - self._tile_ZYX, 0)
        z, y, x = np.minimum(np.array(place) * self._strides, highest)
        return int(z), int(y), int(x)

    def _thinned(
        self, tiles: Sequence[Tile], limits: Sequence[int] | NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Return the places (N, 3) of the thinned grid, below limits, where tiles begin."""
        places = np.round(np.array(tiles, np.float64).reshape(-1, 3) / self._strides)
        found: NDArray[np.intp] = np.minimum(places.astype(np.intp), np.array(limits) - 1)
        return found


def _strides(tile_ZYX: tuple[int, int, int]) -> tuple[int, int, int]:
    z, y, x = (max(1, n // _STEPS) for n in tile_ZYX)
    return z, y, x


def _thinned(
    values_ZYX: NDArray[np.float32],
    on: Placement,
    placement: Placement,
    strides: tuple[int, int, int],
) -> NDArray[np.float64]:
    """Return values of another grid, added up in blocks of this one; each is seen at 8 places."""
    half = [max(1, stride // 2) for stride in strides]
    fine = placement.on_this_grid(values_ZYX, on, (half[0], half[1], half[2]))
    sums = fine.astype(np.float64)
    for axis, (stride, step) in enumerate(zip(strides, half, strict=True)):
        count = -(-placement.shape_ZYX[axis] // stride)
        starts = np.minimum(np.arange(count) * stride // step, sums.shape[axis] - 1)
        sums = np.add.reduceat(sums, starts, axis=axis)
    return sums


class _Left:
    """What is still to be gained, voxel by voxel of the thinned grid."""

    def __init__(self, worth: NDArray[np.float64]) -> None:
        self._worth = worth
        self._has = np.zeros_like(worth)  # which part of it there is already

    def scores(self, size: NDArray[np.intp], border: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return what a tile adds, for every place where it may begin."""
        anywhere = self._worth * np.maximum(0, _AT_BORDER - self._has)
        inside = self._worth * (1 - np.maximum(self._has, _AT_BORDER))
        inner = size - 2 * border
        within = _box_sums(inside, inner)
        counts = np.array(self._worth.shape) - size + 1
        shifted = within[tuple(slice(b, b + n) for b, n in zip(border, counts, strict=True))]
        total: NDArray[np.float64] = _box_sums(anywhere, size) + shifted
        return total

    def cover(self, place: Sequence[int], size: NDArray[np.intp], border: NDArray[np.intp]) -> None:
        """Take a tile as run."""
        outer = tuple(slice(a, a + n) for a, n in zip(place, size, strict=True))
        inner = tuple(slice(a + b, a + n - b) for a, n, b in zip(place, size, border, strict=True))
        self._has[outer] = np.maximum(self._has[outer], _AT_BORDER)
        self._has[inner] = 1


def _box_sums(values: NDArray[np.float64], size: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the sum over a box for every place where it may begin."""
    sums = values
    for axis, n in enumerate(size):
        running = np.cumsum(sums, axis=axis)
        running = np.insert(running, 0, 0, axis=axis)
        ahead = (slice(None),) * axis
        sums = running[*ahead, n:] - running[*ahead, :-n]
    return sums
