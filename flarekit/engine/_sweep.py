"""One pass of the sliding window over a volume, whatever computes its tiles."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.engine import Effort, TileProgress
from flarekit.engine._runner import TileRunner
from flarekit.engine._schedule import Schedule, Tile
from flarekit.engine._slab import Place, Run, Slab, Sums
from flarekit.engine._tiles import TileRow, tile_rows

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

    engine: TileRunner[Any]
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
