"""A folder of scans in, a folder of masks out; one failed case never takes the others along.

While a case computes, the next one is read, and brought onto its grid where nothing has to be given
up for it; the engine starts while the first one is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.apart import keep_apart
from flarekit.core.errors import FlarekitError, OutputError, named
from flarekit.core.files import make_folder
from flarekit.core.records import CaseRecord, RunRecord
from flarekit.core.spec import PredictorFolder, PredictorSpec
from flarekit.segmentation.case import PlacedCase, compute_case, is_simple, place_case
from flarekit.segmentation.context import CaseExtras, RunContext
from flarekit.segmentation.devices import devices_of, facts_of_all, side_by_side
from flarekit.segmentation.inputs import cases_in
from flarekit.segmentation.loaded import LoadedCase, load_case, warnings_of
from flarekit.segmentation.memory import (
    file_mib,
    reading_mib,
    still_to_come_mib,
    writing_mib,
)
from flarekit.segmentation.options import OnError, Options
from flarekit.segmentation.progress import Progress, SharedProgress, Silent
from flarekit.segmentation.report import Report
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source

__all__ = ["Options", "Progress", "Report", "Silent", "run_folder", "segment_folder"]

_LOG = logging.getLogger(__name__)
_UNPACKED = 8  # bytes in memory per byte of a compressed scan, at most
_AHEAD_MIB = 1024.0  # the next case is read beside this one where that takes no more


def segment_folder(
    predictor: PredictorFolder,
    input_dir: Path,
    output_dir: Path,
    options: Options | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> RunRecord:
    """Segment every case of a folder; the engine starts while the first case is read.

    Args:
        predictor: from `find_predictor`.
        input_dir: the convention's input folder, or a zip or tar of it; only read.
        output_dir: made where it is missing; gets the masks and nothing else.
        options: how to run.
        progress: who wants to know.
        report: what to leave in writing.

    Returns:
        What happened to every case, stage times in seconds, and what computed.

    Raises:
        InputError: no cases.
        UsageError: a mask would replace a file of the input folder, or the output or report folder
            is the predictor's.
        PredictorError: weights missing, wrong or not fitting.
        DeviceError: the device or the precision is not available.
        OutputError: the output folder cannot be made, or what the masks are parts of not completed.
    """
    options, source = options or Options(), Source.of_folder(predictor)
    for folder in (output_dir, *(() if report is None else (report.folder,))):
        keep_apart(predictor.folder, folder, [], what="the predictor's folder")
    segmenters = [
        Segmenter(source, replace(options, device=device)) for device in devices_of(options.device)
    ]
    first, *others = segmenters
    try:
        return run_folder(first, input_dir, output_dir, options, progress, report, others=others)
    finally:
        for segmenter in segmenters:
            segmenter.close()


def run_folder(
    segmenter: Segmenter,
    input_dir: Path,
    output_dir: Path,
    options: Options | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
    others: Sequence[Segmenter] = (),
) -> RunRecord:
    """Segment every case of a folder with a segmenter, loaded or not; see `segment_folder`.

    Args:
        segmenter: brings mode, device and budgets.
        input_dir: the convention's input folder, or a zip or tar of it; only read.
        output_dir: made where it is missing.
        options: whose convention, what failed cases leave, and when the first one began.
        progress: who wants to know.
        report: what to leave in writing.
        others: segmenters of other devices, that take cases as well.
    """
    options, spec = options or Options(), segmenter.spec
    name = options.convention or spec.convention
    began = time.monotonic() if options.began is None else options.began
    seconds = {} if options.began is None else {"import": time.monotonic() - began}
    convention = _convention(name, spec)
    with cases_in(name, convention, input_dir, len(spec.channels)) as cases:
        keep_apart(input_dir, output_dir, conventions.outputs_of(convention, cases))
        if report is not None:
            pictures = [f"{case.case_id}.png" for case in cases]
            keep_apart(input_dir, report.folder, map(Path, ["run.json", "ledger.jsonl", *pictures]))
        make_folder(output_dir)
        if report is not None:
            report.begin()
        segmenters = [segmenter, *others][: len(cases)]
        shared = SharedProgress(progress=progress or Silent(), report=report, total=len(cases))
        runs = [
            _Run(
                cases=cases[first :: len(segmenters)],
                convention=convention,
                context=each.context(),
                output_dir=output_dir,
                on_error=options.on_error,
                budget_s=segmenter.budget.time_s,
                shared=shared,
                numbers=range(first, len(cases), len(segmenters)),
            )
            for first, each in enumerate(segmenters)
        ]
        works = [
            partial(_records_of, run, each, began)
            for run, each in zip(runs, segmenters, strict=True)
        ]
        by_id = {
            record.case_id: record
            for records in side_by_side(works, shared.stopped.set)
            for record in records
        }
        over = [case for case in cases if case.case_id in by_id]
        records = [by_id[case.case_id] for case in over]
        conventions.finish_run(convention, over, output_dir)
        facts = facts_of_all([each.facts for each in segmenters])
        record = RunRecord(
            predictor=spec.name,
            convention=name,
            mode=segmenter.options.mode,
            engine=facts.engine,
            device=facts.device,
            device_name=facts.device_name,
            precision=facts.precision,
            scan=facts.scan,
            budget=segmenter.budget,
            seconds=seconds | segmenter.seconds,
            wall_s=time.monotonic() - began,
            cases=tuple(records),
            not_run=tuple(case.case_id for case in cases if case.case_id not in by_id),
            left_out=conventions.left_out_of(cases),
        )
        if report is not None:
            report.close(record)
        return record


def _convention(name: str, spec: PredictorSpec) -> Convention:
    """Settings are the predictor's for its own convention, and mean nothing to another."""
    settings = spec.convention_settings if name == spec.convention else None
    return conventions.get(name, settings, labels=spec.labels)


