"""Where the window stands, which tiles are worth most, and how much each of their voxels counts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Tile = tuple[int, int, int]  # where it starts, (Z, Y, X)


def tile_starts(size: int, tile: int, step: float) -> list[int]:
    """Return where tiles start along one axis: evenly spread, none leaving the axis.

    Args:
        size: voxels along the axis.
        tile: voxels per tile.
        step: largest distance between two tiles, as a fraction of the tile, in (0, 1].

    Returns:
        Starts in ascending order; `[0]` where the tile is as long as the axis or longer.
    """
    if size <= tile:
        return [0]
    count = math.ceil((size - tile) / max(1.0, tile * step)) + 1
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


@dataclass(frozen=True, kw_only=True)
class TileRow:
    """The tiles that start at one Z: `depth` slices deep, at each (Y, X) of `places`.

    Attributes:
        empty: tiles of the row that are left out, since nothing in them is needed.
    """

    z: int
    depth: int
    places: tuple[tuple[int, int], ...]
    empty: int = 0


def tile_rows(
    shape_ZYX: tuple[int, int, int],
    tile_ZYX: tuple[int, int, int],
    step: float,
    *,
    slices_at_once: int = 1,
) -> list[TileRow]:
    """Return the rows of a sliding window, Z ascending.

    Args:
        shape_ZYX: of the volume.
        tile_ZYX: of the window; Z = 1 is a 2D network, which sees every slice once.
        step: largest distance between two tiles, as a fraction of the tile.
        slices_at_once: how many slices a 2D network gets together.
    """
    starts_Y, starts_X = (tile_starts(shape_ZYX[axis], tile_ZYX[axis], step) for axis in (1, 2))
    places = tuple(product(starts_Y, starts_X))
    if tile_ZYX[0] > 1:
        starts_Z = tile_starts(shape_ZYX[0], tile_ZYX[0], step)
        return [TileRow(z=z, depth=tile_ZYX[0], places=places) for z in starts_Z]
    return [
        TileRow(z=z, depth=min(slices_at_once, shape_ZYX[0] - z), places=places)
        for z in range(0, shape_ZYX[0], slices_at_once)
    ]


def fitted_rows(
    needed_ZYX: NDArray[np.bool_],
    tile_ZYX: tuple[int, int, int],
    step: float,
    *,
    slices_at_once: int = 1,
) -> list[TileRow]:
    """Return the rows of a sliding window over the box of what is needed, Z ascending.

    Each row stands over the box of what is needed in its own slices; nothing is needed elsewhere.

    Args:
        needed_ZYX: on the grid of the volume, which is as large as a tile at least.
        tile_ZYX: of the window; Z = 1 is a 2D network, which sees every slice once.
        step: largest distance between two tiles, as a fraction of the tile.
        slices_at_once: how many slices a 2D network gets together.
    """
    box = _extent(needed_ZYX, 0)
    if box is None:
        return []
    if tile_ZYX[0] > 1:
        depth, starts_Z = tile_ZYX[0], _fitted_starts(box, tile_ZYX[0], len(needed_ZYX), step)
    else:
        depth, starts_Z = slices_at_once, list(range(box.start, box.stop, slices_at_once))
    rows = []
    for z in starts_Z:
        deep = min(depth, len(needed_ZYX) - z)
        needed_YX: NDArray[np.bool_] = np.any(needed_ZYX[z : z + deep], axis=0)
        places = _fitted_places(needed_YX, tile_ZYX[1:], step)
        rows.append(TileRow(z=z, depth=deep, places=places))
    return [row for row in rows if row.places]


def _fitted_places(
    needed_YX: NDArray[np.bool_], tile_YX: tuple[int, int], step: float
) -> tuple[tuple[int, int], ...]:
    box_Y, box_X = _extent(needed_YX, 0), _extent(needed_YX, 1)
    if box_Y is None or box_X is None:
        return ()
    height, width = tile_YX
    starts_Y = _fitted_starts(box_Y, height, needed_YX.shape[0], step)
    starts_X = _fitted_starts(box_X, width, needed_YX.shape[1], step)
    return tuple(
        (y, x)
        for y, x in product(starts_Y, starts_X)
        if needed_YX[y : y + height, x : x + width].any()
    )


def _fitted_starts(box: slice, tile: int, size: int, step: float) -> list[int]:
    """Return where tiles start along an axis to cover a part of it; none leaves the axis."""
    extent = box.stop - box.start
    if extent <= tile:
        return [min(max(0, box.start - (tile - extent) // 2), max(0, size - tile))]
    return [box.start + start for start in tile_starts(extent, tile, step)]


def _extent(mask: NDArray[np.bool_], axis: int) -> slice | None:
    """Return the part of an axis in which there is anything; None where there is nothing."""
    others = tuple(other for other in range(mask.ndim) if other != axis)
    found = np.flatnonzero(np.any(mask, axis=others))
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else None


def window_weights(
    tile_ZYX: tuple[int, int, int], weighting: Literal["gaussian", "uniform"]
) -> NDArray[np.float32]:
    """Return how much each voxel of a tile counts."""
    return np.ones(tile_ZYX, np.float32) if weighting == "uniform" else gaussian_weights(tile_ZYX)


def gaussian_weights(tile_ZYX: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return how much each voxel of a tile counts: a Gaussian of sigma tile / 8, peak 1.

    nnU-Net's choice (Isensee et al. 2021, inference), its peak at voxel tile // 2 included; small
    weights are lifted so that every voxel that any tile covers is decided.
    """
    along_Z, along_Y, along_X = (
        np.exp(-0.5 * ((np.arange(size) - size // 2) / (size / 8)) ** 2) for size in tile_ZYX
    )
    weights = np.empty(tile_ZYX, np.float32)
    for plane_YX, weight in zip(weights, along_Z, strict=True):  # one that fits into the cache
        np.maximum((weight * along_Y)[:, None] * along_X, 1e-12, out=plane_YX, casting="same_kind")
    return weights


class Schedule:
    """Tiles in the order of their worth; a sweep takes the best of them, upwards in Z.

    Attributes:
        waiting: tiles that were not run, best first.
    """

    def __init__(self, tiles: Sequence[Tile]) -> None:
        """Remember the tiles, best first, each once."""
        self.waiting = list(tiles)

    def next_z(self, count: int, lowest_z: int) -> int | None:
        """Return the slice at which the next of the best `count` tiles start, from a slice on."""
        return min((z for z, _, _ in self._best(count, lowest_z)), default=None)

    def take(self, count: int, z: int) -> tuple[int, int] | None:
        """Return the (Y, X) of a tile at slice z that is among the best `count`, and strike it off.

        Only tiles that start at z or above are counted.
        """
        here = [tile for tile in self._best(count, z) if tile[0] == z]
        if not here:
            return None
        tile = min(here)
        self.waiting.remove(tile)
        return tile[1:]

    def beyond(self, count: int, lowest_z: int, first: int, depth: int) -> int:
        """Return how many slices the best `count` tiles cover together, from a slice on.

        Only tiles that start at lowest_z or above are counted, slices from the first on.
        """
        total = 0
        for z in sorted({z for z, _, _ in self._best(count, lowest_z)}):
            total += max(0, z + depth - max(z, first))
            first = max(first, z + depth)
        return total

    def _best(self, count: int, lowest_z: int) -> list[Tile]:
        return [tile for tile in self.waiting if tile[0] >= lowest_z][:count]
