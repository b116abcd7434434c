"""`flarekit job`: what the platform's images run."""

import traceback
from dataclasses import replace

from flarekit import conventions
from flarekit.cli.console import Console
from flarekit.cli.predict import close_run, given_up
from flarekit.cli.requests import JobFolders
from flarekit.core.errors import FlarekitError, memory_fault
from flarekit.core.records import RunRecord
from flarekit.segmentation.between_calls import usable_folder
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.job import predictor_of_job


def run_job(
    own: str, folders: JobFolders, options: Options, console: Console, *, trust: bool = False
) -> int:
    """Run one job; whatever happens, the last line on stderr says what, and what to do."""
    try:
        with console:
            predictor = predictor_of_job(own, folders.model, trust=trust)
            convention = options.convention or predictor.spec.convention
            lasting = usable_folder(conventions.facts_of(convention).between_calls)
            options = replace(options, convention=convention, between_calls=lasting)
            record = segment_folder(predictor, folders.inputs, folders.outputs, options, console)
    except FlarekitError:
        raise
    except Exception as error:  # noqa: BLE001 - the platform shows one line of what was said
        traceback.print_exc()
        console.error(*_in_words(error))
        return 1
    return _close(record, console)


def _close(record: RunRecord, console: Console) -> int:
    """Return 0 where a part of a stack failed: the platform drops all outputs of a failed job."""
    if record.failed and len(record.failed) < len(record.cases) and not record.not_run:
        names = ", ".join(case.case_id for case in record.failed)
        console.say(
            f"warning: {names} failed and got a stand-in mask; the others are good"
            f"{given_up(record)}"
        )
        return 0
    return close_run(record, console)


def _in_words(error: Exception) -> tuple[str, str]:
    if fault := memory_fault(error):
        return fault, "ask for more memory in the algorithm's settings, or use a smaller tile"
    what = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return f"an unexpected {type(error).__name__} ended the job: {what}", "see the lines above it"
