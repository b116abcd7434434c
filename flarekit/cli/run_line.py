"""What is on the line by which `flarekit profile docker` runs an image, and whose line it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from flarekit.cli.options import Gpus

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

    gpus: Gpus = None
    memory: Annotated[
        str | None,
        typer.Option(
            help="Value for the option of docker run that has the same name, for example 28g."
        ),
    ] = None
    shm_size: Annotated[
        str | None,
        typer.Option(
            help="Value for the option of docker run that has the same name, for example 28g."
        ),
    ] = None
    network: Annotated[
        str | None,
        typer.Option(
            help="Value for the option of docker run that has the same name, for example none."
        ),
    ] = None


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
