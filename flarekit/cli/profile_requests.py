"""What the commands of `flarekit profile` take, and whose line an image is run by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flarekit.cli.options import ImageConvention

if TYPE_CHECKING:
    from flarekit.containers import RunLine as OrganisersLine


JOBS = "jobs"
_MEANT = {JOBS: "grandchallenge", ".nii.gz": "flare", ".npz": "flare_recist"}
_IN_WORDS = {
    JOBS: "jobs with images/SOCKET/*.mha",
    ".nii.gz": "scans X_0000.nii.gz",
    ".npz": "scans X.npz",
}


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """What is on the run line; see `flarekit.profiler.container.ContainerOptions`."""

    gpus: str | None = None
    memory: str | None = None
    shm_size: str | None = None
    network: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageRun:
    """Which image runs on what, and where things go."""

    image: str
    input_dir: Path
    output_dir: Path
    report_dir: Path
    convention: ImageConvention = None


@dataclass(frozen=True, kw_only=True)
class Watching:
    """How long a container may run, and what is watched beside it."""

    timeout_s: float | None = None
    preset: str | None = None
    gpu: str | None = None


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a case may cost: limits by themselves, and those of an edition."""

    max_time: float | None = None
    max_gpu_mib: float | None = None
    max_ram_mib: float | None = None
    cpu: bool = False
    preset: str | None = None


def kind_of(line: OrganisersLine) -> str:
    """Return what images run on by a line: `JOBS`, or the ending of scans."""
    return JOBS if line.command is None else line.scans


def line_of(convention: str | None, kind: str) -> OrganisersLine:
    """Return the line of an organiser whose inputs are of this kind.

    Args:
        convention: of the image; the one that the inputs are usually of where None.
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
            f"images of the convention {convention} do not run on {_IN_WORDS[kind]}",
            fix=f"lay the inputs out with flarekit arrange --convention {convention}, or name the "
            "image's convention with --convention",
        )
    return line
