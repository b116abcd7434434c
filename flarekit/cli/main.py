"""`flarekit`: the commands, and what their exit codes mean.

Heavy imports stand inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer

import flarekit
from flarekit.cli import conventions, images, profile, train

EXIT_CODES = """Exit codes: 0 every case has its mask; 1 some cases failed or files were left out
(each is named); 2 wrong usage; 3 no or unreadable input; 4 a predictor or weights that cannot be
trusted; 5 device or precision not available; 6 output cannot be written; 130, 143 interrupted."""

_GRACE_S = 2.5  # from SIGTERM to the end, whatever is being computed

app = typer.Typer(
    name="flarekit",
    help="From a trained 3D segmentation network to a challenge submission.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes as long to load as all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)

weights_app = typer.Typer(
    help="Import checkpoints; verify what is there.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(weights_app, name="weights")
app.add_typer(train.app, name="train")
app.add_typer(profile.app, name="profile")
for command in (*images.COMMANDS, conventions.conventions):
    app.command()(command)

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; show tracebacks.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:N or a UUID; several (cuda:0,cuda:1) share the cases. "
        "Never falls back."
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(
        help="auto: fp16 on CUDA, bf16 on a CPU that has it, else fp32; none that the network "
        "overflows in."
    ),
]

Mode = Annotated[
    Literal["fast", "exact"],
    typer.Option(help="fast, or exact: nnU-Net's arithmetic, every tile and flip."),
]


def _limit(word: str) -> Callable[[str], float | str | None]:
    """Return what reads a limit: a number, 0 for none, or a word for what is tolerated."""

    def limit(text: str) -> float | str | None:
        if text in ("", word):
            return text or None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < math.inf:
            raise typer.BadParameter(f"{text!r} is neither a number from 0 on nor {word!r}")
        return value

    return limit


_tolerated, _contained = _limit("convention"), _limit("container")
TimeBudget = Annotated[
    Any,
    typer.Option(
        envvar="FLAREKIT_TIME_BUDGET",
        parser=_tolerated,
        metavar="SECONDS|convention",
        help="Seconds that a case may take; detail is given up for it, which the last line tells. "
        "convention: what the organiser tolerates. No limit by default, and with 0.",
    ),
]
GpuMemoryBudget = Annotated[
    Any,
    typer.Option(
        envvar="FLAREKIT_GPU_MEMORY_BUDGET",
        parser=_tolerated,
        metavar="MIB|convention",
        help="MiB that may be in use on the GPU. convention: what the organiser tolerates. "
        "No limit by default, and with 0.",
    ),
]
RamBudget = Annotated[
    Any,
    typer.Option(
        envvar="FLAREKIT_RAM_BUDGET",
        parser=_contained,
        metavar="MIB|container",
        help="MiB of memory that the run may have resident; what does not fit is refused. "
        "container: the limit of the container around it. No limit by default, and with 0.",
    ),
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"flarekit {flarekit.__version__}")
        raise typer.Exit


@app.callback()
def _flarekit(
    version: Annotated[  # noqa: ARG001 - acted on by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """From a trained 3D segmentation network to a challenge submission."""


@app.command(epilog=EXIT_CODES)
def predict(
    input_dir: Annotated[
        Path, typer.Option("--input", "-i", help="Folder with the scans, or a zip or tar of it.")
    ],
    output_dir: Annotated[Path, typer.Option("--output", "-o", help="Folder for the masks.")],
    predictor: Annotated[
        str,
        typer.Option(
            "--predictor",
            "-p",
            envvar="FLAREKIT_PREDICTOR",
            help="A name (see `flarekit predictors`) or a predictor folder.",
        ),
    ] = "abdomen_ct",
    convention: Annotated[
        str | None,
        typer.Option(
            envvar="FLAREKIT_CONVENTION",
            help="Input and output layout; the predictor's own by default.",
        ),
    ] = None,
    mode: Mode = "fast",
    profile: Annotated[
        Literal["fast", "exact"] | None, typer.Option(hidden=True, help="The old name of --mode.")
    ] = None,
    engine: Annotated[
        Literal["auto", "openvino", "torch"],
        typer.Option(
            envvar="FLAREKIT_ENGINE",
            help="auto: OpenVINO on a CPU where it is installed, else torch.",
        ),
    ] = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    mirroring: Annotated[
        bool, typer.Option(help="With --mode exact: average over the predictor's flips, if any.")
    ] = True,
    locator: Annotated[
        bool,
        typer.Option(
            help="Look at the whole scan with the predictor's small network first, if it has one."
        ),
    ] = True,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same masks in every run on the same GPU.")
    ] = False,
    time_budget: TimeBudget = None,
    gpu_memory_budget: GpuMemoryBudget = None,
    ram_budget: RamBudget = None,
    on_error: Annotated[
        Literal["mask", "skip", "stop"],
        typer.Option(help="A failed case leaves an empty mask, nothing, or ends the run."),
    ] = "mask",
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the run's record (run.json, ledger.jsonl with a line per case) and a "
            "picture of every case."
        ),
    ] = None,
    pictures: Annotated[bool, typer.Option(help="With --report: draw the pictures.")] = True,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Segment every scan of a folder."""
    from flarekit.cli.console import Console
    from flarekit.cli.predict import process_start, run_predict
    from flarekit.segmentation.folder import Options, Report

    if profile is not None:
        note = "note: --profile is called --mode now; the old name goes with the next release"
        typer.echo(note, err=True)
        mode = profile
    options = Options(
        convention=convention,
        mode=mode,
        engine=engine,
        device=device,
        precision=precision,
        mirroring=mirroring,
        locator=locator,
        deterministic=deterministic,
        time_budget_s=time_budget,
        gpu_memory_budget_mib=gpu_memory_budget,
        ram_budget_mib=ram_budget,
        began=process_start(),
        on_error=on_error,
    )
    console = Console(verbose=verbose, quiet=quiet)
    wanted = None if report is None else Report(report, pictures=pictures)
    raise typer.Exit(run_predict(predictor, input_dir, output_dir, options, wanted, console))


