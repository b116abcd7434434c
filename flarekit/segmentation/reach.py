"""The tiles of a case, the labels they decide, and how far they reached in the time there was."""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.core.records import TileRecord
from flarekit.engine import Engine, Schedule, Slab, Tile, TilePace, TileProgress
from flarekit.preprocess import Box, Placement
from flarekit.segmentation.context import Clock, Compute
from flarekit.segmentation.ending import after_tiles_s, filling_s, restore_amount, slice_s
from flarekit.segmentation.labelling import Labelling, LogitsSink
from flarekit.segmentation.limits import Plan
from flarekit.segmentation.small_tiles import SMALL

_LOG = logging.getLogger(__name__)
_UNKNOWN_TILE = 6.0  # a tile of which nothing is known takes at most so many looks of the locator


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far the network came.

    Attributes:
        tiles: what the window did.
        traded: what was left out when the time was up, in words.
        curve: when, of `time.monotonic`, which share of the expected label was final.
        boxes: of the stored grid, that were decided; None where everything was, or where nothing
            else knows labels.
    """

    tiles: TileRecord
    traded: tuple[str, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    boxes: tuple[Box, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Sweeper:
    """Runs the tiles that a plan names.

    Attributes:
        plan: of the case.
        placement: on the network's grid.
        compute: what runs tiles.
        clock: of the case.
        deadline: of `time.monotonic`, for the mask; None where there is no limit.
        progress: called after every tile.
    """

    plan: Plan
    placement: Placement
    compute: Compute
    clock: Clock
    deadline: float | None
    progress: TileProgress

    def run(
        self,
        tensor_CZYX: NDArray[np.float32] | None,
        labelling: Labelling,
        sinks: Sequence[LogitsSink],
    ) -> Reach:
        """Run the window over what the network sees and decide labels while it goes up.

        Args:
            tensor_CZYX: on the network's grid; None where no tile is to be run.
            labelling: decides.
            sinks: who else takes the logits.
        """
        began = time.monotonic()
        if tensor_CZYX is None:
            return self._reach((), began, self._record(0, self.plan.usual))
        plan = self.plan
        sweep = self._engine().sweep(
            tensor_CZYX,
            effort=plan.effort,
            needed_ZYX=self.placement.needed_ZYX,
            pace=self._pace(),
            progress=self.progress,
            schedule=None if plan.tiles is None else Schedule(plan.tiles),
        )
        self._decide(sweep, labelling, sinks)
        self._engine().release()
        self._learn(sweep.pace)
        late = ("one tile although its time was up",) if sweep.pace.is_late else ()
        if plan.priorities is None:
            record = self._record(sweep.done, sweep.dropped, sweep.empty)
            left_out = f"{sweep.dropped} tiles left out when the time was up: background"
            traded = (*late, left_out) if sweep.dropped else late
            return Reach(tiles=record, traded=_said(traded, sweep.notes))
        done = 0 if plan.small else sweep.done  # of the usual tiles
        dropped = max(0, plan.usual - done) if sweep.dropped or plan.small else 0
        return self._reach(sweep.ran, began, self._record(sweep.done, dropped), late, sweep.notes)

    def _engine(self) -> Engine:
        if not self.plan.small:
            return self.compute.engine
        assert self.compute.small is not None
        return self.compute.small.engine(self.compute.speeds)

    def _pace(self) -> TilePace:
        """Return what keeps the deadline; a mask without a map is not left empty for it."""
        plan, speeds, placement = self.plan, self.compute.speeds, self.placement
        if self.deadline is None:
            return TilePace()
        kind, starting_s = "", speeds.seconds("start")
        if plan.small and self.compute.small is not None:
            kind, starting_s = SMALL, self.compute.small.seconds(speeds).start
        is_whole = plan.tiles is not None and len(plan.tiles) == plan.usual and not plan.small
        return TilePace(
            self.deadline,
            after_s=after_tiles_s(placement, speeds, fills=plan.has_map),
            slice_s=slice_s(placement, speeds),
            expected_s=plan.expected_s,
            longest_s=speeds.at_most(f"{kind}tile") * plan.effort.runs,
            starting_s=starting_s or 0.0,
            alone_s=speeds.at_most(f"{kind}first") * plan.effort.runs or None,
            spare_s=filling_s(placement, speeds) if plan.has_map and is_whole else 0.0,
            unknown_s=_UNKNOWN_TILE * self.clock.seconds.get("locator", 0.0),
            at_least=0 if plan.has_map else 1,
        )

    def _learn(self, pace: TilePace) -> None:
        """Remember how long tiles took, what stands before the first, and what left the window."""
        speeds, runs = self.compute.speeds, self.plan.effort.runs
        if pace.first_s is None:
            return
        kind = SMALL if self.plan.small else ""
        speeds.learn(f"{kind}first", pace.first_s / runs)
        if pace.later_s is not None and pace.took_longer_s is not None:
            speeds.learn(f"{kind}tile", pace.later_s / runs)
            speeds.learn(f"{kind}start", pace.took_longer_s)
        else:
            starting_s = min(speeds.seconds(f"{kind}start") or 0.0, pace.tiles_s / 2)
            speeds.learn(f"{kind}tile", (pace.tiles_s - starting_s) / pace.tiles / runs)
        speeds.learn("restore", pace.slices_s, pace.slices * restore_amount(self.placement))

    def _decide(
        self, sweep: Iterable[Slab], labelling: Labelling, sinks: Sequence[LogitsSink]
    ) -> None:
        slabs, clock = iter(sweep), self.clock
        while True:
            with clock.stage("tiles"):
                slab = next(slabs, None)
                if slab is None:
                    return
                taken = None if slab.is_blank else labelling.take(slab)
                logits = slab.logits() if sinks else None
            with clock.stage("restore"):
                if taken is None:
                    labelling.pass_over(slab.count)
                else:
                    labelling.add(taken)
                for sink in sinks:
                    assert logits is not None
                    sink.add(logits)

    def _record(self, done: int, dropped: int, empty: int | None = None) -> TileRecord:
        effort, placement = self.plan.effort, self.placement
        if empty is None:
            engine, shape = self.compute.engine, placement.shape_ZYX
            everywhere = engine.count_tiles(shape, effort.step, placement.needed_ZYX)
            empty = max(0, everywhere - self.plan.usual)
        return TileRecord(
            done=done, empty=empty, dropped=dropped, step=effort.step, runs=effort.runs
        )

    def _reach(
        self,
        ran: Sequence[tuple[Tile, float]],
        began: float,
        record: TileRecord,
        late: tuple[str, ...] = (),
        notes: Sequence[str] = (),
    ) -> Reach:
        """Return how far the best tiles reached."""
        plan = self.plan
        assert plan.priorities is not None
        tiles = [tile for tile, _ in ran]
        shares = plan.priorities.shares(tiles)
        curve = ((began, 0.0), *((at, s) for (_, at), s in zip(ran, shares, strict=True)))
        whole = not record.dropped and set(plan.tiles or ()) == set(tiles)
        count, share = f"{len(ran)} tiles of {plan.usual}", shares[-1] if shares else 0.0
        if plan.small:
            small = " x ".join(map(str, self._engine().grid.tile_ZYX))
            count = f"{len(ran)} smaller tiles ({small}) instead of {plan.usual}"
        if whole and len(ran) >= plan.usual:
            traded = late
        elif plan.has_map:
            labels = f"{share:.0%} of the expected labels are the network's"
            traded = (*late, f"{count}: {labels}, the rest is the locator's")
        else:
            seen = f"{share:.0%} of the body was looked at"
            traded = (*late, f"{count}: {seen}, the rest is background")
        if not plan.has_map:
            return Reach(tiles=record, traded=_said(traded, notes))
        boxes = None if traded == late else tuple(self._stored_box(tile) for tile in tiles)
        return Reach(tiles=record, traded=_said(traded, notes), curve=curve, boxes=boxes)

    def _stored_box(self, tile: Tile) -> Box:
        engine, grid = self._engine(), self.placement.shape_ZYX
        size = (engine.depth_at_once, *engine.grid.tile_ZYX[1:])
        z, y, x = (
            slice(first, min(first + n, end))
            for first, n, end in zip(tile, size, grid, strict=True)
        )
        return self.placement.stored_box((z, y, x))


def _said(traded: tuple[str, ...], notes: Sequence[str]) -> tuple[str, ...]:
    """Log what was given up, and return it with what else there is to note."""
    for note in traded:
        _LOG.warning("to keep the time budget: %s", note)
    return (*traded, *notes)
