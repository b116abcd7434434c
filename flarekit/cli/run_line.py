"""What is on the line by which `flarekit profile docker` runs an image, and whose line it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from flarekit.cli.options import Gpus

if TYPE_CHECKING:
    from flarekit.containers import RunLine as OrganisersLine


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


def line_of(convention: str, *, jobs: bool) -> OrganisersLine:
    """Return the line of an organiser whose inputs are of this kind.

    Raises:
        UsageError: nobody runs images of that convention, or on other inputs than these.
    """
    from flarekit import conventions
    from flarekit.core.errors import UsageError

    line = conventions.facts_of(convention).run_line
    if line is None or (line.command is None) != jobs:
        kind = "jobs with images/SOCKET/*.mha" if jobs else "scans X_0000.nii.gz"
        raise UsageError(
            f"--convention {convention} does not run on {kind}",
            fix="leave it out, or lay the inputs out with flarekit arrange",
        )
    return line
