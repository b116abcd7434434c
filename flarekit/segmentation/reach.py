"""The tiles of a case, the labels they decide, and how far they reached in the time there was."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.core.records import TileRecord
from flarekit.engine import Schedule, Slab, Tile, TileProgress
from flarekit.engine._sweep import Sweep
from flarekit.preprocess import Box, Placement
from flarekit.segmentation.context import Clock, Compute
from flarekit.segmentation.labelling import Labelling, LogitsSink
from flarekit.segmentation.plan import Plan, filling_s, tiles_deadline

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far the network came.

    Attributes:
        tiles: what the window did.
        traded: what was left out when the time was up, in words.
        curve: when, of `time.monotonic`, which share of the expected label was final.
        boxes: of the stored grid, that were decided; None where everything was.
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
            return self._reach((), began, dropped=self.plan.usual)
        speeds, plan = self.compute.speeds, self.plan
        deadline = self.deadline
        sweep = self.compute.engine.sweep(
            tensor_CZYX,
            effort=plan.effort,
            needed_ZYX=self.placement.needed_ZYX,
            deadline=None if deadline is None else tiles_deadline(self.placement, speeds, deadline),
            progress=self.progress,
            schedule=self._schedule(),
        )
        self._decide(sweep, labelling, sinks)
        self.compute.engine.release()
        self._learn(sweep)
        if plan.tiles is None:
            return Reach(tiles=self._record(sweep), traded=_given_up(sweep))
        dropped = max(0, plan.usual - sweep.done) if sweep.dropped else 0
        return self._reach(sweep.ran, began, dropped=dropped, notes=tuple(sweep.notes))

    def _schedule(self) -> Schedule | None:
        plan = self.plan
        if plan.tiles is None:
            return None
        speeds = self.compute.speeds
        return Schedule(
            plan.tiles,
            plan.expected_s,
            starting_s=speeds.seconds("start") or 0.0,
            spare_s=filling_s(self.placement, speeds) if len(plan.tiles) == plan.usual else 0.0,
        )

    def _learn(self, sweep: Sweep) -> None:
        """Remember how long tiles took, and what stands before the first and after the last."""
        speeds, runs = self.compute.speeds, self.plan.effort.runs
        if sweep.first_s is None:
            return
        if sweep.later_s is not None and sweep.starting_s is not None:
            speeds.learn("tile", sweep.later_s / runs)
            speeds.learn("start", sweep.starting_s)
        elif not speeds.knows("tile"):
            speeds.learn("tile", sweep.first_s / runs)
        speeds.learn("settle", sweep.settled_s, math.prod(self.placement.route.stored_shape))

    def _decide(
        self, sweep: Iterable[Slab], labelling: Labelling, sinks: Sequence[LogitsSink]
    ) -> None:
        slabs, clock = iter(sweep), self.clock
        while True:
            with clock.stage("tiles"):
                slab = next(slabs, None)
                if slab is None:
                    return
                taken = labelling.take(slab)
                logits = slab.logits() if sinks else None
            with clock.stage("restore"):
                labelling.add(taken)
                for sink in sinks:
                    assert logits is not None
                    sink.add(logits)

    def _record(self, sweep: Sweep) -> TileRecord:
        effort = self.plan.effort
        return TileRecord(
            done=sweep.done,
            empty=sweep.empty,
            dropped=sweep.dropped,
            step=effort.step,
            runs=effort.runs,
        )

    def _reach(
        self,
        ran: Sequence[tuple[Tile, float]],
        began: float,
        *,
        dropped: int,
        notes: tuple[str, ...] = (),
    ) -> Reach:
        """Return how far the best tiles reached."""
        plan, effort = self.plan, self.plan.effort
        assert plan.priorities is not None
        tiles = [tile for tile, _ in ran]
        shares = plan.priorities.shares(tiles)
        curve = ((began, 0.0), *((at, s) for (_, at), s in zip(ran, shares, strict=True)))
        everywhere = self.compute.engine.count_tiles(
            self.placement.shape_ZYX, effort.step, self.placement.needed_ZYX
        )
        record = TileRecord(
            done=len(ran),
            empty=max(0, everywhere - plan.usual),
            dropped=dropped,
            step=effort.step,
            runs=effort.runs,
        )
        whole = not dropped and set(plan.tiles or ()) == set(tiles)
        fewer = len(ran) < plan.usual
        if whole and not fewer:
            return Reach(tiles=record, traded=notes, curve=curve)
        share = shares[-1] if shares else 0.0
        note = (
            f"{len(ran)} tiles of {plan.usual}: {share:.0%} of the expected labels are the "
            "network's, the rest is the locator's"
        )
        _LOG.warning("to keep the time budget: %s", note)
        return Reach(
            tiles=record,
            traded=(note, *notes),
            curve=curve,
            boxes=tuple(self._stored_box(tile) for tile in tiles),
        )

    def _stored_box(self, tile: Tile) -> Box:
        engine, grid = self.compute.engine, self.placement.shape_ZYX
        size = (engine.depth_at_once, *engine.grid.tile_ZYX[1:])
        z, y, x = (
            slice(first, min(first + n, end))
            for first, n, end in zip(tile, size, grid, strict=True)
        )
        return self.placement.route.stored_box((z, y, x))


def _given_up(sweep: Sweep) -> tuple[str, ...]:
    """Return what a window over everything did without."""
    notes = []
    if sweep.hurried_at is not None:
        notes.append(f"tiles one tile apart from slice {sweep.hurried_at} of the network's grid on")
    if sweep.dropped:
        notes.append(f"{sweep.dropped} tiles left out when the time was up: background")
    for note in notes:
        _LOG.warning("to keep the time budget: %s", note)
    return (*notes, *sweep.notes)