def _records_of(run: _Run, segmenter: Segmenter, began: float) -> list[CaseRecord]:
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="ahead") as workers:
        starting = workers.submit(segmenter.start)
        try:
            return run.all_cases(_Ahead(run, workers, began), starting.result, began)
        finally:
            starting.cancel()


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The cases of a folder that one device segments.

    Attributes:
        numbers: of its cases among all.
        noted: case -> what was odd about its files, from when they were read.
    """

    cases: Sequence[Case]
    convention: Convention
    context: RunContext
    output_dir: Path
    on_error: OnError
    budget_s: float | None
    shared: SharedProgress
    numbers: Sequence[int]
    noted: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def wanted(self) -> CaseExtras:
        return CaseExtras(picture=self.shared.draws, progress=self.shared.tiles)

    def load(self, case: Case) -> LoadedCase:
        """Read a case."""
        self.context.memory.check(self.reading_mib(case), f"reading {case.channels[0]}")
        loaded = load_case(
            lambda: self.convention.read_case(case),
            self.context.spec,
            lambda volumes: conventions.points_of(self.convention, case, volumes),
        )
        self.noted[case.case_id] = warnings_of(loaded)
        return loaded

    def reading_mib(self, case: Case) -> float:
        """Return what reading a case takes, at most; roughly where there is no limit."""
        if self.context.memory.budget_mib is None:
            return _UNPACKED * file_mib(case.channels)
        return conventions.share_of(self.convention, case) * reading_mib(case.channels)

    def all_cases(
        self, ahead: _Ahead, started: Callable[[], object], began: float
    ) -> list[CaseRecord]:
        """Segment one case after the other."""
        started()  # what is wrong with weights or device ends the run before its first case
        records: list[CaseRecord] = []
        for index, case in enumerate(self.cases):
            if self.shared.stopped.is_set():
                break
            self.shared.start_case(case, self.numbers[index])
            began = began if index == 0 else time.monotonic()
            record = self._guarded(case, ahead, index, began)
            records.append(record)
            self.shared.end_case(record)
            if record.error is not None and self.on_error == "stop":
                self.shared.stopped.set()
        return records

    def deadline(self, index: int, began: float) -> float | None:
        """Return when a case's mask has to be there; compiling a network is not counted."""
        if self.budget_s is None:
            return None
        once_s = self.context.compute().engine.one_time_s if index == 0 else 0.0
        return began + once_s + self.budget_s

    def _guarded(self, case: Case, ahead: _Ahead, index: int, began: float) -> CaseRecord:
        """Segment a case; whatever goes wrong becomes its record's error."""
        try:
            return self._segmented(case, ahead, index, began)
        except FlarekitError as error:
            message, fix = error.message, error.fix
        except Exception as error:  # noqa: BLE001 - no bug may cost the other cases' masks
            _LOG.debug("case %s", case.case_id, exc_info=True)
            message = f"{type(error).__name__}: {error}"
            fix = "run again with -v for the traceback"
        mask = None
        if self.on_error == "mask":
            try:
                mask = self.convention.write_empty_mask(case, self.output_dir)
            except OutputError as error:
                message, fix = f"{message}; and {error.message}", error.fix
        return CaseRecord(
            case_id=case.case_id,
            mask=mask,
            wall_s=time.monotonic() - began,
            warnings=self.noted.get(case.case_id, ()),
            error=named(message, case.channels),
            fix=fix,
        )

    def _segmented(self, case: Case, ahead: _Ahead, index: int, began: float) -> CaseRecord:
        deadline = self.deadline(index, began)
        ready = self._placed_case(ahead, index, deadline)
        ahead.begin(index + 1, ready)
        done = compute_case(ready, self.context, self.wanted, deadline)
        del ready  # its tensor is not needed to write the mask
        with done.clock.stage("write"):
            self.context.memory.check(writing_mib(done.label_map_ZYX.size), "writing the mask")
            mask = self.convention.write_mask(
                case, done.label_map_ZYX, done.geometry, self.output_dir
            )
        speeds = self.context.compute().speeds
        speeds.learn("write", done.clock.seconds["write"], done.label_map_ZYX.size)
        speeds.save()
        record = CaseRecord(
            case_id=case.case_id,
            mask=mask,
            seconds=done.clock.seconds,
            wall_s=time.monotonic() - began,
            tiles=done.tiles,
            traded=done.traded,
            warnings=done.warnings,
            curve=tuple((at - began, share) for at, share in done.curve),
        )
        self.shared.draw(case, done, self.context.spec, self.context.memory.usable_mib())
        return record

    def _placed_case(self, ahead: _Ahead, index: int, deadline: float | None) -> PlacedCase:
        case = ahead.take(index)
        if not isinstance(case, PlacedCase):
            case = place_case(case, self.context, self.wanted, deadline)
        return case


