"""`flarekit predict`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flarekit.cli.console import Console
from flarekit.core.apart import keep_apart
from flarekit.core.records import RunRecord
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.report import write_report
from flarekit.segmentation.segment import Options, segment_folder

_MOST_SHOWN = 5  # sentences on what was left out, in the last lines of a run


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where a run's report goes, and whether cases are drawn."""

    folder: Path
    pictures: bool = True


def run_predict(
    name: str,
    input_dir: Path,
    output_dir: Path,
    options: Options,
    report: Report | None,
    console: Console,
) -> int:
    """Segment a folder, say what happened, and return the exit code."""
    predictor = find_predictor(name)
    if report is not None:
        keep_apart(input_dir, report.folder, [Path("efficiency.json")])
    with console:
        record = segment_folder(predictor, input_dir, output_dir, options, console)
        if report is not None:
            write_report(record, predictor.spec, input_dir, report.folder, pictures=report.pictures)
    return close_run(record, console)


def process_start() -> float:
    """Return when this process started, of `time.monotonic`."""
    import psutil

    age_s: float = time.time() - psutil.Process().create_time()
    return time.monotonic() - age_s


def close_run(record: RunRecord, console: Console) -> int:
    """Say what the whole run came to; the last line of a failed run names every failed case."""
    total = len(record.cases) + len(record.not_run)
    if record.left_out:
        console.error(
            f"{len(record.left_out)} of the inputs left out: {_shortened(record.left_out)}", None
        )
    if not record.failed:
        console.say(f"{total} of {total} cases segmented")
        return 1 if record.left_out else 0
    names = ", ".join(case.case_id for case in record.failed)
    left_out = f"; not run: {', '.join(record.not_run)}" if record.not_run else ""
    reason = record.failed[0].error if len(record.failed) == 1 else "see above"
    console.error(
        f"{len(record.failed)} of {total} cases failed: {names} ({reason}){left_out}", None
    )
    return 1


def _shortened(sentences: Sequence[str]) -> str:
    """Return the first sentences; all are in the record and were said when they arose."""
    shown = "; ".join(sentences[:_MOST_SHOWN])
    further = len(sentences) - _MOST_SHOWN
    return f"{shown}; and {further} more, see above" if further > 0 else shown
