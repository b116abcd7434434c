"""How much a case gets: tiles, flips and resolution that fit into the time and memory left.

Everything is decided from shapes, and from what a locator found: nothing is resampled or allocated
to find out. With a locator the grid stays as it is: its map is there at once, and as many tiles of
the whole network as there is time for replace it where they add most. Without one, tiles stand
further apart and the grid gets coarser until there is time for all.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import PredictorSpec
from flarekit.engine import Effort, Engine, Tile
from flarekit.preprocess import Located, Placement
from flarekit.segmentation.locator import LocatorMap
from flarekit.segmentation.memory import Memory, computing_mib, resampling_mib
from flarekit.segmentation.priorities import Priorities
from flarekit.segmentation.speeds import Speeds

_LOG = logging.getLogger(__name__)
_MARGIN = 1.05  # what is to come may take this much longer than it is expected to
_WIDER_STEPS = (0.75, 1.0)
_COARSER = (1.25, 1.6, 2.0)
_AFTER_TILES = ("settle", "fill", "rules", "write")
_AFTER_TILES_S = 0.15  # for the process to end
_MORE_TILES = 1.5  # tiles that are kept ready beside those there seems to be time for


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a case gets.

    Attributes:
        placement: on the grid that time and memory allow.
        effort: how much is spent on a voxel.
        tiles: those to be run, best first; None for a window over everything.
        usual: how many tiles there are where time is no matter.
        priorities: what the order of the tiles came from; None where there is no locator.
        expected_s: how long a tile takes, with its flips; None where that is not known.
        traded: what it does without, in words.
    """

    placement: Placement
    effort: Effort
    tiles: tuple[Tile, ...] | None = None
    usual: int = 0
    priorities: Priorities | None = None
    expected_s: float | None = None
    traded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a case may cost.

    Attributes:
        deadline: of `time.monotonic`, for the mask; None where there is no limit.
        memory: of this process.
        ahead: whether the case's turn has not come yet.
        freed_mib: what the scan's voxels give back before the first tile runs.
        keeps_logits: whether the logits of the whole grid are kept.
    """

    deadline: float | None = None
    memory: Memory = field(default_factory=Memory)
    ahead: bool = False
    freed_mib: float = 0.0
    keeps_logits: bool = False


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What computes, and how fast.

    Attributes:
        engine: runs the tiles.
        speeds: of this machine.
        middle_tile: gives the middle tile of a placement, to be timed where nothing is known.
    """

    engine: Engine
    speeds: Speeds
    middle_tile: Callable[[Placement], NDArray[np.float32]]

    def tile_s(self, placement: Placement) -> float:
        """Return how long a tile takes; where that is not known, one of the scan is timed."""
        known = self.speeds.seconds("tile")
        if known is None:
            known = self.engine.seconds_per_tile(self.middle_tile(placement))
            self.speeds.learn("tile", known)
        return known


@dataclass(frozen=True, kw_only=True)
class _Choice:
    effort: Effort
    coarser: float = 1.0
    traded: tuple[str, ...] = field(default=())


def plan_case(
    located: Located,
    spec: PredictorSpec,
    pace: Pace | None,
    limits: Limits,
    found: LocatorMap | None = None,
    *,
    exact: bool = False,
) -> Plan:
    """Choose the most that fits.

    Without a locator, first the flips go for time, then tiles stand further apart, then the network
    sees a coarser grid, and all of the scan is always looked at. With one, the flips go, and then
    the tiles that add least. For memory, the grid gets coarser.

    Args:
        located: where in the scan there is something to look at.
        spec: the predictor's facts in the mode that is run.
        pace: of the engine; only where time is limited or there is a locator.
        limits: what the case may cost.
        found: by the locator.
        exact: tiles stand everywhere as long as there is time, whatever was found.

    Raises:
        BudgetError: not even the coarsest grid fits into memory.
    """
    spec, spared = _within_memory(located, spec, limits)
    placement = located.placement(spec)
    if found is not None and pace is not None:
        plan = _plan_best_first(placement, spec, pace, limits, found, exact=exact)
    elif limits.deadline is None or pace is None:
        plan = Plan(placement=placement, effort=_full(spec))
    else:
        plan = _plan_everywhere(located, spec, pace, limits)
    for note in plan.traded:
        _LOG.warning("to keep the time budget: %s", note)
    return replace(plan, traded=(*spared, *plan.traded))


