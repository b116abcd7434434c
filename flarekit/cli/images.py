"""`flarekit build`, `verify`, `save`: images for organisers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from flarekit.cli.options import ImageConvention, Messages, Sandbox

if TYPE_CHECKING:
    from flarekit.cli.console import Console


@dataclass(frozen=True, kw_only=True)
class Build:
    """What image is built; see `flarekit.images.build.BuildRequest`."""

    predictor: str
    tag: str
    convention: str | None = None
    preset: str | None = None
    base: str = "python:3.11-slim-bookworm"
    torch_index: str | None = None
    mamba: bool = False
    network: str = "host"
    trust: bool = False


def build(wanted: Build, cuda: bool | None = None, quiet: bool = False) -> None:
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

    image: str
    convention: ImageConvention = None
    user_inputs: Path | None = None
    backend: Sandbox = "auto"
    preset: str | None = None
    labels: Any = None
    time_s: float | None = None
    timeout_s: float = 600.0
    memory_mib: Any = None
    gpus: str | None = None


def verify(
    verification: Verification, only: list[str] | None = None, as_json: bool = False
) -> None:
    """Run an image as the organisers do, and say what would fail there."""
    from flarekit.cli.console import Console
    from flarekit.cli.verdicts import run_verify
    from flarekit.images.verify import VerifyRequest

    request = VerifyRequest(**vars(verification), only=tuple(only or ()))
    raise typer.Exit(run_verify(request, Console(), as_json=as_json))


def save(
    image: str,
    output: Path,
    convention: ImageConvention = None,
    save_format: Literal["docker", "apptainer-def"] = "docker",
    quiet: bool = False,
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

    algorithm: str
    output_dir: Path
    input_dir: Path | None = None
    job: str | None = None
    url: str = "https://grand-challenge.org/api/v1/"
    timeout_s: float = 7200.0


def submit(submission: Submission, messages: Messages) -> None:
    """Run cases on an algorithm of grand-challenge.org: start jobs, wait, fetch the outputs.

    The algorithm has to exist: the API takes no container images. Upload them, or link a
    repository, on the algorithm's page. The token is read from GRAND_CHALLENGE_AUTHORIZATION.
    """
    from flarekit.cli.console import Console
    from flarekit.cli.submit import run_submit
    from flarekit.images.submit import Request

    raise typer.Exit(run_submit(Request(**vars(submission)), Console(**vars(messages))))


COMMANDS = (build, verify, save, submit)
