"""`flarekit train init`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from flarekit.cli.options import OneDevice, Quiet, memory_option, spread


@dataclass(frozen=True, kw_only=True)
class First:
    """What a first recipe should be; see `flarekit.training.first_recipe.Wanted`."""

    name: Annotated[
        str | None, typer.Option(help="Name of the predictor; the dataset's by default.")
    ] = None
    convention: Annotated[
        str, typer.Option("--convention", "-c", help="The predictor's default convention.")
    ] = "flare"
    device: OneDevice = "auto"
    memory_mib: Annotated[
        Any,
        memory_option(
            "Memory that a training step may take, such as 6g; by default half of what is free."
        ),
    ] = None


@spread
def init(
    dataset: Annotated[
        Path, typer.Argument(help="Labelled scans: imagesTr, labelsTr, and dataset.json for names.")
    ],
    *,
    wanted: First,
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write.")] = Path(
        "recipe.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe of that name.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a first recipe that fits your labelled scans and this machine."""
    from flarekit.cli.console import Console
    from flarekit.core.errors import UsageError
    from flarekit.core.files import write_atomically
    from flarekit.training.first_recipe import Wanted, first_recipe

    console = Console(quiet=quiet)
    if output.exists() and not force:
        raise UsageError(f"{output}: is there already", fix="add --force to replace it")
    with console.bar("label maps") as progress:
        made = first_recipe(dataset, Wanted(**vars(wanted)), progress)
    write_atomically(output, made.text.encode())
    for note in made.notes:
        console.say(f"note: {note}")
    console.say(
        f"{output}: written; next: flarekit train compact {output} {dataset} RUN_DIR --minutes 60"
    )
