"""`flarekit build`, `verify`, `save`: images for organisers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flarekit.cli.options import (
    AsJson,
    Gpus,
    ImageConvention,
    Messages,
    Quiet,
    Sandbox,
    Trust,
    memory_option,
    numbers,
    spread,
)

if TYPE_CHECKING:
    from flarekit.cli.console import Console

EditionPreset = Annotated[
    str | None,
    typer.Option(
        help="Edition of the challenge whose limits and labels count; see flarekit conventions "
        "NAME."
    ),
]


@dataclass(frozen=True, kw_only=True)
class Build:
    """What image is built; see `flarekit.images.build.BuildRequest`."""

    predictor: Annotated[
        str,
        typer.Option(
            "--predictor", "-p", help="Predictor to put into the image: a name or a folder."
        ),
    ]
    tag: Annotated[str, typer.Option("--tag", "-t", help="Name of the image: TEAM or TEAM:latest.")]
    convention: Annotated[
        str | None,
        typer.Option(
            "--convention",
            "-c",
            help="Convention that the image follows; by default the predictor's own.",
        ),
    ] = None
    preset: EditionPreset = None
    base: Annotated[str, typer.Option(help="Base image to build on.")] = "python:3.11-slim-bookworm"
    torch_index: Annotated[
        str | None,
        typer.Option(help="Package index that PyTorch is installed from; by default PyPI."),
    ] = None
    mamba: Annotated[
        bool,
        typer.Option(
            "--mamba",
            help="Build the kernel of mamba-ssm in, for GPUs. It takes a while, and the image "
            "then has CUDA 13, which needs NVIDIA driver 580 or later.",
        ),
    ] = False
    network: Annotated[str, typer.Option(help="Docker network that the build may use.")] = "host"
    trust: Trust = False


@spread
def build(
    wanted: Build,
    cuda: Annotated[
        bool | None,
        typer.Option(
            "--cuda/--cpu",
            help=(
                "Build for a GPU, with PyTorch, or for a CPU, without it; by default what the"
                " organiser runs on."
            ),
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Build an image of one predictor for one organiser."""
    from flarekit.cli.console import Console
    from flarekit.images import build as building
    from flarekit.images.run_line import organisers_line

    console = Console(quiet=quiet)
    device: Literal["cpu", "cuda"] | None = None
    if cuda is not None:
        device = "cuda" if cuda else "cpu"
    request = building.BuildRequest(**vars(wanted), device=device)
    with console.spinner(f"building {wanted.tag}"):
        image = building.build(request, say=console.say)
    console.say(
        f"{wanted.tag}: {image.size_bytes / 1e6:.0f} MB; next: flarekit verify {wanted.tag}"
    )
    _say_line(console, organisers_line(wanted.tag, image))


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What image is verified, and how; see `flarekit.images.verify.VerifyRequest`."""

    image: Annotated[
        str, typer.Argument(help="Name of an image, or a tar file that an image was saved to.")
    ]
    convention: ImageConvention = None
    user_inputs: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            help="Folder with cases of your own, run in addition to the generated ones.",
        ),
    ] = None
    backend: Sandbox = "auto"
    preset: EditionPreset = None
    labels: Annotated[
        Any,
        typer.Option(
            parser=numbers,
            metavar="<str>",
            help=("Label values that masks may hold, such as 1,2,5; by default those of the task."),
        ),
    ] = None
    time_s: Annotated[
        float | None,
        typer.Option("--time-limit", help="Seconds that a case may take; 0 means no limit."),
    ] = None
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Seconds after which a run is killed.")
    ] = 600.0
    memory_mib: Annotated[
        Any,
        memory_option(
            "Memory limit of a run, as docker run takes it (8g); by default what the organiser "
            "allows."
        ),
    ] = None
    gpus: Gpus = None


@spread
def verify(
    verification: Verification,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only the check of this name; may be given several times."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run an image as the organisers do, and say what they would stumble over."""
    from flarekit.cli.console import Console
    from flarekit.cli.verdicts import run_verify
    from flarekit.images.verify import VerifyRequest

    request = VerifyRequest(**vars(verification), only=tuple(only or ()))
    raise typer.Exit(run_verify(request, Console(), as_json=as_json))


def save(
    image: Annotated[str, typer.Argument(help="Name of the image.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File to write: TEAM.tar.gz, or TEAM.def for Apptainer."
        ),
    ],
    convention: ImageConvention = None,
    save_format: Annotated[
        Literal["docker", "apptainer-def"],
        typer.Option(
            "--format",
            help="docker: the file that is handed in. apptainer-def: a definition for Apptainer, "
            "and TEAM.tar.gz beside it, for clusters without Docker.",
        ),
    ] = "docker",
    quiet: Quiet = False,
) -> None:
    """Save an image to the file that is handed in, named as the organiser wants it."""
    from flarekit.cli.console import Console
    from flarekit.images import save as saving

    console = Console(quiet=quiet)
    request = saving.SaveRequest(
        image=image, path=output, convention=convention, format=save_format
    )
    with console.spinner(f"saving {image}"):
        saved = saving.save(request, say=console.say)
    for warning in saved.warnings:
        console.say(f"warning: {warning}")
    console.say(f"{saved.path}: {saved.size_bytes / 1e6:.0f} MB, sha256 {saved.sha256}")
    _say_line(console, saved.run_line)


def _say_line(console: Console, line: str | None) -> None:
    if line is not None:
        console.say(f"the organisers run it so:\n  {line}")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is run on the platform; see `flarekit.images.submit.Request`."""

    algorithm: Annotated[
        str, typer.Argument(help="The last part of the address of the algorithm's page.")
    ]
    output_dir: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that gets the outputs.")
    ]
    input_dir: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", help="A case in the layout of /input, or a folder of such cases."
        ),
    ] = None
    job: Annotated[
        str | None,
        typer.Option(
            help="Wait for this job and fetch its outputs, instead of starting jobs for --input."
        ),
    ] = None
    url: Annotated[str, typer.Option(help="Address of the platform's API.")] = (
        "https://grand-challenge.org/api/v1/"
    )


@spread
def submit(
    submission: Submission,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Minutes to wait for a job, which goes on after that.")
    ] = 120.0,
    *,
    messages: Messages,
) -> None:
    """Run cases on an algorithm of grand-challenge.org: start jobs, wait, fetch the outputs.

    The algorithm is there already: its API takes no container images. Upload them, or link a
    repository, on the algorithm's page. The token is read from GRAND_CHALLENGE_AUTHORIZATION.
    """
    from flarekit.cli.console import Console
    from flarekit.cli.submit import run_submit
    from flarekit.images.submit import Request

    request = Request(**vars(submission), timeout_s=60 * timeout)
    raise typer.Exit(run_submit(request, Console(**vars(messages))))


COMMANDS = (build, verify, save, submit)
