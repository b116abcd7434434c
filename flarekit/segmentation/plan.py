"""How much a case gets: tiles, flips and resolution that fit into the time and memory left.

Everything is decided from shapes, and from what a locator found: nothing is resampled or allocated
to find out. With a locator the grid stays as it is: its map is there at once, and as many tiles of
the whole network as there is time for replace it where they add most. Without one, tiles stand
further apart until there is time for all; where there is none even then, the grid gets a little
coarser, or the tiles run that show most of the body, and one at least.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from flarekit.core.spec import PredictorSpec
from flarekit.preprocess import Located, Placement
from flarekit.segmentation.ending import filling_s, restoring_s
from flarekit.segmentation.everywhere import plan_everywhere
from flarekit.segmentation.limits import (
    MORE_TILES,
    Limits,
    Pace,
    Plan,
    coarser,
    fits,
    full_effort,
    has_spacing,
    ready_at,
    run_at_once,
    tiles_of,
)
from flarekit.segmentation.locator import LocatorMap
from flarekit.segmentation.memory import computing_mib, resampling_mib
from flarekit.segmentation.priorities import Priorities
from flarekit.segmentation.small_tiles import TileSeconds
from flarekit.segmentation.speeds import Speeds

_LOG = logging.getLogger(__name__)
_COARSER = (1.25, 1.6, 2.0)


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

    Without a locator, first the flips go for time, then tiles stand further apart; then either the
    grid gets coarser, or tiles that show less of the body go, whichever costs the mask less. With
    one, the flips go, and then the tiles that add least. For memory, the grid gets coarser.

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
        plan = Plan(placement=placement, effort=full_effort(spec))
    else:
        plan = plan_everywhere(located, spec, pace, limits)
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
    engine, full = pace.engine, full_effort(spec)
    fewer = placement.needed_where(found.possible_ZYX, found.placement)
    shape = placement.shape_ZYX
    fitted = tiles_of(engine, shape, full.step, fewer.needed_ZYX, fitted=True)
    usual = fitted
    if exact:
        usual = tiles_of(engine, shape, full.step, placement.needed_ZYX, fitted=False)
    priorities = Priorities.of_map(found, placement, run_at_once(engine))
    plan = Plan(
        placement=placement,
        effort=full,
        tiles=usual,
        usual=len(usual),
        priorities=priorities,
        has_map=True,
    )
    if limits.deadline is None:
        return plan
    left_s = ready_at(placement, pace, limits, slices=0, fills=True) - time.monotonic()
    usual_left_s = left_s - (0.0 if engine.is_loaded else pace.speeds.loading_s("load"))
    whole_s = usual_left_s - restoring_s(placement, pace.speeds)
    whole_s -= pace.speeds.seconds("start") or 0.0
    tile_s, spare_s = pace.speeds.seconds("tile"), filling_s(placement, pace.speeds)
    if tile_s is None or len(usual) * full.runs * tile_s <= whole_s + spare_s:
        expected_s = None if tile_s is None else tile_s * full.runs
        return replace(plan, tiles=tuple(priorities.ordered(usual)), expected_s=expected_s)
    effort, traded = full, []
    if full.mirror_axes:
        effort, traded = replace(full, mirror_axes=()), ["no mirroring"]
    plan = replace(plan, effort=effort, expected_s=tile_s, traded=tuple(traded))
    if len(fitted) * tile_s <= whole_s:
        return replace(plan, tiles=tuple(priorities.ordered(fitted)))
    usual_s = TileSeconds.of(pace.speeds)
    count = _count(placement, pace.speeds, usual_left_s, engine.depth_at_once, usual_s)
    wanted = min(len(fitted), int(count * MORE_TILES) + 2) if count else 0
    few = replace(plan, tiles=tuple(priorities.anywhere(wanted, alone=count == 1)))
    return _with_small_tiles(few, pace, left_s, found, priorities.added((few.tiles or ())[:count]))


def _count(
    placement: Placement, speeds: Speeds, left_s: float, depth: int, seconds: TileSeconds
) -> int:
    """Return for how many tiles there is time, wherever they stand.

    The first one, which takes longest, has to be in time even if it takes as long as it may.

    Args:
        placement: of the case.
        speeds: of this machine.
        left_s: for tiles, and for slices that leave the window.
        depth: slices of a tile.
        seconds: that tiles take.
    """
    row_s, all_s = restoring_s(placement, speeds, depth), restoring_s(placement, speeds)
    begun_s = left_s - seconds.start
    count = max(0, int(begun_s / (seconds.tile + row_s)), int((begun_s - all_s) / seconds.tile))
    if count > 1 or seconds.first is None:
        return count
    return int(seconds.first + row_s <= left_s)


def _with_small_tiles(
    few: Plan, pace: Pace, left_s: float, found: LocatorMap, gained: float
) -> Plan:
    """Run smaller tiles where those that there is time for gain more than few usual ones.

    Args:
        few: the plan with usual tiles.
        pace: of what computes.
        left_s: for tiles, and for slices that leave the window.
        found: by the locator.
        gained: share of all that there is to be gained which the usual tiles gain.
    """
    small, speeds = pace.small, pace.speeds
    if small is None:
        return few
    seconds = small.seconds(speeds)
    left_s -= small.loading_s(speeds)
    count = _count(few.placement, speeds, left_s, small.tile_ZYX[0], seconds)
    if count < 1:
        return few
    priorities = Priorities.of_map(found, few.placement, small.tile_ZYX)
    tiles = priorities.anywhere(int(count * MORE_TILES) + 2)
    if priorities.added(tiles[:count]) <= gained:
        return few
    return replace(
        few, small=True, tiles=tuple(tiles), priorities=priorities, expected_s=seconds.tile
    )


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
    ready = ready_at(placement, pace, limits)
    return fits(placement, full_effort(spec), pace.engine, tile_s, ready)


def _within_memory(
    located: Located, spec: PredictorSpec, limits: Limits
) -> tuple[PredictorSpec, tuple[str, ...]]:
    """Make the grid coarser until what is to come fits into memory."""
    if limits.memory.budget_mib is None:
        return spec, ()
    factors = (1.0, *(_COARSER if has_spacing(spec) else ()))
    missing_mib = 0.0
    for factor in factors:
        chosen = spec if factor == 1.0 else coarser(spec, factor)
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
