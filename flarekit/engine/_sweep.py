"""One pass of the sliding window over a volume, whatever computes its tiles."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from flarekit.core.grid import Grid
from flarekit.engine._facts import Effort, EngineFacts, TileProgress
from flarekit.engine._pace import TilePace
from flarekit.engine._slab import Array, Place, Run, Slab
from flarekit.engine._tiles import Schedule, Tile, TileRow, tile_rows

_FEW = 2  # tiles, of which the best is run first, wherever the other lies
_NEIGHBOURS = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]


AnyRun = TypeVar("AnyRun", bound=Run)


class TileRunner(ABC, Generic[AnyRun]):
    """What a sweep needs of an engine: logits of tiles, and sums to add them to.

    Attributes:
        grid: tile and step of the window.
        facts: what computes.
        one_time_s: time spent on what later runs find ready (compiling).
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


@dataclass
class Sweep:
    """One pass of the window over a volume: iterate it once for its slabs, then read what it cost.

    Attributes:
        done: tiles that were run.
        empty: tiles left out because nothing in them is needed.
        dropped: tiles left out because the time was up.
        pace: how long tiles took.
        notes: what had to be done with less memory than was asked for, in words, in order.
        ran: the tiles that were run and when each was done, of `time.monotonic`, in that order.
    """

    engine: TileRunner[Any]
    image_CZYX: NDArray[np.float32]
    size_ZYX: tuple[int, int, int]
    effort: Effort
    needed_ZYX: NDArray[np.bool_] | None
    pace: TilePace
    progress: TileProgress
    schedule: Schedule | None = None
    done: int = 0
    empty: int = 0
    dropped: int = 0
    notes: list[str] = field(default_factory=list)
    ran: list[tuple[Tile, float]] = field(default_factory=list)
    _covered_z: int = 0  # tiles that were run end below

    def __iter__(self) -> Iterator[Slab]:
        self.pace.begin()
        yield from self._slabs()

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
            while (z := self._next_z(schedule, left)) is not None:
                yield from self._passed(left, z, run)
                left = z
                depth = min(self.engine.depth_at_once, self.image_CZYX.shape[1] - z)
                row = TileRow(z=z, depth=depth, places=())
                self._run_scheduled(row, schedule, run)
            self.dropped = len(schedule.waiting)
            yield from self._passed(left, self.size_ZYX[0], run)

    def _next_z(self, schedule: Schedule, lowest_z: int) -> int | None:
        """Return where to go on; tiles below are given up, so the first choice is a careful one."""
        count = self._affordable(schedule, lowest_z, surely=self.done == 0)
        if self.done == 0 and 0 < count <= _FEW and count < len(schedule.waiting):
            count = 1  # the best one is not put at risk for another below it
        return schedule.next_z(count, lowest_z)

    def _affordable(
        self, schedule: Schedule, lowest_z: int, running: int = 0, *, surely: bool = False
    ) -> int:
        depth = self.engine.depth_at_once

        begun = max(lowest_z, self._covered_z, lowest_z + depth if running else 0)

        def slices(count: int) -> int:
            """Return how many the window has to leave behind; with some it has begun."""
            still = begun - lowest_z + schedule.beyond(count, lowest_z, begun, depth)
            return min(still, self.size_ZYX[0] - lowest_z)

        return self.pace.affordable(len(schedule.waiting), running, slices, surely=surely)

    def _run_scheduled(self, row: TileRow, schedule: Schedule, run: Run) -> None:
        """Run the chosen tiles of a row."""
        started = self.done

        def places() -> Iterator[Place]:
            nonlocal started
            while True:  # an engine may ask for the next tile before it hands on the last one
                running = started - self.done
                place = schedule.take(self._affordable(schedule, row.z, running), row.z)
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
        self._covered_z = max(self._covered_z, row.z + row.depth)
        self.ran.append(((row.z, *place), self.pace.count()))

    def _passed(self, first: int, end: int, run: Run) -> Iterator[Slab]:
        """Let slices leave that no later tile covers; beyond the last tile they are blank."""
        end, on_host = min(end, self.size_ZYX[0]), self.engine.facts.device == "cpu"
        while first < end:
            count = min(end - first, self.engine.depth_at_once)
            is_blank = on_host and first >= self._covered_z  # a device decides slices in order
            yield self._slab(first, count, run, is_blank=is_blank)
            if first + count < self.size_ZYX[0]:
                run.sums.move_on(count)
            self.pace.passed(0 if is_blank else count)
            first += count

    def _upwards(self) -> Iterator[Slab]:
        rows = self.rows()
        total = sum(len(row.places) for row in rows)
        with self._run(rows[0].depth) as run:
            for index, row in enumerate(rows):
                self._run_row(row, run, total)
                end = rows[index + 1].z if index + 1 < len(rows) else self.image_CZYX.shape[1]
                count = min(end, self.size_ZYX[0]) - row.z
                if count > 0:
                    yield self._slab(row.z, count, run)
                run.sums.move_on(end - row.z)
                self.pace.passed(max(0, count))

    @contextmanager
    def _run(self, depth: int) -> Iterator[Run]:
        with self.engine.run(depth, self.image_CZYX.shape[2:]) as run:
            self.notes = run.notes
            self.pace.together = self.engine.tiles_at_once  # known once the engine has started
            yield run

    def _slab(self, z: int, count: int, run: Run, *, is_blank: bool = False) -> Slab:
        return Slab(
            z=z,
            count=count,
            size_YX=self.size_ZYX[1:],
            sums=run.sums,
            precision=run.precision or self.engine.facts.precision,
            is_blank=is_blank,
        )

    def _from_the_centre(self) -> Iterator[Slab]:
        """Run the middle tile, and the neighbours of every tile that found something."""
        rows = self.rows()
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
            while waiting and self.pace.affordable(1):
                index = waiting.pop(0)
                seen.add(index)
                if self._run_alone(*tiles[index], run, len(seen) + len(waiting)):
                    around = (tuple(np.add(index, step).tolist()) for step in _NEIGHBOURS)
                    waiting += [n for n in around if n in tiles and n not in seen | set(waiting)]
            self.dropped = len(waiting)
            self.empty = len(tiles) - self.done - self.dropped
            yield self._slab(0, self.size_ZYX[0], run)
            self.pace.passed(self.size_ZYX[0])

    def _run_alone(self, row: TileRow, place: Place, run: Run, total: int) -> bool:
        """Run one tile and return whether it found anything but background."""
        flips = _flips(self.effort.mirror_axes)
        ((_, logits_KZYX),) = self.engine.tiles(self.image_CZYX, row, [place], flips, run)
        found = bool((logits_KZYX[1:] > logits_KZYX[:1]).any())
        run.sums.add(logits_KZYX, place, row.z)
        self._count(row, place)
        self.progress(self.done, max(total, self.done))
        return found

    def rows(self) -> list[TileRow]:
        """Return the tiles of the grid that are needed, upwards in Z."""
        _, z, y, x = self.image_CZYX.shape
        rows = tile_rows(
            (z, y, x),
            self.engine.grid.tile_ZYX,
            self.effort.step,
            slices_at_once=self.engine.slices_at_once,
        )
        return [self._thinned(row) for row in rows]

    def _thinned(self, row: TileRow) -> TileRow:
        """Leave out the tiles in which nothing is needed."""
        z, places = row.z, row.places
        if self.needed_ZYX is not None:
            _, height, width = self.engine.grid.tile_ZYX
            needed = self.needed_ZYX[z : z + row.depth]
            places = tuple(
                (y, x) for y, x in places if needed[:, y : y + height, x : x + width].any()
            )
        return TileRow(z=z, depth=row.depth, places=places, empty=len(row.places) - len(places))

    def _run_row(self, row: TileRow, run: Run, total: int) -> None:
        self.empty += row.empty
        flips = _flips(self.effort.mirror_axes)
        for place, logits_KZYX in self.engine.tiles(self.image_CZYX, row, row.places, flips, run):
            run.sums.add(logits_KZYX, place)
            self._count(row, place)
            self.progress(self.done, total)


def _flips(mirror_axes: tuple[int, ...]) -> list[list[int]]:
    """Return the axes of (Z, Y, X) to flip for every combination, none first."""
    axes = sorted(set(mirror_axes))
    counts = range(len(axes) + 1)
    return [list(some) for some in chain.from_iterable(combinations(axes, n) for n in counts)]


def padded(image_CZYX: NDArray[np.float32], tile_ZYX: tuple[int, int, int]) -> NDArray[np.float32]:
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
