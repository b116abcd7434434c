"""Scoring the cases of a folder, several at once; one bad file never takes the others along."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from flarekit.core.errors import FlarekitError, OutputError, UnreadableVolumeError
from flarekit.core.extras import require
from flarekit.core.volume import largest_shift_mm
from flarekit.evaluation.masks import Mask, Pair, read_mask
from flarekit.evaluation.picture import Pictures, draw_case
from flarekit.evaluation.scheme import Mean, NamedScheme, Row, Settings, Summary

State = Literal["scored", "missing", "unreadable", "failed"]
_DISAGREEMENT_MM = 0.1


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """The scores of one case, or why it has none.

    Attributes:
        state: `missing` or `unreadable` predictions are scored as the organiser counts them;
            `failed` cases (whose truth cannot be used) have no rows and stay out of the means.
        rows: what was scored.
        truth_values: that the true mask holds, background left out.
        predicted_values: that the prediction holds.
        warnings: what was odd about its files and how it was taken.
        error: what is wrong; None where all is well.
        fix: what to do about it.
    """

    case_id: str
    state: State
    rows: tuple[Row, ...] = ()
    truth_values: tuple[int, ...] = ()
    predicted_values: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    fix: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a folder.

    Attributes:
        scheme: its name.
        cases: sorted by id.
        surplus: predictions that have no truth; they are not scored.
    """

    scheme: NamedScheme
    settings: Settings
    cases: tuple[CaseResult, ...]
    summary: Summary
    surplus: tuple[str, ...] = ()

    @property
    def faulty(self) -> tuple[CaseResult, ...]:
        """The cases with anything wrong."""
        return tuple(case for case in self.cases if case.error is not None)

    @property
    def strange_values(self) -> dict[int, tuple[int, int]]:
        """Value that no label has -> in how many true masks and predictions it is."""
        known = {0, *self.settings.pictured.values(), *self.settings.unscored}
        found: dict[int, tuple[int, int]] = {}
        for case in self.cases:
            for place, values in enumerate((case.truth_values, case.predicted_values)):
                for value in set(values) - known:
                    counts = [*found.get(value, (0, 0))]
                    counts[place] += 1
                    found[value] = (counts[0], counts[1])
        return dict(sorted(found.items()))

    @property
    def absent_labels(self) -> tuple[str, ...]:
        """The labels that no mask holds, neither true nor predicted."""
        read = [case for case in self.cases if case.state != "failed"]
        there = {value for case in read for value in (*case.truth_values, *case.predicted_values)}
        members = self.settings.members.items()
        return tuple(name for name, values in members if there.isdisjoint(values))

    def lacking(self, label: str) -> dict[str, str]:
        """Return the cases that have a label in the truth and not in the prediction: id -> why."""
        values = set(self.settings.members[label])
        return {
            case.case_id: "empty" if case.state == "scored" else case.state
            for case in self.cases
            if values & set(case.truth_values) and not values & set(case.predicted_values)
        }

    def means_without(self, cases: Collection[str], label: str) -> Mapping[str, Mean]:
        """Return the means of a label over all cases but these."""
        rows = [row for case in self.cases if case.case_id not in cases for row in case.rows]
        summary = self.scheme.load().summarise(rows, self.settings)
        return summary.labels.get(label, {})


def evaluate(
    pairs: Sequence[Pair],
    scheme: NamedScheme,
    settings: Settings,
    *,
    workers: int = 1,
    pictures: Pictures | None = None,
    on_case: Callable[[CaseResult], None] | None = None,
    surplus: Sequence[str] = (),
) -> Evaluation:
    """Score all cases.

    Args:
        pairs: the files of each case.
        scheme: whose scores.
        settings: what is scored.
        workers: processes; with 1 everything happens in this one.
        pictures: where pictures go; None for none.
        on_case: told of each case as soon as it is done.
        surplus: names of predictions without a truth, for the record.

    Raises:
        UsageError: labels that the scheme cannot score, or a package that is missing.
    """
    scheme.load().check(settings)
    if pictures is not None:
        require("matplotlib", "picture", "pictures need matplotlib, which is not installed")
    score = partial(_score, scheme=scheme, settings=settings, pictures=pictures)
    done = []
    for case in _run(score, pairs, min(workers, len(pairs))):
        if on_case is not None:
            on_case(case)
        done.append(case)
    cases = tuple(sorted(done, key=lambda case: case.case_id))
    rows = [row for case in cases for row in case.rows]
    return Evaluation(
        scheme=scheme,
        settings=settings,
        cases=cases,
        summary=scheme.load().summarise(rows, settings),
        surplus=tuple(surplus),
    )


