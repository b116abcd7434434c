"""How much a case gets: tiles, flips and resolution that fit into the time and memory left.

Everything is decided from shapes: nothing is resampled or allocated to find out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from flarekit.core.spec import PredictorSpec
from flarekit.engine import Effort, Engine
from flarekit.preprocess import Located, Placement
from flarekit.segmentation.memory import Memory, computing_mib, resampling_mib

_LOG = logging.getLogger(__name__)
_MARGIN = 1.15  # tiles may take this much longer than the one that was timed
_WIDER_STEPS = (0.75, 1.0)
_COARSER = (1.25, 1.6, 2.0)
# what comes after the tiles, in seconds per voxel of the scan and at least; see bench_scaling.json
_AFTER_TILES_S_PER_VOXEL = 15e-9
_AFTER_TILES_S = 0.3
# bringing voxels onto the grid, in seconds per voxel of what is kept of the scan; likewise
_RESAMPLING_S_PER_VOXEL = 12e-9


@dataclass
class TileTimer:
    """How long a tile takes: measured once, then corrected by every case."""

    engine: Engine
    channels: int
    seconds: float | None = None

    def measure(self) -> float:
        """Run blank tiles and return the time of one, in seconds."""
        self.seconds = self.engine.seconds_per_tile(self.channels)
        return self.seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a case gets.

    Attributes:
        placement: on the grid that time and memory allow.
        effort: how much is spent on a voxel.
        traded: what it does without, in words.
    """

    placement: Placement
    effort: Effort
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
class _Choice:
    effort: Effort
    coarser: float = 1.0
    traded: tuple[str, ...] = field(default=())


def plan_case(
    located: Located, spec: PredictorSpec, timer: TileTimer | None, limits: Limits
) -> Plan:
    """Choose the most that fits.

    For time, first the flips go, then tiles stand further apart, then the network sees a coarser
    grid; for memory, the grid gets coarser. All of the scan is always looked at.

    Args:
        located: where in the scan there is something to look at.
        spec: the predictor's facts in the mode that is run.
        timer: of the engine; only where time is limited.
        limits: what the case may cost.

    Raises:
        BudgetError: not even the coarsest grid fits into memory.
    """
    spec, spared = _within_memory(located, spec, limits)
    full = Effort(step=spec.grid.step, mirror_axes=spec.grid.mirror_axes)
    placement = located.placement(spec)
    if limits.deadline is None or timer is None:
        return Plan(placement=placement, effort=full, traded=spared)
    ready = tiles_deadline(placement, limits.deadline) - _resampling_s(placement)
    if timer.seconds is None or not _fits(placement, full, timer, ready):
        timer.measure()  # what was timed beside other work may have been slow
    chosen = _Choice(effort=full)
    for choice in _choices(full, spec):
        chosen = choice
        if choice.coarser != 1.0:
            placement = located.placement(_coarser(spec, choice.coarser))
        if _fits(placement, choice.effort, timer, ready):
            break
    for note in chosen.traded:
        _LOG.warning("to keep the time budget: %s", note)
    traded = (*spared, *chosen.traded)
    return Plan(placement=placement, effort=chosen.effort, traded=traded)


def tiles_deadline(placement: Placement, deadline: float) -> float:
    """Return when the tiles of a case have to be done, given when its mask has to be there."""
    z, y, x = placement.route.stored_shape
    return deadline - _AFTER_TILES_S - z * y * x * _AFTER_TILES_S_PER_VOXEL


def fits_whole(
    located: Located, spec: PredictorSpec, timer: TileTimer | None, limits: Limits
) -> bool:
    """Return whether nothing has to be given up, as far as is known without timing anything."""
    placement = located.placement(spec)
    if _missing_mib(placement, spec, limits) > 0:
        return False
    full = Effort(step=spec.grid.step, mirror_axes=spec.grid.mirror_axes)
    if limits.deadline is None or timer is None:
        return True
    if timer.seconds is None:
        return False
    ready = tiles_deadline(placement, limits.deadline) - _resampling_s(placement)
    return _fits(placement, full, timer, ready)


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


def _resampling_s(placement: Placement) -> float:
    z, y, x = placement.route.cropped_shape
    return placement.channels * z * y * x * _RESAMPLING_S_PER_VOXEL


def _fits(placement: Placement, effort: Effort, timer: TileTimer, deadline: float) -> bool:
    assert timer.seconds is not None
    tiles = timer.engine.count_tiles(placement.shape_ZYX, effort.step, placement.needed_ZYX)
    return time.monotonic() + tiles * effort.runs * timer.seconds * _MARGIN <= deadline


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
