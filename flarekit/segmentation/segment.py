"""A folder of scans in, a folder of masks out; one failed case never takes the others along.

While a case computes, the next one is read and prepared; the engine starts while the first one is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.apart import keep_apart
from flarekit.core.budget import Budget
from flarekit.core.errors import FlarekitError, OutputError
from flarekit.core.files import make_folder
from flarekit.core.records import CaseRecord, RunRecord
from flarekit.core.spec import PredictorFolder, PredictorSpec
from flarekit.segmentation.case import Clock, ReadyCase, Stages, make_ready, segment_case
from flarekit.segmentation.options import OnError, Options, budget_under, spec_under
from flarekit.segmentation.starting import Started, start_engine

__all__ = ["Options", "Progress", "Silent", "segment_folder"]

_LOG = logging.getLogger(__name__)
_AHEAD_MIB = 1024.0  # the next case is prepared beside this one where it takes no more
_UNPACKED = 8  # bytes in memory per byte of a compressed scan, at most


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
        UsageError: a mask would replace a file of the input folder.
        PredictorError: weights missing, wrong or not fitting.
        DeviceError: the device or the precision is not available.
        OutputError: the output folder cannot be made, or what the masks are parts of not completed.
    """
    options, progress = options or Options(), progress or Silent()
    began = time.monotonic() if options.began is None else options.began
    clock = Clock()
    if options.began is not None:
        clock.seconds["import"] = time.monotonic() - began
    name = options.convention or predictor.spec.convention
    spec = spec_under(predictor.spec, options)
    convention, budget = _convention(name, spec), budget_under(name, options)
    cases = convention.find_cases(input_dir, len(spec.channels))
    keep_apart(input_dir, output_dir, [case.mask for case in cases])
    make_folder(output_dir)
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="ahead") as workers:
        starting = workers.submit(start_engine, predictor, spec, options, budget, clock)
        ahead = _Ahead(cases, convention, spec, budget, workers)
        stages = _stages(starting, spec, convention, output_dir, progress, budget.ram_mib)
        records = _segment_all(cases, ahead, stages, options, budget, began, progress)
    conventions.finish_run(convention, cases[: len(records)], output_dir)
    facts = stages.engine.facts
    return RunRecord(
        predictor=spec.name,
        convention=name,
        profile=options.profile,
        engine=facts.engine,
        device=facts.device,
        device_name=facts.device_name,
        precision=facts.precision,
        scan=facts.scan,
        budget=budget,
        seconds=clock.seconds,
        wall_s=time.monotonic() - began,
        cases=tuple(records),
        not_run=tuple(case.case_id for case in cases[len(records) :]),
        left_out=conventions.left_out_of(cases),
    )


def _convention(name: str, spec: PredictorSpec) -> Convention:
    """Settings are the predictor's for its own convention, and mean nothing to another."""
    settings = spec.convention_settings if name == spec.convention else None
    return conventions.get(name, settings, labels=spec.labels)


def _stages(
    starting: Future[Started],
    spec: PredictorSpec,
    convention: Convention,
    output_dir: Path,
    progress: Progress,
    ram_mib: float | None,
) -> Stages:
    started = starting.result()
    return Stages(
        spec=spec,
        convention=convention,
        engine=started.engine,
        timer=started.timer,
        coarse=started.coarse,
        output_dir=output_dir,
        progress=progress.tiles,
        ram_mib=ram_mib,
    )


class _Ahead:
    """Reads and prepares each case, the next one already while this one computes."""

    def __init__(
        self,
        cases: Sequence[Case],
        convention: Convention,
        spec: PredictorSpec,
        budget: Budget,
        workers: ThreadPoolExecutor,
    ) -> None:
        self._cases = cases
        self._budget = budget
        self._make_ready = partial(make_ready, convention=convention, spec=spec)
        self._workers = workers
        self._begun = {0: self._begin(0)}

    def take(self, index: int) -> ReadyCase:
        """Return a case that is ready, and begin with the one after it."""
        future = self._begun.pop(index, None) or self._begin(index)
        try:
            return future.result()
        finally:
            following = index + 1
            if following < len(self._cases) and _is_small(self._cases[following], self._budget):
                self._begun[following] = self._begin(following)

    def _begin(self, index: int) -> Future[ReadyCase]:
        return self._workers.submit(self._make_ready, self._cases[index])


def _is_small(case: Case, budget: Budget) -> bool:
    files = (path.stat().st_size for path in case.channels if path.is_file())
    most_mib = _AHEAD_MIB if budget.ram_mib is None else min(_AHEAD_MIB, budget.ram_mib / 4)
    return sum(files) * _UNPACKED <= most_mib * 2**20


def _segment_all(
    cases: Sequence[Case],
    ahead: _Ahead,
    stages: Stages,
    options: Options,
    budget: Budget,
    began: float,
    progress: Progress,
) -> list[CaseRecord]:
    records: list[CaseRecord] = []
    began += stages.engine.one_time_s  # later runs do not pay it, so that it is not traded for
    for index, case in enumerate(cases):
        progress.start_case(case.case_id, index, len(cases))
        began = began if index == 0 else time.monotonic()
        deadline = None if budget.time_s is None else began + budget.time_s
        ready = partial(ahead.take, index)
        record = _guarded(case, ready, stages, options.on_error, began=began, deadline=deadline)
        records.append(record)
        progress.end_case(record)
        if record.error is not None and options.on_error == "stop":
            break
    return records


def _guarded(
    case: Case,
    ready: Callable[[], ReadyCase],
    stages: Stages,
    on_error: OnError,
    *,
    began: float,
    deadline: float | None,
) -> CaseRecord:
    """Segment a case; whatever goes wrong becomes its record's error."""
    seconds: dict[str, float] = {}
    try:
        at_hand = ready()
        seconds = at_hand.clock.seconds
        return segment_case(case, at_hand, stages, began=began, deadline=deadline)
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
        case_id=case.case_id,
        mask=mask,
        seconds=seconds,
        wall_s=time.monotonic() - began,
        error=message,
        fix=fix,
    )