def _plan_best_first(
    placement: Placement,
    spec: PredictorSpec,
    pace: Pace,
    limits: Limits,
    found: LocatorMap,
    *,
    exact: bool,
) -> Plan:
    """Run all tiles that may hold a label, or the best of them."""
    engine, full = pace.engine, _full(spec)
    fewer = placement.needed_where(found.possible_ZYX, found.placement)
    shape = placement.shape_ZYX
    fitted = _tiles(engine, shape, full.step, fewer.needed_ZYX, fitted=True)
    usual = fitted
    if exact:
        usual = _tiles(engine, shape, full.step, placement.needed_ZYX, fitted=False)
    depth = engine.depth_at_once
    priorities = Priorities(found, placement, (depth, *spec.grid.tile_ZYX[1:]))
    plan = Plan(
        placement=placement, effort=full, tiles=usual, usual=len(usual), priorities=priorities
    )
    if limits.deadline is None:
        return plan
    left_s = ready_at(placement, pace.speeds, limits.deadline) - time.monotonic()
    left_s -= pace.speeds.seconds("start") or 0.0
    tile_s, spare_s = pace.speeds.seconds("tile"), filling_s(placement, pace.speeds)
    if tile_s is None or len(usual) * full.runs * tile_s <= left_s + spare_s:
        expected_s = None if tile_s is None else tile_s * full.runs
        return replace(plan, tiles=tuple(priorities.ordered(usual)), expected_s=expected_s)
    effort, traded = full, []
    if full.mirror_axes:
        effort, traded = replace(full, mirror_axes=()), ["no mirroring"]
    plan = replace(plan, effort=effort, expected_s=tile_s, traded=tuple(traded))
    if len(fitted) * tile_s <= left_s:
        return replace(plan, tiles=tuple(priorities.ordered(fitted)))
    count = max(0, int(left_s / tile_s))
    wanted = min(len(fitted), int(count * _MORE_TILES) + 2) if count else 0
    return replace(plan, tiles=tuple(priorities.anywhere(wanted)))


def _tiles(
    engine: Engine,
    shape_ZYX: tuple[int, int, int],
    step: float,
    needed_ZYX: NDArray[np.bool_] | None,
    *,
    fitted: bool,
) -> tuple[Tile, ...]:
    rows = engine.rows(shape_ZYX, step, needed_ZYX, fitted=fitted)
    return tuple((row.z, y, x) for row in rows for y, x in row.places)


def _plan_everywhere(located: Located, spec: PredictorSpec, pace: Pace, limits: Limits) -> Plan:
    """Run tiles everywhere, with less and less of everything else until there is time."""
    assert limits.deadline is not None
    full, placement = _full(spec), located.placement(spec)
    tile_s = pace.tile_s(placement)
    ready = ready_at(placement, pace.speeds, limits.deadline)
    chosen = _Choice(effort=full)
    for choice in _choices(full, spec):
        chosen = choice
        if choice.coarser != 1.0:
            placement = located.placement(_coarser(spec, choice.coarser))
        if _fits(placement, choice.effort, pace.engine, tile_s, ready):
            break
    return Plan(placement=placement, effort=chosen.effort, traded=chosen.traded)


def ready_at(placement: Placement, speeds: Speeds, deadline: float) -> float:
    """Return when the tiles would have to be done if they began now: resampling comes first."""
    z, y, x = placement.route.cropped_shape
    placing_s = speeds.seconds("place", placement.channels * z * y * x)
    return tiles_deadline(placement, speeds, deadline) - (placing_s or 0.0)


def tiles_deadline(placement: Placement, speeds: Speeds, deadline: float) -> float:
    """Return when the tiles of a case have to be done, given when its mask has to be there."""
    voxels = math.prod(placement.route.stored_shape)
    after = [speeds.seconds(what, voxels) or 0.0 for what in _AFTER_TILES]
    return deadline - _AFTER_TILES_S * speeds.slowdown - _MARGIN * sum(after)


