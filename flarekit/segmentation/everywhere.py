"""How much a case gets where no locator says where its labels are."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from flarekit.core.spec import PredictorSpec
from flarekit.engine import Effort, Engine, Tile
from flarekit.preprocess import Located, Placement
from flarekit.segmentation.limits import (
    MARGIN,
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
from flarekit.segmentation.priorities import Priorities

_WIDER_STEPS = (0.75, 1.0)
# what masks are worth on grids so many times coarser than the network was trained on, where all of
# the scan is seen: Dice beside that of its own grid, of abdomen_ct on three scans it never saw
_QUALITY = {1.0: 1.0, 1.25: 0.95, 1.6: 0.78, 2.0: 0.3}


@dataclass(frozen=True, kw_only=True)
class _Choice:
    effort: Effort
    traded: tuple[str, ...] = field(default=())


def plan_everywhere(located: Located, spec: PredictorSpec, pace: Pace, limits: Limits) -> Plan:
    """Run tiles everywhere, with less and less of everything else until there is time.

    Args:
        located: where in the scan there is something to look at.
        spec: the predictor's facts in the mode that is run.
        pace: of the engine.
        limits: what the case may cost, with a deadline.
    """
    placement = located.placement(spec)
    ready = ready_at(placement, pace, limits)
    if time.monotonic() >= ready and not pace.speeds.knows("tile"):
        return _plan_most(located, spec, pace, 1)  # no time to find out how long a tile takes
    tile_s = pace.tile_s(placement)
    for choice in _choices(full_effort(spec)):
        if fits(placement, choice.effort, pace.engine, tile_s, ready):
            tiles = _everywhere(placement, choice.effort.step, pace.engine)
            return _with_tiles(placement, choice, pace, tiles, usual=len(tiles))
    count = int((ready - time.monotonic()) / max(tile_s * MARGIN, 1e-9))
    return _plan_most(located, spec, pace, max(1, count))


def _plan_most(located: Located, spec: PredictorSpec, pace: Pace, count: int) -> Plan:
    """Run so many tiles, on the grid on which they show most that the network can make use of."""
    *_, least = _choices(full_effort(spec))
    plans = []
    is_free = has_spacing(spec) and spec.grid.order == "upwards"  # else it begins in the middle
    for factor, quality in _QUALITY.items() if is_free else ((1.0, 1.0),):
        placement = located.placement(spec if factor == 1.0 else coarser(spec, factor))
        everywhere = _everywhere(placement, least.effort.step, pace.engine)
        tiles, share = everywhere, 1.0
        if len(everywhere) > count:
            priorities = Priorities.of_body(placement, run_at_once(pace.engine))
            wanted = int(count * MORE_TILES) + 1
            most = 2 * count >= len(everywhere)  # wherever they overlap, many show less than a grid
            tiles = tuple(priorities.ordered(everywhere) if most else priorities.anywhere(wanted))
            share = priorities.shares(tiles[:count])[-1] if tiles else 0.0
        note = () if factor == 1.0 else (f"a grid {factor:g} times coarser",)
        choice = replace(least, traded=(*least.traded, *note))
        plan = _with_tiles(placement, choice, pace, tiles, usual=len(everywhere))
        plans.append((quality * math.sqrt(share), plan))
    return max(plans, key=lambda each: each[0])[1]


def _with_tiles(
    placement: Placement, choice: _Choice, pace: Pace, tiles: Sequence[Tile], usual: int
) -> Plan:
    plan = Plan(placement=placement, effort=choice.effort, traded=choice.traded)
    if pace.engine.grid.order != "upwards" or not tiles:
        return plan
    priorities = Priorities.of_body(placement, run_at_once(pace.engine))
    tile_s = pace.speeds.seconds("tile")
    return replace(
        plan,
        tiles=tuple(priorities.ordered(tiles)),
        usual=usual,
        priorities=priorities,
        expected_s=None if tile_s is None else tile_s * choice.effort.runs,
    )


def _everywhere(placement: Placement, step: float, engine: Engine) -> tuple[Tile, ...]:
    return tiles_of(engine, placement.shape_ZYX, step, placement.needed_ZYX, fitted=False)


def _choices(full: Effort) -> Iterator[_Choice]:
    """Yield less and less."""
    yield _Choice(effort=full)
    traded: tuple[str, ...] = ()
    if full.mirror_axes:
        traded = ("no mirroring",)
        yield _Choice(effort=Effort(step=full.step), traded=traded)
    for step in (step for step in _WIDER_STEPS if step > full.step):
        note = f"tiles {step:g} of a tile apart instead of {full.step:g}"
        yield _Choice(effort=Effort(step=step), traded=(*traded, note))