class _Ahead:
    """Reads each case, and makes it ready where that is simple, while the one before computes."""

    def __init__(self, run: _Run, workers: ThreadPoolExecutor, began: float) -> None:
        self._run, self._workers = run, workers
        self._begun: dict[int, Future[LoadedCase | PlacedCase]] = {}
        if self._is_small(run.cases[0]):
            self._begun[0] = workers.submit(self._at_once, 0, began)

    def take(self, index: int) -> LoadedCase | PlacedCase:
        """Return a case, read at least."""
        future = self._begun.pop(index, None)
        return self._run.load(self._run.cases[index]) if future is None else future.result()

    def begin(self, index: int, computing: PlacedCase) -> None:
        """Begin with a case beside the one that computes, where there is one and memory for both.

        Args:
            index: of the case to begin with.
            computing: the one before it.
        """
        memory = self._run.context.memory
        memory.promised_mib = still_to_come_mib(computing.placement, self._run.context.spec)
        if index < len(self._run.cases) and self._is_small(self._run.cases[index]):
            self._begun[index] = self._workers.submit(self._at_once, index, None)

    def _at_once(self, index: int, began: float | None) -> LoadedCase | PlacedCase:
        run = self._run
        loaded = run.load(run.cases[index])
        deadline = run.deadline(index, time.monotonic() if began is None else began)
        if is_simple(loaded, run.context, run.wanted, deadline):
            return place_case(loaded, run.context, run.wanted, deadline)
        return loaded

    def _is_small(self, case: Case) -> bool:
        usable_mib = self._run.context.memory.usable_mib(ahead=True)
        return self._run.reading_mib(case) <= min(_AHEAD_MIB, usable_mib / 4)
