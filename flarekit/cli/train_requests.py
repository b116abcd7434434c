"""What `flarekit train compact` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from flarekit.cli.options import OneDevice, Trust


@dataclass(frozen=True, kw_only=True)
class CompactRun:
    """How a compact run is made; see `flarekit.training.compact.RunOptions`."""

    minutes: Annotated[
        float,
        typer.Option(
            help="Minutes of training altogether, including those of runs that were killed."
        ),
    ] = 75
    start: Annotated[
        Path | None,
        typer.Option(help="Predictor folder, of the same network, whose weights to begin with."),
    ] = None
    device: OneDevice = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(
            help=(
                "auto takes bf16 where the device computes in it, and otherwise fp16 on CUDA "
                "and fp32 on a CPU."
            )
        ),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """A recipe, the folders that its samples come from, and where they are prepared."""

    recipe_path: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A recipe, such as flarekit train init writes.")
    ]
    dataset: Annotated[
        Path,
        typer.Argument(
            help="nnU-Net raw layout (imagesTr, labelsTr); where the recipe names several "
            "datasets, the folder that holds them."
        ),
    ]
    run_dir: Annotated[
        Path,
        typer.Argument(help="Folder that gets the checkpoint, the curve and a copy of the recipe."),
    ]
    material: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder that the recipe's synthesis works on; may be given several times."
        ),
    ] = None
    negatives: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of CTs that show none of the labels; may be given several times."
        ),
    ] = None
    cases: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps prepared cases, which several runs may share; "
            "RUN_DIR/cases by default."
        ),
    ] = None
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that prepare the cases before training begins.")
    ] = 2
    trust: Trust = False

    @property
    def others(self) -> tuple[Path, ...]:
        """The folders besides the data set."""
        return (*(self.material or ()), *(self.negatives or ()))
