"""The cases of a folder that one device segments, one after the other.

While a case computes, the next one is read, and brought onto its grid where nothing has to be given
up for it; one failed case never takes the others along.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.errors import FlarekitError, OutputError, memory_fault, named
from flarekit.core.files import sha256_of
from flarekit.core.probabilities import probabilities_path, write_probabilities
from flarekit.core.records import CaseRecord
from flarekit.segmentation.between_calls import BetweenCalls
from flarekit.segmentation.case import PlacedCase, compute_case, is_simple, place_case
from flarekit.segmentation.context import CaseExtras, RunContext
from flarekit.segmentation.fingerprint import input_sha256
from flarekit.segmentation.loaded import LoadedCase, load_case, warnings_of
from flarekit.segmentation.measuring import measure
from flarekit.segmentation.memory import (
    begin_peak,
    file_mib,
    peak_mib,
    reading_mib,
    still_to_come_mib,
    writing_mib,
)
from flarekit.segmentation.options import OnError
from flarekit.segmentation.progress import SharedProgress
from flarekit.segmentation.segmented import Segmented
from flarekit.segmentation.segmenter import Segmenter

_LOG = logging.getLogger(__name__)
_UNPACKED = 8  # bytes in memory per byte of a compressed scan, at most
_AHEAD_MIB = 1024.0  # the next case is read beside this one where that takes no more


@dataclass(frozen=True, kw_only=True)
class CaseLoop:
    """The cases of a folder that one device segments.

    Attributes:
        numbers: of its cases among all.
        between_calls: see `Options`.
        made_by: predictor and way of running, in plain values.
        noted: case -> what was odd about its files, from when they were read.
        digests: case -> SHA-256 of its inputs, where there is a ledger.
        probabilities: folder that gets those of every class; None where they are not wanted.
        start: step -> seconds of what the first case's time has in it before this loop begins.
    """

    cases: Sequence[Case]
    convention: Convention
    context: RunContext
    output_dir: Path
    on_error: OnError
    budget_s: float | None
    shared: SharedProgress
    numbers: Sequence[int]
    between_calls: Path | None = None
    made_by: dict[str, Any] = field(default_factory=dict)
    noted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    probabilities: Path | None = None
    start: dict[str, float] = field(default_factory=dict)

    @property
    def wanted(self) -> CaseExtras:
        """What each case has to give beside its labels."""
        return CaseExtras(
            probabilities=self.probabilities is not None,
            picture=self.shared.draws,
            statistics=self.shared.measures,
            progress=self.shared.tiles,
        )

    def load(self, case: Case) -> LoadedCase:
        """Read a case."""
        if self.shared.report is not None:
            self.digests[case.case_id] = input_sha256(case)
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

    def run(self, segmenter: Segmenter, began: float) -> list[CaseRecord]:
        """Start the engine while the first case is read, and segment every case.

        Args:
            segmenter: computes.
            began: when the first case's time began, of `time.monotonic`.
        """
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="ahead") as workers:
            starting = workers.submit(self._start, segmenter, began)
            try:
                return self._all_cases(_Ahead(self, workers, began), starting.result, began)
            finally:
                starting.cancel()

    def _start(self, segmenter: Segmenter, began: float) -> dict[str, float]:
        """Start the engine where that has not been done; return step -> seconds until it runs."""
        before = segmenter.seconds
        segmenter.start(None if self.budget_s is None else began + self.budget_s)
        return self.start | ({} if segmenter.seconds is before else segmenter.seconds)

    def _all_cases(
        self, ahead: _Ahead, started: Callable[[], dict[str, float]], began: float
    ) -> list[CaseRecord]:
        """Segment one case after the other."""
        start = started()  # what is wrong with weights or device ends the run before its first case
        records: list[CaseRecord] = []
        for index, case in enumerate(self.cases):
            if self.shared.stopped.is_set():
                break
            self.shared.start_case(case, self.numbers[index])
            if self.shared.report is not None:
                begin_peak()
            began = began if index == 0 else time.monotonic()
            record = self._with_digests(self._guarded(case, ahead, index, began))
            record = replace(record, start={} if index else start)
            records.append(record)
            self.shared.end_case(record)
            if record.error is not None and self.on_error == "stop":
                self.shared.stopped.set()
        return records

    def _with_digests(self, record: CaseRecord) -> CaseRecord:
        """Add what tells the files of a case from others, where there is a ledger."""
        if self.shared.report is None:
            return record
        mask, digest = record.mask, None
        with suppress(OSError):
            digest = None if mask is None else sha256_of(mask)
        return replace(
            record,
            peak_mib=peak_mib(),
            input_sha256=self.digests.pop(record.case_id, None),
            mask_sha256=digest,
        )

    def deadline(self, index: int, began: float) -> float | None:
        """Return when a case's mask has to be there; compiling a network is not counted."""
        if self.budget_s is None:
            return None
        once_s = self.context.compute().one_time_s if index == 0 else 0.0
        return began + once_s + self.budget_s

    def _guarded(self, case: Case, ahead: _Ahead, index: int, began: float) -> CaseRecord:
        """Segment a case; whatever goes wrong becomes its record's error."""
        try:
            return self._segmented(case, ahead, index, began)
        except FlarekitError as error:
            message, fix = error.message, error.fix
        except Exception as error:  # noqa: BLE001 - no bug may cost the other cases' masks
            _LOG.debug("case %s", case.case_id, exc_info=True)
            message, fix = f"{type(error).__name__}: {error}", "run again with -v for the traceback"
            if fault := memory_fault(error):
                message, fix = fault, "free some, or say with --ram-budget how much may be used"
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
        kept = None
        if self.between_calls is not None:
            kept = BetweenCalls.of(self.between_calls, case, self.made_by)
        done = compute_case(ready, self.context, self.wanted, deadline, kept)
        no_time = index == 0 and ready.found is not None and ready.tensor_CZYX is None
        del ready  # its tensor is not needed to write the mask
        with done.clock.stage("write"):
            self.context.memory.check(writing_mib(done.label_map_ZYX.size), "writing the mask")
            mask = self.convention.write_mask(
                case, done.label_map_ZYX, done.geometry, self.output_dir
            )
            self._write_probabilities(case, done)
        compute = self.context.compute()
        speeds = compute.speeds
        speeds.learn("write", done.clock.seconds["write"], done.label_map_ZYX.size)
        if no_time:
            speeds.learn("without tiles", time.monotonic() - compute.since)
        measured = measure(done, self.context, self.wanted, deadline)
        record = CaseRecord(
            case_id=case.case_id,
            mask=mask,
            seconds=done.clock.seconds,
            wall_s=time.monotonic() - began,
            tiles=done.tiles,
            traded=(*done.traded, *measured.traded),
            warnings=(*done.warnings, *measured.notes),
            volumes_ml=measured.volumes_ml,
            statistics=measured.statistics,
            flags=measured.flags,
            curve=tuple((at - began, share) for at, share in done.curve),
            measured=conventions.measured_of(self.convention, case),
        )
        drawing = time.monotonic()
        usable_mib = self.context.memory.usable_mib()
        notes = self.shared.draw(case, done, self.context.spec, usable_mib)
        if self.wanted.picture:
            speeds.learn("draw", time.monotonic() - drawing)
        speeds.save()
        return replace(record, warnings=(*record.warnings, *notes))

    def _write_probabilities(self, case: Case, done: Segmented) -> None:
        """Write those of every class beside the mask, where they are wanted."""
        if self.probabilities is not None and done.probabilities is not None:
            path = probabilities_path(self.probabilities, case.case_id)
            values = self.context.spec.class_values[: len(done.probabilities)]
            write_probabilities(path, done.probabilities, values)

    def _placed_case(self, ahead: _Ahead, index: int, deadline: float | None) -> PlacedCase:
        case = ahead.take(index)
        if not isinstance(case, PlacedCase):
            case = place_case(case, self.context, self.wanted, deadline)
        return case


class _Ahead:
    """Reads each case, and makes it ready where that is simple, while the one before computes."""

    def __init__(self, run: CaseLoop, workers: ThreadPoolExecutor, began: float) -> None:
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
