"""`flarekit`: the commands, and what their exit codes mean.

Heavy imports stand inside the commands, so that `--help` is instant.
"""

import atexit
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from flarekit.cli import (
    arrange,
    cohort,
    conventions,
    doctor,
    images,
    profile,
    serve,
    train,
    weights,
)
from flarekit.cli.help import App, Program
from flarekit.cli.options import Budgets, Computing, Messages, Precision
from flarekit.cli.requests import Interactive, JobFolders, Prediction, Scoring, ShardRecording
from flarekit.cli.starting import spare_pydicom
from flarekit.cli.terminating import end_on_sigterm
from flarekit.core.errors import UsageError
from flarekit.core.package import VERSION

_ERRORS = """2 wrong usage; 3 no or unreadable input; 4 a predictor or weights that cannot be
trusted; 5 device or precision not available; 6 output cannot be written; 130, 143 interrupted."""
EXIT_CODES = f"""Exit codes: 0 every case has its mask; 1 some cases failed or files were left out
(each is named); {_ERRORS}"""
_SCORED = f"""Exit codes: 0 every case was scored; 1 some masks are missing or wrong, or calls took
too long (each is named); {_ERRORS}"""

app = App(
    name="flarekit",
    cls=Program,
    help="From a trained 3D segmentation network to a challenge submission.",
    epilog=EXIT_CODES,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(weights.app, name="weights")
app.add_typer(train.app, name="train")
app.add_typer(profile.app, name="profile")
app.add_typer(cohort.app, name="cohort")
for command in (
    *images.COMMANDS,
    arrange.arrange,
    arrange.collect,
    cohort.statistics,
    conventions.conventions,
    doctor.doctor,
    serve.serve,
):
    app.command()(command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"flarekit {VERSION}")
        raise typer.Exit


@app.callback()
def _flarekit(
    version: Annotated[  # noqa: ARG001 - acted on by its callback
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """From a trained 3D segmentation network to a challenge submission."""


@app.command(epilog=EXIT_CODES)
def predict(
    output: Path,
    inputs: list[Path] | None = None,
    more: list[Path] | None = None,
    predictor: str = "abdomen_ct",
    *,
    prediction: Prediction,
    budgets: Budgets,
    profile: Literal["fast", "exact"] | None = None,
    recording: ShardRecording,
    trust: bool = False,
    messages: Messages,
) -> None:
    """Segment scans: files, folders, DICOM series, archives."""
    from flarekit.cli.console import Console
    from flarekit.cli.predict import process_start, run_predict
    from flarekit.segmentation.folder import Options
    from flarekit.segmentation.predictors import find_predictor
    from flarekit.segmentation.shards import Shard

    given = [*(inputs or ()), *(more or ())]
    if not given:
        raise UsageError("no input is named", fix="name scans or a folder of them: -i FOLDER")
    shard = None if recording.shard is None else Shard.of(recording.shard)
    options = Options(**vars(prediction), **vars(budgets), began=process_start(), shard=shard)
    if profile is not None:
        note = "note: --profile is called --mode now; the old name goes with the next release"
        typer.echo(note, err=True)
        options = replace(options, mode=profile)
    console, found = Console(**vars(messages)), find_predictor(predictor, trust=trust)
    raise typer.Exit(run_predict(found, given, output, options, recording, console))


@app.command(epilog=EXIT_CODES)
def job(
    folders: JobFolders,
    predictor: str = "abdomen_ct",
    convention: str | None = None,
    trust: bool = False,
    *,
    budgets: Budgets,
) -> None:
    """Run one job of grand-challenge.org, as the platform's images do when they start."""
    from flarekit.cli.console import Console
    from flarekit.cli.job import run_job
    from flarekit.cli.predict import process_start
    from flarekit.segmentation.folder import Options

    options = Options(convention=convention, **vars(budgets), began=process_start())
    raise typer.Exit(run_job(predictor, folders, options, Console(), trust=trust))


@app.command(epilog=_SCORED)
def evaluate(scoring: Scoring, quiet: bool = False) -> None:
    """Score masks against their truth, as the organisers do."""
    from flarekit.cli.console import Console
    from flarekit.cli.evaluate import run_evaluate

    raise typer.Exit(run_evaluate(scoring, Console(quiet=quiet)))


@app.command("evaluate interactive", epilog=_SCORED)
def evaluate_interactive(request: Interactive, quiet: bool = False) -> None:
    """Play autoPET IV or V: mark errors of a mask call by call, and score the curves.

    Example: flarekit evaluate interactive att_umamba_petct --truth labelsTr --picture curves.svg
    """
    from flarekit.cli.console import Console
    from flarekit.cli.interactive import run_interactive

    raise typer.Exit(run_interactive(request, Console(quiet=quiet)))


@app.command()
def predictors(as_json: bool = False) -> None:
    """List the predictors at hand and whether their weights are whole."""
    from flarekit.cli.predictors import list_predictors

    list_predictors(as_json=as_json)


@app.command("compile")
def compile_(
    names: list[str] | None = None,
    precision: Precision = "auto",
    beside: bool = False,
    trust: bool = False,
    quiet: bool = False,
) -> None:
    """Compile predictors for the OpenVINO engine, so that runs start at once without torch."""
    from flarekit.cli.console import Console
    from flarekit.cli.predictors import compile_all

    raise typer.Exit(
        compile_all(names or [], precision, Console(quiet=quiet), beside=beside, trust=trust)
    )


@app.command()
def demo(output_dir: Path = Path("demo"), seed: int = 1, *, computing: Computing) -> None:
    """Generate a phantom CT, segment it, and compare with the phantom's truth."""
    from flarekit.cli.console import Console
    from flarekit.cli.demo import run_demo
    from flarekit.segmentation.folder import Options

    options = Options(**vars(computing))
    raise typer.Exit(run_demo(output_dir, seed, options, Console()))


def main() -> None:
    """Run the command line of this process, and end the process when the command is over.

    Whatever asked to be called at the end is called; what Python and the libraries then take down
    piece by piece, in 0.1 to 1.5 seconds, is left to the kernel.
    """
    end_on_sigterm()
    spare_pydicom()
    code: object = None  # of a process that ends as Python lets it, after Ctrl-C for example
    ending = atexit.register(lambda: _leave(code))  # the first one registered is called last
    try:
        run()
        code = 0
    except SystemExit as error:
        code = 0 if error.code is None else error.code
        raise
    finally:
        if not isinstance(code, int):
            atexit.unregister(ending)


def _leave(code: object) -> None:
    """Leave the process at once, with all that was said or logged."""
    if not isinstance(code, int):
        return
    logging.shutdown()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # it was closed before the process began
                stream.flush()
    except (OSError, ValueError):  # Python says so, with an exit code of its own
        return
    os._exit(code)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run one command; every expected error becomes one line and an exit code.

    Args:
        arguments: after the program's name; those of the process where None.

    Raises:
        SystemExit: when the command is over, with its exit code.
    """
    from flarekit.core.errors import FlarekitError, OutputError
    from flarekit.core.files import is_full

    try:
        words = sys.argv[1:] if arguments is None else arguments
        app.only(words[0] if words else "")(arguments, prog_name="flarekit")
    except FlarekitError as error:
        _tell(f"{error.message}; {error.fix}")
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.filename is not None or not is_full(error):
            raise
        _tell(f"what is printed cannot be written: {error.strerror}; write it where there is space")
        raise SystemExit(OutputError.exit_code) from None


def _tell(error: str) -> None:
    from flarekit.core.files import printable

    if sys.stderr is not None:
        sys.stderr.write(f"error: {printable(error)}\n")


if __name__ == "__main__":
    main()
