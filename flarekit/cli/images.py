"""`flarekit build`, `verify`, `save`: images for organisers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def build(
    predictor: Annotated[str, typer.Option("--predictor", "-p", help="A name or a folder.")],
    tag: Annotated[str, typer.Option("--tag", "-t", help="Of the image: TEAM or TEAM:latest.")],
    convention: Annotated[
        str | None, typer.Option("--convention", "-c", help="The predictor's by default.")
    ] = None,
    cuda: Annotated[
        bool, typer.Option("--cuda/--cpu", help="With torch for a GPU, or lean without both.")
    ] = True,
    base: Annotated[str, typer.Option(help="Image to start from.")] = "python:3.11-slim-bookworm",
    torch_index: Annotated[
        str | None, typer.Option(help="Package index for torch; PyPI by default.")
    ] = None,
    mamba: Annotated[
        bool,
        typer.Option(
            "--mamba",
            help="Build the kernel of mamba-ssm in, for GPUs. It takes a while, and the image "
            "then has CUDA 13, which needs NVIDIA driver 580 or later.",
        ),
    ] = False,
    network: Annotated[str, typer.Option(help="Docker network of the build.")] = "host",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Build an image of one predictor for one organiser."""
    from flarekit.cli.console import Console
    from flarekit.images import build as building

    console = Console(quiet=quiet)
    request = building.BuildRequest(
        predictor=predictor,
        convention=convention,
        tag=tag,
        device="cuda" if cuda else "cpu",
        base=base,
        torch_index=torch_index,
        mamba=mamba,
        network=network,
    )
    image = building.build(request, say=console.say)
    console.say(f"{tag}: {image.size_bytes / 1e6:.0f} MB; next: flarekit verify {tag}")


def verify(
    image: Annotated[str, typer.Argument(help="An image, or the tar it was saved to.")],
    convention: Annotated[
        str | None, typer.Option("--convention", "-c", help="The image's label by default.")
    ] = None,
    input_dir: Annotated[
        Path | None, typer.Option("--input", "-i", help="Cases of yours to run besides.")
    ] = None,
    sandbox: Annotated[
        Literal["auto", "docker", "process"],
        typer.Option(help="auto: Docker where an engine answers, else processes."),
    ] = "auto",
    only: Annotated[
        list[str] | None, typer.Option(help="Name of a check; may be repeated.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Values that masks may hold: 1,2,5; the task's by default.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds for a case; 0 for none.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds after which a run is killed.")] = 600.0,
    memory: Annotated[
        str | None, typer.Option(help="Limit of a run, as of docker run: 8g; the organiser's here.")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(help="As of docker run: all, or device=0,1; no GPU by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run an image as the organisers do, and say what they would stumble over."""
    from flarekit.cli.console import Console
    from flarekit.cli.verdicts import memory_mib, numbers, run_verify
    from flarekit.images.verify import VerifyRequest

    request = VerifyRequest(
        image=image,
        convention=convention,
        user_inputs=input_dir,
        backend=sandbox,
        only=tuple(only or ()),
        labels=numbers(labels),
        time_s=time_limit,
        timeout_s=timeout,
        memory_mib=memory_mib(memory),
        gpus=gpus,
    )
    raise typer.Exit(run_verify(request, Console(), as_json=as_json))


def save(
    image: Annotated[str, typer.Argument(help="Its name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="TEAM.tar.gz")],
    convention: Annotated[
        str | None, typer.Option("--convention", "-c", help="The image's label by default.")
    ] = None,
) -> None:
    """Save an image to the file that is handed in, named as the organiser wants it."""
    from flarekit.cli.console import Console
    from flarekit.images import save as saving

    console = Console()
    request = saving.SaveRequest(image=image, path=output, convention=convention)
    saved = saving.save(request, say=console.say)
    for warning in saved.warnings:
        console.say(f"warning: {warning}")
    console.say(f"{saved.path}: {saved.size_bytes / 1e6:.0f} MB, sha256 {saved.sha256}")


def submit(
    algorithm: Annotated[
        str, typer.Argument(help="The last part of the address of the algorithm's page.")
    ],
    output_dir: Annotated[Path, typer.Option("--output", "-o", help="Folder for the outputs.")],
    input_dir: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", help="A case, laid out as /input is, or a folder of such cases."
        ),
    ] = None,
    job: Annotated[
        str | None, typer.Option(help="Instead of --input: wait for this job, and fetch it.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Minutes that a job may take; it goes on after that.")
    ] = 120.0,
    url: Annotated[
        str, typer.Option(help="Of the platform's API.")
    ] = "https://grand-challenge.org/api/v1/",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Run cases on an algorithm of grand-challenge.org: start jobs, wait, fetch the outputs.

    The algorithm is there already: its API takes no container images. Upload them, or link a
    repository, on the algorithm's page. The token is read from GRAND_CHALLENGE_AUTHORIZATION.
    """
    from flarekit.cli.console import Console
    from flarekit.cli.submit import run_submit
    from flarekit.images.submit import Request

    request = Request(
        algorithm=algorithm,
        output_dir=output_dir,
        input_dir=input_dir,
        job=job,
        url=url,
        timeout_s=60 * timeout,
    )
    raise typer.Exit(run_submit(request, Console(verbose=verbose, quiet=quiet)))


COMMANDS = (build, verify, save, submit)
