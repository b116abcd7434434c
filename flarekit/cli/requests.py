"""What the commands of `flarekit` itself take: predict, job and evaluate.

Each field is an option, under the name that the request it goes into has for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flarekit.cli.options import (
    Also,
    Convention,
    Device,
    Gpus,
    OneDevice,
    Precision,
    Sandbox,
    names,
)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How scans are segmented; see `flarekit.segmentation.folder.Options`."""

    convention: Convention = None
    also: Also = ""
    mode: Annotated[
        Literal["fast", "exact"],
        typer.Option(
            help="fast, or exact, which uses nnU-Net's arithmetic, every tile and every flip."
        ),
    ] = "fast"
    engine: Annotated[
        str,
        typer.Option(
            envvar="FLAREKIT_ENGINE",
            help="auto takes OpenVINO on a CPU where it is installed, and PyTorch otherwise.",
        ),
    ] = "auto"
    device: Device = "auto"
    precision: Precision = "auto"
    mirroring: Annotated[
        bool,
        typer.Option(
            help="With --mode exact, average over the flips that the predictor's facts name."
        ),
    ] = True
    locator: Annotated[
        bool,
        typer.Option(
            help=(
                "Look at the whole scan first with the predictor's locator, a small and "
                "coarse network, if it has one."
            )
        ),
    ] = True
    labels: Annotated[
        Any,
        typer.Option(
            parser=names,
            metavar="NAME,...",
            help="Labels that masks get, for example liver,spleen; all of them by default.",
        ),
    ] = None
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Compute so that every run on the same GPU gives the same masks.",
        ),
    ] = False
    probabilities: Annotated[
        Path | None,
        typer.Option(
            help="Folder that gets the probabilities of every class, CASE.npz (float16, class by "
            "class, with the mask's axes as NumPy reads them: Z, Y, X)."
        ),
    ] = None
    on_error: Annotated[
        Literal["mask", "skip", "stop"],
        typer.Option(
            help="What a failed case leaves: a stand-in for its mask (mostly an empty one), "
            "nothing, or the end of the run."
        ),
    ] = "mask"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a run leaves in writing, and how it goes on from what earlier ones left."""

    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the run's record (run.json, ledger.jsonl with a line per case), what "
            "every label measures (statistics.csv) and a picture of every case."
        ),
    ] = None
    pictures: Annotated[bool, typer.Option(help="With --report: draw the pictures.")] = True
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Skip the cases that an earlier run has done, by its ledger: the same input, "
            "predictor and settings, and a mask that is whole.",
        ),
    ] = False
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Like --resume, and run the failed cases again."),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ShardRecording(Recording):
    """The same of a run that may be one of several shares of a cohort."""

    shard: Annotated[
        str | None,
        typer.Option(
            metavar="N/COUNT",
            help="Run one of several shares of the cases, 3/8 say; each of the others is run by "
            "another process with the same folders.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class JobFolders:
    """Where the platform puts things."""

    inputs: Annotated[
        Path, typer.Option("--input", "-i", help="Folder where the platform mounts the inputs.")
    ] = Path("/input")
    outputs: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder where the platform looks for the outputs."),
    ] = Path("/output")
    model: Annotated[
        Path,
        typer.Option(
            help="Folder of an uploaded predictor, which is used instead of the image's own."
        ),
    ] = Path("/opt/ml/model")


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is scored, by whose rules, and where the scores go."""

    predicted: Annotated[Path, typer.Option("--pred", help="Folder with the masks to score.")]
    truth: Annotated[Path, typer.Option(help="Folder with the true masks, of the same names.")]
    convention: Annotated[
        str | None,
        typer.Option(
            "--convention",
            "-c",
            help=(
                "Scores to compute: those of flare, flare_recist, autopet or uls23, or papers for "
                "every figure. By default flare where it knows the labels, else papers."
            ),
        ),
    ] = None
    edition: Annotated[
        str | None,
        typer.Option(
            help=(
                "Edition whose rules count: flare 21 to 24 or 26 (by default 24), autopet 1 to 5 "
                "(by default 5)."
            )
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            help="liver=1,spleen=3, or regions of several values, WT=1+2+3; by default those of a "
            "dataset.json beside the truth, or else of the convention, which has to be named."
        ),
    ] = None
    probabilities: Annotated[
        Path | None,
        typer.Option(
            help="Folder that predict --probabilities wrote: the area under the ROC curve, too "
            "(--convention papers)."
        ),
    ] = None
    predictor: Annotated[
        str | None, typer.Option("--predictor", "-p", help="Predictor whose labels are scored.")
    ] = None
    ignore: Annotated[
        str | None,
        typer.Option(
            help="Labels to leave out because the truth does not hold them, by name or value."
        ),
    ] = None
    tolerances: Annotated[
        list[str] | None,
        typer.Option(
            "--tolerance",
            help="Tolerance of a label's surface distance, as NAME=MM; may be given several times.",
        ),
    ] = None
    json: Annotated[
        Path | None,
        typer.Option(help="JSON file to write: every row, the means, and what was wrong."),
    ] = None
    csv: Annotated[
        Path | None, typer.Option(help="CSV file to write: every row and the means.")
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of cases scored at the same time; by default one per core."
        ),
    ] = None
    pictures: Annotated[Path | None, typer.Option(help="Folder for a picture of every case.")] = (
        None
    )
    scans: Annotated[
        Path | None,
        typer.Option("--images", help="Folder with the scans that pictures show behind the masks."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Interactive:
    """What is marked step by step, as autoPET's organisers do, and where the figures go."""

    played: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE_OR_PREDICTOR",
            help="Name or folder of a predictor; else an image, or the tar it was saved to.",
        ),
    ]
    truth: Annotated[Path, typer.Option(help="Folder with the true masks, a file for each case.")]
    scans: Annotated[
        Path | None,
        typer.Option(
            help="Folder with images/ct/X and images/pet/X, or with X_0000 and X_0001; beside the "
            "truth by default."
        ),
    ] = None
    edition: Annotated[
        Literal["4", "5"],
        typer.Option(help="4: clicks, eleven calls a case; 5: scribbles, six calls a case."),
    ] = "5"
    seed: Annotated[
        int, typer.Option(min=0, help="Seed that clicks and scribbles are drawn with.")
    ] = 0
    forget: Annotated[
        bool, typer.Option("--forget", help="Empty /cache before every call of a case.")
    ] = False
    time_s: Annotated[
        float | None,
        typer.Option("--time-limit", help="Seconds for a call; the edition's limit by default."),
    ] = None
    json: Annotated[Path | None, typer.Option(help="File for all figures of every call.")] = None
    picture: Annotated[
        Path | None, typer.Option(help="SVG file for the curves of all cases and their mean.")
    ] = None
    backend: Sandbox = "auto"
    device: OneDevice = "auto"
    gpus: Gpus = None