@app.command(epilog=EXIT_CODES)
def job(
    inputs: Annotated[Path, typer.Option("--input", help="Where the platform mounts it.")] = Path(
        "/input"
    ),
    outputs: Annotated[Path, typer.Option("--output", help="Likewise.")] = Path("/output"),
    model: Annotated[
        Path, typer.Option(help="An uploaded predictor goes before the image's own.")
    ] = Path("/opt/ml/model"),
    predictor: Annotated[
        str, typer.Option("--predictor", "-p", envvar="FLAREKIT_PREDICTOR", help="The image's own.")
    ] = "abdomen_ct",
    convention: Annotated[
        str | None, typer.Option(envvar="FLAREKIT_CONVENTION", help="The predictor's by default.")
    ] = None,
    time_budget: TimeBudget = None,
    gpu_memory_budget: GpuMemoryBudget = None,
    ram_budget: RamBudget = None,
) -> None:
    """Run one grand-challenge job; what the platform's images do when they start."""
    from flarekit.cli.console import Console
    from flarekit.cli.job import Folders, run_job
    from flarekit.cli.predict import process_start
    from flarekit.segmentation.folder import Options

    options = Options(
        convention=convention,
        time_budget_s=time_budget,
        gpu_memory_budget_mib=gpu_memory_budget,
        ram_budget_mib=ram_budget,
        began=process_start(),
    )
    folders = Folders(inputs=inputs, outputs=outputs, model=model)
    raise typer.Exit(run_job(predictor, folders, options, Console()))


