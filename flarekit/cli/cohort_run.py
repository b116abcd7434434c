"""`flarekit cohort run`: how far a cohort is, and what it came to."""

import time
from pathlib import Path

from flarekit.cli.console import Console
from flarekit.cli.predict import close_run
from flarekit.cli.requests import Recording
from flarekit.cli.terminating import telling
from flarekit.cohort.report import write_report
from flarekit.cohort.run import CohortRequest, rate_of, run_cohort
from flarekit.core.errors import UsageError
from flarekit.core.records import CaseRecord
from flarekit.segmentation.folder import Options, Report, Resuming
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.state import state_report

_SAY_EVERY_S = 10.0


class _Rates:
    """Says now and then how fast cases end, and how many are left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = self._said = time.monotonic()
        self._left = self._done = self._failed = 0

    def start_case(self, case_id: str, index: int, total: int) -> None:
        """Begin to count."""
        self._console.start_case(case_id, index, total)
        self._began = self._said = time.monotonic()
        self._left = total - index

    def tiles(self, done: int, total: int) -> None:
        """Do nothing: many cases are run at the same time."""

    def end_case(self, record: CaseRecord) -> None:
        """Count a case that is over."""
        self._console.end_case(record)
        self._done, self._left = self._done + 1, self._left - 1
        self._failed += record.error is not None
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY_S and self._left:
            self._said = now
            failed = f", {self._failed} failed" if self._failed else ""
            rate = rate_of(self._done, now - self._began, self._left)
            self._console.say(f"{self._console.position()}{failed}; {rate}")


def run_on_cluster(
    request: CohortRequest,
    name: str,
    options: Options,
    recording: Recording,
    console: Console,
) -> int:
    """Segment a cohort, say what happened, and return the exit code."""
    predictor, folder, pictures = find_predictor(name), recording.report, recording.pictures
    resuming = Resuming(resume=recording.resume, retry_failed=recording.retry_failed)
    if folder is not None:
        report: Report | None = Report(folder, pictures=pictures, resuming=resuming)
    else:
        report = state_report([Path(request.inputs)], request.output_dir, resuming)
    if report is None:
        raise UsageError("there is no place for a ledger", fix="name a folder with --report")
    wants_pictures = folder is not None and report.draws
    with telling(lambda: f"{console.position()}; run again with --resume"), console:
        record = run_cohort(
            request, predictor, options, report, _Rates(console), pictures=wants_pictures
        )
    if folder is not None:
        console.say(f"{write_report([folder], folder)}: volumes, outliers, flags, failures")
    return close_run(record, console)
