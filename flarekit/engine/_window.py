"""The sliding window itself, whatever computes the tiles.

The window goes up in Z. Logits are summed in a slab one tile thick; slices that no later tile
covers leave it as a `Slab`, so that memory does not grow with the scan. Where a predictor wants it,
the window starts in the middle instead and goes on only where it finds something. An engine gives
the tiles' logits and the sums they are added to; what changes meanwhile belongs to the `Run` of
each sweep, so that several threads may sweep with one engine.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from flarekit.core.grid import Grid
from flarekit.engine import Effort, EngineFacts, TileProgress
from flarekit.engine._schedule import Schedule, Tile
from flarekit.engine._slab import Array, Place, Run, Slab, Sums
from flarekit.engine._tiles import TileRow, fitted_rows, tile_rows

AnyRun = TypeVar("AnyRun", bound=Run)
_NEIGHBOURS = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]


@dataclass
class Sweep:
    """One pass of the window over a volume: iterate it once for its slabs, then read what it cost.

    Attributes:
        done: tiles that were run.
        empty: tiles left out because nothing in them is needed.
        dropped: tiles left out because the time was up.
        hurried_at: slice from which on tiles stood as far apart as they can, to save time; None
            where they did not.
        notes: what had to be done with less memory than was asked for, in words, in order.
        ran: the tiles that were run and when each was done, of `time.monotonic`, in that order.
    """

    engine: WindowEngine[Any]
    image_CZYX: NDArray[np.float32]
    size_ZYX: tuple[int, int, int]
    effort: Effort
    needed_ZYX: NDArray[np.bool_] | None
    deadline: float | None
    progress: TileProgress
    schedule: Schedule | None = None
    done: int = 0
    empty: int = 0
    dropped: int = 0
    hurried_at: int | None = None
    notes: list[str] = field(default_factory=list)
    ran: list[tuple[Tile, float]] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _ended: float = field(default_factory=time.monotonic)

    @property
    def first_s(self) -> float | None:
        """How long the first tile took, with the memory it had to take; None where none was run."""
        return self.ran[0][1] - self._began if self.ran else None

    @property
    def later_s(self) -> float | None:
        """Mean of the tiles after the first, with what is done with the slabs; None before that.

        The second is left out where there are more: an engine that begins with the next tile before
        it hands on the last one gives the first two together.
        """
        first = self._first_counted
        if len(self.ran) < first + 2:
            return None
        return (self.ran[-1][1] - self.ran[first][1]) / (len(self.ran) - 1 - first)

    @property
    def starting_s(self) -> float | None:
        """How much longer the first tiles took than later ones; None where that is not known."""
        first, later_s = self._first_counted, self.later_s
        if later_s is None:
            return None
        return max(0.0, self.ran[first][1] - self._began - (first + 1) * later_s)

    @property
    def _first_counted(self) -> int:
        return 1 if len(self.ran) > 2 else 0  # noqa: PLR2004 - an interval after the second

    @property
    def settled_s(self) -> float:
        """How long the last slabs took, after the last tile; good when all have left."""
        return self._ended - (self.ran[-1][1] if self.ran else self._began)

    def __iter__(self) -> Iterator[Slab]:
        self._began = time.monotonic()
        yield from self._slabs()
        self._ended = time.monotonic()

    def _slabs(self) -> Iterator[Slab]:
        if self.schedule is not None:
            return self._best_of(self.schedule)
        upwards = self.engine.grid.order == "upwards"
        return self._upwards() if upwards else self._from_the_centre()

    def _best_of(self, schedule: Schedule) -> Iterator[Slab]:
        """Go upwards through the best of the scheduled tiles that there is time for.

        Before every tile the rest is chosen anew, for the time that tiles turn out to take.
        """
        with self._run(self.engine.depth_at_once) as run:
            left = 0  # slices below have left
            while (z := schedule.next_z(self._affordable(schedule), left)) is not None:
                yield from self._passed(left, z, run)
                left = z
                depth = min(self.engine.depth_at_once, self.image_CZYX.shape[1] - z)
                row = TileRow(z=z, depth=depth, places=())
                self._run_scheduled(row, schedule, run)
            self.dropped = len(schedule.waiting)
            yield from self._passed(left, self.size_ZYX[0], run)

    def _run_scheduled(self, row: TileRow, schedule: Schedule, run: Run) -> None:
        """Run the chosen tiles of a row."""
        started = self.done

        def places() -> Iterator[Place]:
            nonlocal started
            while True:  # an engine may ask for the next tile before it hands on the last one
                place = schedule.take(self._affordable(schedule, started - self.done), row.z)
                if place is None:
                    return
                started += 1
                yield place

        flips = _flips(self.effort.mirror_axes)
        for place, logits_KZYX in self.engine.tiles(self.image_CZYX, row, places(), flips, run):
            run.sums.add(logits_KZYX, place)
            self._count(row, place)
            self.progress(self.done, self.done + len(schedule.waiting))

    def _count(self, row: TileRow, place: Place) -> None:
        self.done += 1
        self.ran.append(((row.z, *place), time.monotonic()))

    def _affordable(self, schedule: Schedule, running: int = 0) -> int:
        """Return how many of the waiting tiles there is time for.

        Args:
            schedule: holds them.
            running: tiles that were begun and are not done yet.
        """
        everything = len(schedule.waiting)
        if self.deadline is None:
            return everything
        left_s = self.deadline - time.monotonic()
        seconds = self._tile_s(schedule.expected_s, schedule.starting_s)
        if seconds is None:
            return everything if left_s > 0 else 0
        if not self.ran:
            left_s -= schedule.starting_s
        if (everything + running) * seconds <= left_s + schedule.spare_s:
            return everything
        return max(0, int(left_s / max(seconds, 1e-9)) - running)

    def _tile_s(self, expected_s: float | None = None, starting_s: float = 0.0) -> float | None:
        """Return how long the next tile takes; the first one alone is not believed too much."""
        if self.later_s is not None:
            return self.later_s
        if expected_s is None or self.first_s is None:
            return self.first_s if expected_s is None else expected_s
        return min(max(expected_s, self.first_s - starting_s), 2 * expected_s)

    def _passed(self, first: int, end: int, run: Run) -> Iterator[Slab]:
        """Let slices leave that no later tile covers; beyond the last tile they are blank."""
        end = min(end, self.size_ZYX[0])
        while first < end:
            count = min(end - first, self.engine.depth_at_once)
            yield self._slab(first, count, run.sums)
            run.sums.move_on(count)
            first += count

    def _upwards(self) -> Iterator[Slab]:
        rows = self._rows(0, self.effort.step)
        with self._run(rows[0].depth) as run:
            index = 0
            while index < len(rows):
                rows = self._kept_in_time(rows, index)
                row = rows[index]
                self._run_row(row, run, rows[index:])
                index += 1
                end = rows[index].z if index < len(rows) else self.image_CZYX.shape[1]
                count = min(end, self.size_ZYX[0]) - row.z
                if count > 0:
                    yield self._slab(row.z, count, run.sums)
                run.sums.move_on(end - row.z)

    @contextmanager
    def _run(self, depth: int) -> Iterator[Run]:
        with self.engine.run(depth, self.image_CZYX.shape[2:]) as run:
            self.notes = run.notes
            yield run

    def _slab(self, z: int, count: int, sums: Sums) -> Slab:
        return Slab(
            z=z,
            count=count,
            size_YX=self.size_ZYX[1:],
            sums=sums,
            precision=self.engine.facts.precision,
        )

    def _from_the_centre(self) -> Iterator[Slab]:
        """Run the middle tile, and the neighbours of every tile that found something."""
        rows = self._rows(0, self.effort.step)
        every = [place for row in rows for place in row.places]
        columns = [sorted({place[axis] for place in every}) for axis in (0, 1)]
        tiles = {
            (k, columns[0].index(y), columns[1].index(x)): (row, (y, x))
            for k, row in enumerate(rows)
            for y, x in row.places
        }
        middle = np.array(self.image_CZYX.shape[1:]) / 2
        extent = np.array(self.engine.grid.tile_ZYX) / 2

        def off_centre(index: tuple[int, int, int]) -> float:
            row, (y, x) = tiles[index]
            return float(np.linalg.norm(np.array([row.z, y, x]) + extent - middle))

        waiting, seen = sorted(tiles, key=off_centre)[:1], set[tuple[int, int, int]]()
        with self._run(self.image_CZYX.shape[1]) as run:
            while waiting and not self._time_is_up():
                index = waiting.pop(0)
                seen.add(index)
                if self._run_alone(*tiles[index], run, len(seen) + len(waiting)):
                    around = (tuple(np.add(index, step).tolist()) for step in _NEIGHBOURS)
                    waiting += [n for n in around if n in tiles and n not in seen | set(waiting)]
            self.dropped = len(waiting)
            self.empty = len(tiles) - self.done - self.dropped
            yield self._slab(0, self.size_ZYX[0], run.sums)

    def _run_alone(self, row: TileRow, place: Place, run: Run, total: int) -> bool:
        """Run one tile and return whether it found anything but background."""
        flips = _flips(self.effort.mirror_axes)
        ((_, logits_KZYX),) = self.engine.tiles(self.image_CZYX, row, [place], flips, run)
        found = bool((logits_KZYX[1:] > logits_KZYX[:1]).any())
        run.sums.add(logits_KZYX, place, row.z)
        self._count(row, place)
        self.progress(self.done, max(total, self.done))
        return found

    def _time_is_up(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _rows(self, first_z: int, step: float) -> list[TileRow]:
        _, z, y, x = self.image_CZYX.shape
        rows = tile_rows(
            (z - first_z, y, x),
            self.engine.grid.tile_ZYX,
            step,
            slices_at_once=self.engine.slices_at_once,
        )
        return [self._thinned(row, first_z) for row in rows]

    def _thinned(self, row: TileRow, first_z: int) -> TileRow:
        """Leave out the tiles in which nothing is needed."""
        z = row.z + first_z
        places = row.places
        if self.needed_ZYX is not None:
            _, height, width = self.engine.grid.tile_ZYX
            needed = self.needed_ZYX[z : z + row.depth]
            places = tuple(
                (y, x) for y, x in places if needed[:, y : y + height, x : x + width].any()
            )
        return TileRow(z=z, depth=row.depth, places=places, empty=len(row.places) - len(places))

    def _kept_in_time(self, rows: list[TileRow], index: int) -> list[TileRow]:
        """Put the rest of the tiles further apart where there is no time for all of them."""
        seconds = self._tile_s()
        if self.deadline is None or self.hurried_at is not None or seconds is None:
            return rows
        left = sum(len(row.places) for row in rows[index:])
        if time.monotonic() + left * seconds <= self.deadline:
            return rows
        self.hurried_at = rows[index].z
        return rows[:index] + self._rows(rows[index].z, 1.0)

    def _run_row(self, row: TileRow, run: Run, rest: Sequence[TileRow]) -> None:
        total = self.done + sum(len(each.places) for each in rest)
        self.empty += row.empty
        pending = len(row.places)
        places = _until(row.places, self.deadline)
        for place, logits_KZYX in self.engine.tiles(
            self.image_CZYX, row, places, _flips(self.effort.mirror_axes), run
        ):
            run.sums.add(logits_KZYX, place)
            pending -= 1
            self._count(row, place)
            self.progress(self.done, total)
        self.dropped += pending


class WindowEngine(ABC, Generic[AnyRun]):
    """What engines share: padding, sweeping, and whole volumes at once.

    Attributes:
        grid: tile and step of the window.
        facts: what computes.
        slices_at_once: of a 2D network.
        tiles_at_once: in a batch; what it is on a GPU turns out in a sweep.
    """

    grid: Grid
    facts: EngineFacts
    slices_at_once: int = 1
    tiles_at_once: int = 1

    def __init__(self) -> None:
        self.one_time_s = 0.0

    @property
    def depth_at_once(self) -> int:
        """Slices that are run together: of a tile, or of a group of them for a 2D network."""
        depth = self.grid.tile_ZYX[0]
        return depth if depth > 1 else self.slices_at_once

    @abstractmethod
    def run(self, depth: int, size_YX: tuple[int, ...]) -> AbstractContextManager[AnyRun]:
        """Return a context manager that gives a run whose sums are zeros."""

    @abstractmethod
    def tiles(
        self,
        image_CZYX: NDArray[np.float32],
        row: TileRow,
        places: Iterable[Place],
        flips: Sequence[Sequence[int]],
        run: AnyRun,
    ) -> Iterator[tuple[Place, Array]]:
        """Yield the logits (K, Z, Y, X) of each tile of a row, averaged over flips and networks."""

    def sweep(
        self,
        tensor_CZYX: NDArray[np.float32],
        *,
        effort: Effort | None = None,
        needed_ZYX: NDArray[np.bool_] | None = None,
        deadline: float | None = None,
        progress: TileProgress = lambda _done, _total: None,
        schedule: Schedule | None = None,
    ) -> Sweep:
        """Start a pass over a volume; see `flarekit.engine.Engine.sweep`."""
        _, z, y, x = tensor_CZYX.shape
        return Sweep(
            engine=self,
            image_CZYX=_padded(tensor_CZYX, self.grid.tile_ZYX),
            size_ZYX=(z, y, x),
            effort=effort or Effort(step=self.grid.step, mirror_axes=self.grid.mirror_axes),
            needed_ZYX=needed_ZYX,
            deadline=deadline,
            progress=progress,
            schedule=schedule,
        )

    def predict(
        self, tensor_CZYX: NDArray[np.float32], progress: TileProgress
    ) -> NDArray[np.uint8]:
        """Return the class index of every voxel, (Z, Y, X)."""
        slabs = self.sweep(tensor_CZYX, progress=progress)
        return np.concatenate([slab.classes() for slab in slabs])

    def logits(
        self, tensor_CZYX: NDArray[np.float32], progress: TileProgress
    ) -> NDArray[np.float32]:
        """Return the mean logits of every voxel, (K, Z, Y, X)."""
        slabs = self.sweep(tensor_CZYX, progress=progress)
        return np.concatenate([slab.logits().copy() for slab in slabs], axis=1)

    def count_tiles(
        self,
        shape_ZYX: tuple[int, int, int],
        step: float,
        needed_ZYX: NDArray[np.bool_] | None = None,
        *,
        fitted: bool = False,
    ) -> int:
        """Return how many tiles a sweep runs, flips not counted."""
        rows = self.rows(shape_ZYX, step, needed_ZYX, fitted=fitted)
        return sum(len(row.places) for row in rows)

    def rows(
        self,
        shape_ZYX: tuple[int, int, int],
        step: float,
        needed_ZYX: NDArray[np.bool_] | None = None,
        *,
        fitted: bool = False,
    ) -> list[TileRow]:
        """Return the tiles that a sweep runs, in its order; see `flarekit.engine.Engine.rows`."""
        if fitted and needed_ZYX is not None:
            tile_ZYX = self.grid.tile_ZYX
            far = [(0, max(0, n - m)) for n, m in zip(tile_ZYX, needed_ZYX.shape, strict=True)]
            padded_ZYX = np.pad(needed_ZYX, far)
            return fitted_rows(padded_ZYX, tile_ZYX, step, slices_at_once=self.slices_at_once)
        blank = np.broadcast_to(np.float32(0), (1, *shape_ZYX))
        sweep = self.sweep(blank, effort=Effort(step=step), needed_ZYX=needed_ZYX)
        return sweep._rows(0, step)  # noqa: SLF001

    def warm_up(self, channels: int) -> None:
        """Run blank tiles, as many together as in a sweep, so that all memory is taken."""
        depth = self.depth_at_once
        self._timed(np.zeros((channels, depth, *self.grid.tile_ZYX[1:]), np.float32))

    def seconds_per_tile(self, tile_CZYX: NDArray[np.float32]) -> float:
        """Run a tile, as many together as in a sweep, and return the time of one, in seconds.

        Args:
            tile_CZYX: of a real scan; of a 2D network, as many slices as it gets together.
        """
        return self._timed(tile_CZYX)

    def _timed(self, tile_CZYX: NDArray[np.float32]) -> float:
        row = TileRow(z=0, depth=tile_CZYX.shape[1], places=((0, 0),) * self.tiles_at_once)
        with self.run(row.depth, self.grid.tile_ZYX[1:]) as run:
            began = time.monotonic()
            for place, logits_KZYX in self.tiles(tile_CZYX, row, row.places, [[]], run):
                run.sums.add(logits_KZYX, place)
            run.sums.classes(1, (1, 1))  # waits for what a device has not finished
            return (time.monotonic() - began) / len(row.places)

    def release(self) -> None:  # noqa: B027 - most engines hold nothing
        """Give back what a device holds between cases."""


def _until(places: Sequence[Place], deadline: float | None) -> Iterator[Place]:
    for place in places:
        if deadline is not None and time.monotonic() >= deadline:
            return
        yield place


def _flips(mirror_axes: tuple[int, ...]) -> list[list[int]]:
    """Return the axes of (Z, Y, X) to flip for every combination, none first."""
    axes = sorted(set(mirror_axes))
    counts = range(len(axes) + 1)
    return [list(some) for some in chain.from_iterable(combinations(axes, n) for n in counts)]


def _padded(image_CZYX: NDArray[np.float32], tile_ZYX: tuple[int, int, int]) -> NDArray[np.float32]:
    """Pad at the far ends to one tile at least, with the lowest value of each channel."""
    missing = [
        max(0, tile - size) for tile, size in zip(tile_ZYX, image_CZYX.shape[1:], strict=True)
    ]
    if not any(missing):
        return image_CZYX
    sides = [(0, n) for n in missing]
    return np.stack(
        [np.pad(channel, sides, constant_values=channel.min()) for channel in image_CZYX]
    )
