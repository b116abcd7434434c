"""A folder of scans in, a folder of masks out; one failed case never takes the others along."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flarekit import conventions, engine
from flarekit.conventions import Case, Convention
from flarekit.core.errors import FlarekitError, OutputError
from flarekit.core.files import make_folder
from flarekit.core.records import CaseRecord, RunRecord
from flarekit.core.spec import PredictorFolder, PredictorSpec
from flarekit.engine import Engine, Precision
from flarekit.pipeline.predictors import build_networks
from flarekit.postprocess import apply_rules
from flarekit.preprocess import Prepared, prepare

_LOG = logging.getLogger(__name__)
OnError = Literal["mask", "skip", "stop"]


class Progress(Protocol):
    """Who wants to know how far the run is."""

    def start_case(self, case_id: str, index: int, total: int) -> None:
        """Case `index` (from 0) of `total` begins."""
        ...

    def tiles(self, done: int, total: int) -> None:
        """So many tiles of this case are done."""
        ...

    def end_case(self, record: CaseRecord) -> None:
        """The case is over, one way or the other."""
        ...


class Silent:
    """Nobody wants to know."""

    def start_case(self, case_id: str, index: int, total: int) -> None:
        """Do nothing."""

    def tiles(self, done: int, total: int) -> None:
        """Do nothing."""

    def end_case(self, record: CaseRecord) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run.

    Attributes:
        convention: its name; the predictor's own where None.
        engine: its name.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of the network's arithmetic.
        mirroring: average over the flips that the predictor names, if any.
        on_error: what a failed case leaves: an empty `mask`, nothing (`skip`), or the end of the
            run (`stop`).
    """

    convention: str | None = None
    engine: str = "torch"
    device: str = "auto"
    precision: Precision = "auto"
    mirroring: bool = True
    on_error: OnError = "mask"


@dataclass(frozen=True, kw_only=True)
class _Stages:
    spec: PredictorSpec
    convention: Convention
    engine: Engine
    output_dir: Path
    progress: Progress


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def segment_folder(
    predictor: PredictorFolder,
    input_dir: Path,
    output_dir: Path,
    options: Options | None = None,
    progress: Progress | None = None,
) -> RunRecord:
    """Segment every case of a folder.

    Args:
        predictor: from `find_predictor`.
        input_dir: the convention's input folder; only read.
        output_dir: made where it is missing; gets the masks and nothing else.
        options: how to run.
        progress: who wants to know.

    Returns:
        What happened to every case, stage times in seconds, and what computed.

    Raises:
        InputError: no cases.
        PredictorError: weights missing, wrong or not fitting.
        DeviceError: the device or the precision is not available.
        OutputError: the output folder cannot be made.
    """
    options, progress = options or Options(), progress or Silent()
    clock = _Clock()
    spec = predictor.spec
    convention = conventions.get(options.convention or spec.convention)
    cases = convention.find_cases(input_dir, len(spec.channels))
    make_folder(output_dir)
    with clock.stage("load"):
        compute = _start_engine(predictor, options)
    facts = compute.facts
    stages = _Stages(
        spec=spec, convention=convention, engine=compute, output_dir=output_dir, progress=progress
    )
    records = []
    for index, case in enumerate(cases):
        progress.start_case(case.case_id, index, len(cases))
        record = _guarded(case, stages, options.on_error)
        records.append(record)
        progress.end_case(record)
        if record.error is not None and options.on_error == "stop":
            break
    return RunRecord(
        predictor=spec.name,
        convention=options.convention or spec.convention,
        engine=facts.engine,
        device=facts.device,
        device_name=facts.device_name,
        precision=facts.precision,
        seconds=clock.seconds,
        cases=tuple(records),
        not_run=tuple(case.case_id for case in cases[len(records) :]),
    )


def _start_engine(predictor: PredictorFolder, options: Options) -> Engine:
    spec = predictor.spec
    plain = spec.grid.model_copy(update={"mirror_axes": ()})
    compute = engine.create(
        options.engine,
        partial(build_networks, predictor),
        spec.grid if options.mirroring else plain,
        class_count=len(spec.class_values),
        device=options.device,
        precision=options.precision,
    )
    facts = compute.facts
    where = f"{facts.engine} on {facts.device} ({facts.device_name}), {facts.precision}"
    _LOG.info("predictor %s, engine %s", spec.name, where)
    return compute


def _guarded(case: Case, stages: _Stages, on_error: OnError) -> CaseRecord:
    """Segment a case; whatever goes wrong becomes its record's error."""
    clock = _Clock()
    try:
        return _segment(case, stages, clock)
    except FlarekitError as error:
        message, fix = error.message, error.fix
    except Exception as error:  # noqa: BLE001 - the other cases' masks must not be lost to any bug
        _LOG.debug("case %s", case.case_id, exc_info=True)
        message = f"{case.channels[0]}: {type(error).__name__}: {error}"
        fix = "run again with -v for the traceback"
    mask = None
    if on_error == "mask":
        try:
            mask = stages.convention.write_empty_mask(case, stages.output_dir)
        except OutputError as error:
            message, fix = f"{message}; and {error.message}", error.fix
    return CaseRecord(
        case_id=case.case_id, mask=mask, seconds=clock.seconds, error=message, fix=fix
    )


def _segment(case: Case, stages: _Stages, clock: _Clock) -> CaseRecord:
    spec = stages.spec
    with clock.stage("read"):
        volumes = stages.convention.read_case(case)
    warnings = tuple(f"{volume.path}: {note}" for volume in volumes for note in volume.warnings)
    for warning in warnings:
        _LOG.warning(warning)
    with clock.stage("prepare"):
        prepared = prepare(volumes, spec)
    stored = (_by_classes if prepared.restore_logits is None else _by_logits)(
        prepared, stages, clock
    )
    with clock.stage("write"):
        mask = stages.convention.write_mask(case, stored, volumes, stages.output_dir)
    return CaseRecord(case_id=case.case_id, mask=mask, seconds=clock.seconds, warnings=warnings)


def _by_classes(prepared: Prepared, stages: _Stages, clock: _Clock) -> NDArray[np.uint8]:
    """Decide on the network's grid: fast, and no float volume per class ever exists."""
    spec = stages.spec
    with clock.stage("tiles"):
        classes = stages.engine.predict(prepared.tensor_CZYX, stages.progress.tiles)
    with clock.stage("rules"):
        label_map = np.array(spec.class_values, np.uint8)[classes]
        label_map = apply_rules(label_map, spec.rules, spec.labels, voxel_ml=prepared.voxel_ml)
    with clock.stage("restore"):
        return prepared.restore(label_map)


def _by_logits(prepared: Prepared, stages: _Stages, clock: _Clock) -> NDArray[np.uint8]:
    """Decide on the scan's grid, from resampled logits: nnU-Net's way."""
    spec = stages.spec
    assert prepared.restore_logits is not None
    with clock.stage("tiles"):
        logits = stages.engine.logits(prepared.tensor_CZYX, stages.progress.tiles)
    with clock.stage("restore"):
        stored = prepared.restore_logits(logits, np.array(spec.class_values, np.uint8))
    with clock.stage("rules"):
        return apply_rules(stored, spec.rules, spec.labels, voxel_ml=prepared.stored_voxel_ml)
