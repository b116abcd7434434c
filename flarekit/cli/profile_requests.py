"""What the commands of `flarekit profile` take, and whose line an image is run by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flarekit.cli.options import Gpus, ImageConvention, InputDir, OutputDir

if TYPE_CHECKING:
    from flarekit.containers import RunLine as OrganisersLine


JOBS = "jobs"
_MEANT = {JOBS: "grandchallenge", ".nii.gz": "flare", ".npz": "flare_recist"}
_IN_WORDS = {
    JOBS: "jobs with images/SOCKET/*.mha",
    ".nii.gz": "scans X_0000.nii.gz",
    ".npz": "scans X.npz",
}


Preset = Annotated[
    str | None,
    typer.Option(
        help="Limits of an edition of a challenge, for example flare23; "
        "`flarekit conventions NAME` lists those of a convention."
    ),
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.1, help="Seconds after which a run is ended.")
]


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """What is on the run line; see `flarekit.profiler.container.ContainerOptions`."""

    gpus: Gpus = None
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory of the container, as docker run takes it, such as 28g; by default that of "
            "the preset, or what the organiser's own line says."
        ),
    ] = None
    shm_size: Annotated[
        str | None,
        typer.Option(
            help="Size of /dev/shm, as docker run takes it, such as 64m; by default that of the "
            "organiser."
        ),
    ] = None
    network: Annotated[
        str | None,
        typer.Option(
            help="Network of the container, as docker run takes it, such as none; by default that "
            "of the organiser."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ImageRun:
    """Which image runs on what, and where things go."""

    image: Annotated[
        str, typer.Argument(help="Name and tag of the image, as docker image ls shows them.")
    ]
    input_dir: InputDir
    output_dir: OutputDir
    report_dir: Annotated[Path, typer.Option("--report", help="Folder for the report.")]
    convention: ImageConvention = None


@dataclass(frozen=True, kw_only=True)
class Watching:
    """How long a container may run, and what is watched beside it."""

    timeout_s: Timeout = 600.0
    preset: Preset = None
    gpu: Annotated[
        str | None,
        typer.Option(help="Index or UUID of the GPU to watch; by default that of --gpus."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a case may cost: limits by themselves, and those of an edition."""

    max_time: Annotated[
        float | None, typer.Option(help="Seconds that a case may take; by default 15.")
    ] = None
    max_gpu_mib: Annotated[
        float | None, typer.Option(help="MiB that may be in use on the GPU; by default 4096.")
    ] = None
    max_ram_mib: Annotated[
        float | None,
        typer.Option(
            help="MiB that the container or process tree may use; by default there is no limit."
        ),
    ] = None
    cpu: Annotated[
        bool,
        typer.Option(
            "--cpu", help="The submission uses no GPU, so limits of GPU memory are left out."
        ),
    ] = False
    preset: Preset = None


def kind_of(line: OrganisersLine) -> str:
    """Return what images run on by a line: `JOBS`, or the ending of scans."""
    return JOBS if line.command is None else line.scans


def line_of(convention: str | None, kind: str) -> OrganisersLine:
    """Return the line of an organiser whose inputs are of this kind.

    Args:
        convention: whose; the one that is meant where no other is named, if None.
        kind: `JOBS`, or the ending of scans.

    Raises:
        UsageError: nobody runs images of that convention, or on other inputs than these.
    """
    from flarekit import conventions
    from flarekit.core.errors import UsageError

    convention = convention or _MEANT[kind]
    line = conventions.facts_of(convention).run_line
    if line is None or kind_of(line) != kind:
        raise UsageError(
            f"--convention {convention} does not run on {_IN_WORDS[kind]}",
            fix="leave it out, or lay the inputs out with flarekit arrange",
        )
    return line