@app.command(epilog=EXIT_CODES)
def evaluate(
    pred: Annotated[Path, typer.Option(help="Folder with the masks to score.")],
    truth: Annotated[Path, typer.Option(help="Folder with the true masks, of the same names.")],
    convention: Annotated[
        str | None,
        typer.Option(
            help="Whose scores: flare, autopet, uls23, or papers (every figure); by default flare "
            "where it knows the labels, else papers."
        ),
    ] = None,
    edition: Annotated[
        str | None,
        typer.Option(help="Whose year's rules: flare 21-24, autopet 1-5; the newest by default."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="liver=1,spleen=3; by default those of a dataset.json beside the truth, or else "
            "of the convention, which has to be named."
        ),
    ] = None,
    predictor: Annotated[
        str | None, typer.Option("--predictor", "-p", help="Score this predictor's labels.")
    ] = None,
    ignore: Annotated[
        str | None, typer.Option(help="Labels that the truth does not hold: names or values.")
    ] = None,
    tolerance: Annotated[
        list[str] | None, typer.Option(help="NAME=MM, of a label's surface; may be repeated.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="File for rows, means and faults.")] = None,
    csv: Annotated[Path | None, typer.Option(help="File for rows and means.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cases at once; one per core by default.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for a picture of every case.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder with the scans, to stand behind the pictures.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Score masks against their truth, as the organisers do."""
    from flarekit.cli.console import Console
    from flarekit.cli.evaluate import Request, run_evaluate

    request = Request(
        predicted=pred,
        truth=truth,
        convention=convention,
        edition=edition,
        labels=labels,
        predictor=predictor,
        ignore=ignore,
        tolerances=tuple(tolerance or ()),
        json=json,
        csv=csv,
        workers=workers,
        pictures=pictures,
        scans=images,
    )
    raise typer.Exit(run_evaluate(request, Console(quiet=quiet)))


@app.command()
def predictors(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")] = False,
) -> None:
    """List the predictors at hand and whether their weights are whole."""
    from flarekit.cli.predictors import list_predictors

    list_predictors(as_json=as_json)


@app.command("compile")
def compile_(
    names: Annotated[
        list[str] | None, typer.Argument(help="Predictors; all at hand by default.")
    ] = None,
    precision: Precision = "auto",
    beside: Annotated[
        bool, typer.Option("--beside", help="Keep it beside the weights, not in the cache.")
    ] = False,
) -> None:
    """Compile predictors for the OpenVINO engine, so that runs start at once without torch."""
    from flarekit.cli.console import Console
    from flarekit.cli.predictors import compile_all

    raise typer.Exit(compile_all(names or [], precision, Console(), beside=beside))


@weights_app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="nnU-Net v2 result folder, or FLARE23's, FLARE21's or MPU-Net's checkpoint."
        ),
    ],
    name: Annotated[str, typer.Option(help="Of the predictor.")],
    convention: Annotated[str, typer.Option(help="The predictor's default.")] = "flare",
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of predictors; FLAREKIT_WEIGHTS' first, or weights/."),
    ] = None,
    folds: Annotated[
        str | None, typer.Option(help="For example 0,1,2; all that are there by default.")
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="File name inside a fold.")
    ] = "checkpoint_final.pth",
    force: Annotated[bool, typer.Option(help="Replace a predictor of that name.")] = False,
) -> None:
    """Make a predictor folder from a checkpoint; nothing in it is executed."""
    from flarekit.cli.console import Console
    from flarekit.cli.weights import import_weights
    from flarekit.importing import ImportOptions

    chosen = tuple(folds.split(",")) if folds is not None else None
    options = ImportOptions(name=name, convention=convention, folds=chosen, checkpoint=checkpoint)
    import_weights(source, output, options, Console(), force=force)


@weights_app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Predictors; all by default.")] = None,
) -> None:
    """Hash and load predictors: the exit code tells whether all are whole."""
    from flarekit.cli.weights import verify_weights

    raise typer.Exit(verify_weights(names or []))


@weights_app.command()
def pack(
    predictor: Annotated[str, typer.Argument(help="A name or a predictor folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="model.tar.gz")],
) -> None:
    """Pack a predictor for the platform, which unpacks it to /opt/ml/model."""
    from flarekit.cli.console import Console
    from flarekit.cli.weights import pack_weights

    pack_weights(predictor, output, Console())


@app.command()
def demo(
    output_dir: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")] = Path(
        "demo"
    ),
    seed: Annotated[
        int, typer.Option(help="Which phantom; those from 1000 to 1023 were trained on.")
    ] = 1,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Generate a phantom CT, segment it, and compare with the phantom's truth."""
    from flarekit.cli.console import Console
    from flarekit.cli.demo import run_demo
    from flarekit.segmentation.folder import Options

    options = Options(device=device, precision=precision)
    raise typer.Exit(run_demo(output_dir, seed, options, Console()))


def _terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's form
    raise SystemExit(128 + signum)


def _end_on_sigterm() -> None:
    """End in order on SIGTERM, and in any case soon: a network may be deep in one long call.

    Python's handlers wait for the main thread; the byte that a signal writes does not. No half
    a file is left, since files get their names when they are whole.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, _terminate)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def end() -> None:
        while os.read(reading, 1) != bytes([signal.SIGTERM]):
            pass
        time.sleep(_GRACE_S)
        sys.stderr.write("error: terminated; nothing half-written is left\n")
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()


def main() -> None:
    """Run the command line of this process."""
    _end_on_sigterm()
    run()


def run(arguments: Sequence[str] | None = None) -> None:
    """Run one command; every expected error becomes one line and an exit code.

    Args:
        arguments: after the program's name; those of the process where None.

    Raises:
        SystemExit: when the command is over, with its exit code.
    """
    from flarekit.core.errors import FlarekitError

    try:
        app(arguments, prog_name="flarekit")
    except FlarekitError as error:
        sys.stderr.write(f"error: {error.message}; {error.fix}\n")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
