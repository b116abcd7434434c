"""`flarekit predict`."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flarekit.cli.console import Console
from flarekit.cli.requests import Recording
from flarekit.cli.terminating import telling
from flarekit.core.records import RunRecord
from flarekit.core.spec import PredictorFolder
from flarekit.segmentation.folder import Options, Report, Resuming, segment_folder
from flarekit.segmentation.state import state_report

_MOST_SHOWN = 5  # sentences on what was left out, in the last lines of a run
_MOST_NOTES = 4
_START_TICKS = 19  # fields behind the name in /proc/PID/stat: when it started, in ticks since boot


def run_predict(
    predictor: PredictorFolder,
    inputs: Sequence[Path],
    output: Path,
    options: Options,
    recording: Recording,
    console: Console,
) -> int:
    """Segment what is named, say what happened, and return the exit code."""
    how = Resuming(resume=recording.resume, retry_failed=recording.retry_failed)
    if recording.report is not None:
        report: Report | None = Report(recording.report, pictures=recording.pictures, resuming=how)
    else:
        report = state_report(inputs, output, how)

    def position() -> str:
        advice = "run again with --resume" if report else "nothing half-written is left"
        return f"{console.position()}; {advice}"

    with telling(position), console:
        record = segment_folder(predictor, inputs, output, options, console, report)
    _say_where(record, output, recording, console)
    return close_run(record, console)


def _say_where(record: RunRecord, output: Path, recording: Recording, console: Console) -> None:
    """Say where the masks are, and what was written about them."""
    if record.done_before or any(case.mask is not None for case in record.cases):
        masks = f"masks are in {output}" if output.is_dir() else f"the mask is {output}"
        pictures = ", pictures" if recording.pictures else ""
        figures = f"record, statistics{pictures} in {recording.report}"
        console.say(masks if recording.report is None else f"{masks}; {figures}")


def process_start() -> float:
    """Return when this process started, of `time.monotonic`."""
    try:
        begun = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks = float(begun[_START_TICKS]) / os.sysconf("SC_CLK_TCK")
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks
    except (OSError, ValueError, IndexError, AttributeError):  # not on Linux
        import psutil

        age_s = time.time() - psutil.Process().create_time()  # to a second
    return time.monotonic() - max(0.0, age_s)


def close_run(record: RunRecord, console: Console) -> int:
    """Say what the whole run came to, in one last line.

    It names every failed case, and what was given up to keep a budget, even where all else is
    quiet.
    """
    before = len(record.done_before) + len(record.failed_before)
    total = len(record.cases) + record.unlisted + len(record.not_run) + before
    if record.left_out:
        console.error(
            f"{len(record.left_out)} of the inputs left out: {_shortened(record.left_out)}", None
        )
    if record.failed_before:
        console.error(
            f"{len(record.failed_before)} of {total} cases failed in an earlier run: "
            f"{', '.join(record.failed_before)}",
            "run them again with --retry-failed",
        )
    if record.flagged:
        names = ", ".join(case.case_id for case in record.flagged)
        console.say(f"masks to look at, {len(record.flagged)} of {total}: {names}")
    without = given_up(record)
    earlier = f" ({len(record.done_before)} in an earlier run)" if record.done_before else ""
    if not record.failed:
        line = f"{total - len(record.failed_before)} of {total} cases segmented{earlier}"
        if without:
            console.insist(f"{line}{without}")
        else:
            console.say(line)
        return 1 if record.left_out or record.failed_before else 0
    names = ", ".join(case.case_id for case in record.failed)
    left_out = f"; not run: {', '.join(record.not_run)}" if record.not_run else ""
    reason = record.failed[0].error if len(record.failed) == 1 else "see above"
    console.error(
        f"{len(record.failed)} of {total} cases failed: {names} ({reason}){left_out}{without}",
        None,
    )
    return 1


def _shortened(sentences: Sequence[str]) -> str:
    """Return the first sentences; all are in the record and were said when they arose."""
    shown = "; ".join(sentences[:_MOST_SHOWN])
    further = len(sentences) - _MOST_SHOWN
    return f"{shown}; and {further} more, see above" if further > 0 else shown


def given_up(record: RunRecord) -> str:
    """Return what cases did without, each thing once, with how many cases."""
    counts = Counter(note for case in record.traded for note in case.traded)
    if not counts:
        return ""
    most = [f"{note} ({count})" for note, count in counts.most_common(_MOST_NOTES)]
    further = f"; and {len(counts) - _MOST_NOTES} more" if len(counts) > _MOST_NOTES else ""
    cases = "1 case" if len(record.traded) == 1 else f"{len(record.traded)} cases"
    return f"; given up in {cases} to keep a budget: {', '.join(most)}{further}"
