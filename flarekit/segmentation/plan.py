"""How much a case gets: tiles, flips and resolution that fit into the time that is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Volume
from flarekit.engine import Effort, Engine
from flarekit.preprocess import Prepared, prepare

_LOG = logging.getLogger(__name__)
_MARGIN = 1.15  # tiles may take this much longer than the one that was timed
_WIDER_STEPS = (0.75, 1.0)
_COARSER = (1.25, 1.6, 2.0)
# what comes after the tiles, in seconds per voxel of the scan and at least; see bench_scaling.json
_AFTER_TILES_S_PER_VOXEL = 15e-9
_AFTER_TILES_S = 0.3
_SLICES = 16  # that a 2D network gets together, at most


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
        prepared: at the resolution that the time allows.
        traded: what it does without, in words.
        deadline: of `time.monotonic`, for the tiles; None where there is no limit.
    """

    prepared: Prepared
    effort: Effort
    traded: tuple[str, ...] = ()
    deadline: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Choice:
    effort: Effort
    coarser: float = 1.0
    traded: tuple[str, ...] = field(default=())


def plan_case(
    prepared: Prepared,
    volumes: Sequence[Volume],
    spec: PredictorSpec,
    timer: TileTimer,
    case_deadline: float | None,
    ram_mib: float | None = None,
) -> Plan:
    """Choose the most that fits.

    For time, first the flips go, then tiles stand further apart, then the network sees a coarser
    grid; for memory, the grid gets coarser. All of the scan is always looked at.

    Args:
        prepared: the case as the facts have it.
        volumes: what it was prepared from.
        spec: the predictor's facts under the profile.
        timer: of the engine.
        case_deadline: of `time.monotonic`, for the mask; None where there is no limit.
        ram_mib: resident memory of this process; None where there is no limit.
    """
    prepared, spec, spared = _within_memory(prepared, volumes, spec, ram_mib)
    full = Effort(step=spec.grid.step, mirror_axes=spec.grid.mirror_axes)
    if case_deadline is None:
        return Plan(prepared=prepared, effort=full, traded=spared)
    deadline = case_deadline - _after_tiles_s(prepared)
    if timer.seconds is None or not _fits(prepared, full, timer, deadline):
        timer.measure()  # what was timed beside other work may have been slow
    chosen, at_hand = _Choice(effort=full), prepared
    for choice in _choices(full, spec):
        chosen = choice
        if choice.coarser != 1.0:
            at_hand = prepare(volumes, _coarser(spec, choice.coarser))
        if _fits(at_hand, choice.effort, timer, deadline):
            break
    for note in chosen.traded:
        _LOG.warning("to keep the time budget: %s", note)
    traded = (*spared, *chosen.traded)
    return Plan(prepared=at_hand, effort=chosen.effort, traded=traded, deadline=deadline)


def _within_memory(
    prepared: Prepared, volumes: Sequence[Volume], spec: PredictorSpec, ram_mib: float | None
) -> tuple[Prepared, PredictorSpec, tuple[str, ...]]:
    """Make the grid coarser until what is to come fits into memory, as far as that goes."""
    if ram_mib is None:
        return prepared, spec, ()
    free_mib = ram_mib - _resident_mib() + sum(v.voxels_ZYX.nbytes for v in volumes) / 2**20
    at_hand, chosen = prepared, spec
    for factor in (1.0, *_COARSER):
        if factor != 1.0:
            chosen = _coarser(spec, factor)
            at_hand = prepare(volumes, chosen)
        needed_mib = _still_to_come_mib(at_hand, spec)
        if needed_mib <= free_mib or not _has_spacing(spec):
            break
    if chosen is spec and needed_mib <= free_mib:
        return prepared, spec, ()
    note = f"{needed_mib:.0f} MiB are needed beside what is in use, {free_mib:.0f} MiB are left"
    if chosen is not spec:
        note = f"a grid {factor:g} times coarser ({note})"
    _LOG.warning("to keep the memory budget: %s", note)
    return at_hand, chosen, (f"for memory: {note}",)


def _resident_mib() -> float:
    import psutil

    return int(psutil.Process().memory_info().rss) / 2**20


def _still_to_come_mib(prepared: Prepared, spec: PredictorSpec) -> float:
    """Return what the sums, the slab that leaves them, and the mask with its rules take."""
    _, _, y, x = prepared.tensor_CZYX.shape
    tile_z, tile_y, tile_x = spec.grid.tile_ZYX
    slab_voxels = max(tile_z, _SLICES) * max(y, tile_y) * max(x, tile_x)
    sums: int = 4 * (len(spec.class_values) + 1) * slab_voxels
    mask = int(np.prod(prepared.route.stored_shape))
    return (2 * sums + 3 * mask) / 2**20


def _after_tiles_s(prepared: Prepared) -> float:
    z, y, x = prepared.route.stored_shape
    return _AFTER_TILES_S + z * y * x * _AFTER_TILES_S_PER_VOXEL


def _fits(prepared: Prepared, effort: Effort, timer: TileTimer, deadline: float) -> bool:
    assert timer.seconds is not None
    _, z, y, x = prepared.tensor_CZYX.shape
    tiles = timer.engine.count_tiles((z, y, x), effort.step, prepared.needed_ZYX)
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
