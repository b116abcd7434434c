"""One case, from its files to its mask."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Case, Convention, points_of
from flarekit.core.records import CaseRecord, TileRecord
from flarekit.core.spec import PredictorSpec, Rule
from flarekit.core.volume import Volume
from flarekit.engine import Engine, TileProgress
from flarekit.postprocess import Scan, apply_rules, split_rules
from flarekit.preprocess import Prepared, prepare
from flarekit.segmentation.plan import Plan, TileTimer, plan_case

_LOG = logging.getLogger(__name__)
_NO_VOXELS = np.zeros((0, 0, 0), np.float32)


@dataclass
class Clock:
    """Wall time by stage, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as this stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What every case goes through."""

    spec: PredictorSpec
    convention: Convention
    engine: Engine
    timer: TileTimer
    output_dir: Path
    progress: TileProgress
    coarse: CoarsePass | None = None
    ram_mib: float | None = None


@dataclass(frozen=True, kw_only=True)
class CoarsePass:
    """Another predictor that tells where to look."""

    spec: PredictorSpec
    engine: Engine
    margin_mm: float


@dataclass(frozen=True, kw_only=True)
class ReadyCase:
    """A case that is read and prepared, and the time that took."""

    volumes: list[Volume]
    prepared: Prepared
    clock: Clock


def make_ready(case: Case, convention: Convention, spec: PredictorSpec) -> ReadyCase:
    """Read and prepare a case.

    Raises:
        InputError: a channel is missing or unreadable, or the channels do not fit together.
    """
    clock = Clock()
    with clock.stage("read"):
        volumes = convention.read_case(case)
    with clock.stage("prepare"):
        prepared = prepare(volumes, spec)
    return ReadyCase(volumes=volumes, prepared=prepared, clock=clock)


def segment_case(
    case: Case, ready: ReadyCase, stages: Stages, *, began: float, deadline: float | None
) -> CaseRecord:
    """Segment a case that is ready and write its mask.

    Args:
        case: which.
        ready: what `make_ready` gave.
        stages: what it goes through.
        began: when its time began, of `time.monotonic`.
        deadline: when its mask must be there; None where there is no limit.
    """
    clock = ready.clock
    warnings = tuple(
        f"{volume.path}: {note}" for volume in ready.volumes for note in volume.warnings
    )
    for warning in warnings:
        _LOG.warning(warning)
    with clock.stage("plan"):
        plan = plan_case(
            ready.prepared, ready.volumes, stages.spec, stages.timer, deadline, stages.ram_mib
        )
    if stages.coarse is not None:
        with clock.stage("coarse"):
            plan = replace(plan, prepared=_looking(plan.prepared, ready.volumes, stages.coarse))
    anywhere, on_scan = split_rules(stages.spec.rules)
    scan = _scan(case, ready.volumes, stages) if on_scan else None
    volumes = [replace(volume, voxels_ZYX=_NO_VOXELS) for volume in ready.volumes]
    ready.volumes.clear()  # the voxels are needed by `scan` at most: let their memory go
    stored, tiles, traded = _label_map(plan, stages, clock, anywhere)
    internal = stages.spec.internal_values
    if on_scan or internal:
        with clock.stage("rules"):
            stored = apply_rules(
                stored,
                on_scan,
                stages.spec.rule_labels,
                voxel_ml=plan.prepared.stored_voxel_ml,
                scan=scan,
                internal=internal,
            )
    with clock.stage("write"):
        mask = stages.convention.write_mask(case, stored, volumes, stages.output_dir)
    return CaseRecord(
        case_id=case.case_id,
        mask=mask,
        seconds=clock.seconds,
        wall_s=time.monotonic() - began,
        tiles=tiles,
        traded=(*plan.traded, *traded),
        warnings=warnings,
    )


def _looking(prepared: Prepared, volumes: Sequence[Volume], coarse: CoarsePass) -> Prepared:
    """Let the network look near what the first pass finds; everywhere where that is nothing."""
    first = prepare(volumes, coarse.spec)
    sweep = coarse.engine.sweep(first.tensor_CZYX, needed_ZYX=first.needed_ZYX)
    if coarse.spec.nnunet is not None and coarse.spec.nnunet.region_values:
        found = np.concatenate([(slab.logits() > 0).any(axis=0) for slab in sweep])
    else:
        classes = np.concatenate([slab.classes() for slab in sweep])
        found = (classes > 0) & (classes <= len(coarse.spec.labels))  # internal ones are behind
    if not found.any():
        _LOG.info("the first pass found nothing: the network looks everywhere")
        return prepared
    stored = first.restore(found.astype(np.uint8))
    return prepared.looking_at(stored > 0, coarse.margin_mm)


def _scan(case: Case, volumes: Sequence[Volume], stages: Stages) -> Scan:
    """Return what rules on the scan's grid look at."""
    names = (channel.name for channel in stages.spec.channels)
    return Scan(
        spacing_mm_ZYX=volumes[0].geometry.spacing_mm_ZYX,
        channels={name: each.voxels_ZYX for name, each in zip(names, volumes, strict=True)},
        points=points_of(stages.convention, case, volumes),
    )


def _label_map(
    plan: Plan, stages: Stages, clock: Clock, rules: Sequence[Rule]
) -> tuple[NDArray[np.uint8], TileRecord, tuple[str, ...]]:
    """Run the window; labels are decided on its own grid or on the scan's."""
    spec, prepared = stages.spec, plan.prepared
    sweep = stages.engine.sweep(
        prepared.tensor_CZYX,
        effort=plan.effort,
        needed_ZYX=prepared.needed_ZYX,
        deadline=plan.deadline,
        progress=stages.progress,
    )
    values = np.array(spec.class_values, np.uint8)
    slabs = iter(sweep)
    if spec.grid.decide == "network" and not prepared.route.regions:
        with clock.stage("tiles"):
            label_map = values[np.concatenate([slab.classes() for slab in slabs])]
        stages.engine.release()
        with clock.stage("rules"):
            label_map = apply_rules(label_map, rules, spec.rule_labels, voxel_ml=prepared.voxel_ml)
        with clock.stage("restore"):
            stored = prepared.restore(label_map)
    else:
        decider, stored = prepared.decider(values)
        while True:
            with clock.stage("tiles"):
                slab = next(slabs, None)
                if slab is None:
                    break
                logits = slab.logits()
            with clock.stage("restore"):
                decider.add(logits)
        decider.finish()
        stages.engine.release()
        with clock.stage("rules"):
            stored = apply_rules(stored, rules, spec.rule_labels, voxel_ml=prepared.stored_voxel_ml)
    if sweep.done:
        stages.timer.seconds = clock.seconds["tiles"] / (sweep.done * plan.effort.runs)
    record = TileRecord(
        done=sweep.done,
        empty=sweep.empty,
        dropped=sweep.dropped,
        step=plan.effort.step,
        runs=plan.effort.runs,
    )
    return stored, record, (*_hurried(sweep.hurried_at, sweep.dropped), *sweep.notes)


def _hurried(hurried_at: int | None, dropped: int) -> tuple[str, ...]:
    notes = []
    if hurried_at is not None:
        notes.append(f"tiles one tile apart from slice {hurried_at} of the network's grid on")
    if dropped:
        notes.append(f"{dropped} tiles left out when the time was up: background")
    for note in notes:
        _LOG.warning("to keep the time budget: %s", note)
    return tuple(notes)