def filling_s(placement: Placement, speeds: Speeds) -> float:
    """Return the part of that in which the locator's labels are painted."""
    return _MARGIN * (speeds.seconds("fill", math.prod(placement.route.stored_shape)) or 0.0)


def fits_whole(located: Located, spec: PredictorSpec, pace: Pace | None, limits: Limits) -> bool:
    """Return whether nothing has to be given up, as far as is known without timing anything."""
    placement = located.placement(spec)
    if _missing_mib(placement, spec, limits) > 0:
        return False
    if limits.deadline is None or pace is None:
        return True
    tile_s = pace.speeds.seconds("tile")
    if tile_s is None:
        return False
    ready = ready_at(placement, pace.speeds, limits.deadline)
    return _fits(placement, _full(spec), pace.engine, tile_s, ready)


def _full(spec: PredictorSpec) -> Effort:
    return Effort(step=spec.grid.step, mirror_axes=spec.grid.mirror_axes)


def _within_memory(
    located: Located, spec: PredictorSpec, limits: Limits
) -> tuple[PredictorSpec, tuple[str, ...]]:
    """Make the grid coarser until what is to come fits into memory."""
    if limits.memory.budget_mib is None:
        return spec, ()
    factors = (1.0, *(_COARSER if _has_spacing(spec) else ()))
    missing_mib = 0.0
    for factor in factors:
        chosen = spec if factor == 1.0 else _coarser(spec, factor)
        placement = located.placement(chosen)
        missing_mib = _missing_mib(placement, chosen, limits)
        if missing_mib <= 0:
            break
    else:
        needed_mib = _needed_mib(placement, chosen, limits)
        limits.memory.check(needed_mib, "segmenting the scan, even on the coarsest grid,")
    if chosen is spec:
        return spec, ()
    note = f"a grid {factor:g} times coarser"
    _LOG.warning("to keep the memory budget of %.0f MiB: %s", limits.memory.budget_mib, note)
    return chosen, (f"for memory: {note}",)


def _missing_mib(placement: Placement, spec: PredictorSpec, limits: Limits) -> float:
    return _needed_mib(placement, spec, limits) - limits.memory.usable_mib(ahead=limits.ahead)


def _needed_mib(placement: Placement, spec: PredictorSpec, limits: Limits) -> float:
    computing = computing_mib(placement, spec, logits=limits.keeps_logits) - limits.freed_mib
    return max(resampling_mib(placement), computing)


def _fits(
    placement: Placement, effort: Effort, engine: Engine, tile_s: float, deadline: float
) -> bool:
    tiles = engine.count_tiles(placement.shape_ZYX, effort.step, placement.needed_ZYX)
    return time.monotonic() + tiles * effort.runs * tile_s * _MARGIN <= deadline


def _choices(full: Effort, spec: PredictorSpec) -> Iterator[_Choice]:
    """Yield less and less."""
    yield _Choice(effort=full)
    traded: tuple[str, ...] = ()
    if full.mirror_axes:
        traded = ("no mirroring",)
        yield _Choice(effort=Effort(step=full.step), traded=traded)
    for step in (step for step in _WIDER_STEPS if step > full.step):
        note = f"tiles {step:g} of a tile apart instead of {full.step:g}"
        yield _Choice(effort=Effort(step=step), traded=(*traded, note))
    last = Effort(step=max(full.step, _WIDER_STEPS[-1]))
    apart = (f"tiles {last.step:g} of a tile apart",)
    if _has_spacing(spec):
        for factor in _COARSER:
            note = f"a grid {factor:g} times coarser"
            yield _Choice(effort=last, coarser=factor, traded=(*traded, *apart, note))


def _has_spacing(spec: PredictorSpec) -> bool:
    return all(isinstance(mm, float) for mm in spec.grid.spacing_mm_ZYX)


def _coarser(spec: PredictorSpec, factor: float) -> PredictorSpec:
    spacing = tuple(mm * factor if isinstance(mm, float) else mm for mm in spec.grid.spacing_mm_ZYX)
    grid = spec.grid.model_copy(update={"spacing_mm_ZYX": spacing})
    return spec.model_copy(update={"grid": grid})