def _run(
    score: Callable[[Pair], CaseResult], pairs: Sequence[Pair], workers: int
) -> Iterator[CaseResult]:
    if workers <= 1:
        yield from map(score, pairs)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
    try:
        futures = {pool.submit(score, pair): pair for pair in pairs}
        for future in as_completed(futures):
            yield _result_of(future, futures[future])
        pool.shutdown()
    except BaseException:  # an interruption as well: no worker is left running
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that waits for the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _result_of(future: Future[CaseResult], pair: Pair) -> CaseResult:
    try:
        return future.result()
    except BrokenProcessPool:
        return _failed(
            pair,
            "not scored: a process died, perhaps for want of memory",
            "run again with fewer --workers",
        )


def _score(
    pair: Pair, *, scheme: NamedScheme, settings: Settings, pictures: Pictures | None
) -> CaseResult:
    """Score one case; whatever is wrong with it is returned, since it may cross processes."""
    began = time.perf_counter()
    try:
        result = _scored(pair, scheme, settings, pictures)
    except FlarekitError as error:
        result = _failed(pair, error.message, error.fix)
    except MemoryError:
        result = _failed(pair, "not enough memory to score it", "run with fewer --workers")
    return replace(result, seconds=time.perf_counter() - began)


def _scored(
    pair: Pair, scheme: NamedScheme, settings: Settings, pictures: Pictures | None
) -> CaseResult:
    truth = read_mask(pair.truth)
    predicted, fault = _read_prediction(pair, truth)
    rows = scheme.load().score(pair.case_id, truth, predicted, settings)
    warnings = _warnings(truth, predicted)
    if pictures is not None:
        try:
            warnings += draw_case(pictures, pair.case_id, truth, predicted, settings.pictured)
        except OutputError as error:
            fault = fault or error
    if predicted is not None:
        state: State = "scored"
    else:
        state = "missing" if pair.predicted is None else "unreadable"
    return CaseResult(
        case_id=pair.case_id,
        state=state,
        rows=tuple(rows),
        truth_values=_values(truth),
        predicted_values=() if predicted is None else _values(predicted),
        warnings=tuple(warnings),
        error=None if fault is None else fault.message,
        fix=None if fault is None else fault.fix,
    )


def _values(mask: Mask) -> tuple[int, ...]:
    """Return the values that a mask holds, background left out."""
    there = np.zeros(256, np.int64)
    for slice_YX in mask.values_ZYX:
        there += np.bincount(slice_YX.ravel(), minlength=256)
    return tuple(int(value) for value in np.flatnonzero(there) if value)


def _failed(pair: Pair, error: str, fix: str) -> CaseResult:
    return CaseResult(case_id=pair.case_id, state="failed", error=error, fix=fix)


def _read_prediction(pair: Pair, truth: Mask) -> tuple[Mask | None, FlarekitError | None]:
    """Return the prediction, or None and what is wrong with it."""
    if pair.predicted is None:
        return None, FlarekitError(
            f"no prediction for {pair.truth.name}", fix="add it; it is scored as missing"
        )
    try:
        predicted = read_mask(pair.predicted)
    except UnreadableVolumeError as error:
        return None, error
    shape, expected = predicted.values_ZYX.shape, truth.values_ZYX.shape
    if shape != expected:
        fault = f"has {_size(shape)} voxels, the truth {_size(expected)}"
        return None, UnreadableVolumeError(
            pair.predicted, fault, fix="write masks on the grid of the scan"
        )
    return predicted, None


def _size(shape_ZYX: Sequence[int]) -> str:
    return " x ".join(str(length) for length in reversed(shape_ZYX))


def _warnings(truth: Mask, predicted: Mask | None) -> list[str]:
    warnings = [f"truth: {note}" for note in truth.warnings]
    if predicted is None:
        return warnings
    warnings += [f"prediction: {note}" for note in predicted.warnings]
    shift_mm = largest_shift_mm(
        truth.geometry.affine, predicted.geometry.affine, truth.geometry.shape_ZYX
    )
    if shift_mm > _DISAGREEMENT_MM:
        warnings.append(
            f"prediction and truth lie up to {shift_mm:.3g} mm apart; they are compared voxel by "
            "voxel as stored, as the organisers do"
        )
    return warnings
