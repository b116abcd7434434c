"""`flarekit train plan` and `train run`: nnU-Net plans, preprocesses and trains our networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from flarekit.training.nnunet.from_recipe import Taken


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What nnU-Net plans for; see `flarekit.training.nnunet.planning.PlanOptions`."""

    architecture: str | None = None
    recipe: Path | None = None
    configuration: str | None = None
    gpu_memory: float | None = None
    unlabelled: list[str] | None = None
    width: float | None = None
    argument: list[str] | None = None
    processes: int = 2


def plan(dataset: Path, work_dir: Path, *, planning: Planning) -> None:
    """Let nnU-Net plan and preprocess a dataset, for one of our networks."""
    from flarekit.cli.console import typed
    from flarekit.training.nnunet.from_recipe import taken_from
    from flarekit.training.nnunet.planning import PlanOptions, parse_arguments
    from flarekit.training.nnunet.planning import plan as make_plan
    from flarekit.training.recipe import read_recipe

    taken = None if planning.recipe is None else taken_from(read_recipe(planning.recipe))
    network = _network(planning.architecture, taken)
    width = {} if planning.width is None else {"width": planning.width}
    options = PlanOptions(
        configuration=planning.configuration,
        gpu_memory_gb=planning.gpu_memory,
        unlabelled=tuple(planning.unlabelled or ()),
        processes=planning.processes,
        arguments=parse_arguments(planning.argument or ()) | width,
        taken=taken,
    )
    path = make_plan(dataset, work_dir, network, options)
    if taken is not None:
        left = ", ".join(("channels", "grid", *taken.left))
        typer.echo(f"nnU-Net decides itself what the recipe says of: {left}")
    typer.echo(f"{path}: planned; next: {typed('train', 'run', work_dir, '-a', network)}")


def _network(named: str | None, taken: Taken | None) -> str:
    """Return the network that is planned for.

    Raises:
        UsageError: none is named, or the recipe has another one.
    """
    from flarekit.core.errors import UsageError

    network = named or (taken.architecture if taken else None)
    if network is None:
        raise UsageError("no network is named", fix="add --architecture NAME, or --recipe RECIPE")
    if taken is not None and taken.architecture != network:
        raise UsageError(
            f"--architecture {network}: the recipe's network is {taken.architecture}",
            fix="leave one of them out",
        )
    return network


@dataclass(frozen=True, kw_only=True)
class FoldRun:
    """How nnU-Net trains a fold; see `flarekit.training.nnunet.running.TrainOptions`."""

    configuration: str | None = None
    fold: str = "0"
    device: str = "auto"
    epochs: int | None = None
    iterations: int | None = None


def run(work_dir: Path, architecture: str, *, options: FoldRun) -> None:
    """Train a fold with nnU-Net; call it again after a kill to go on."""
    from flarekit.cli.console import typed
    from flarekit.training.nnunet.running import TrainOptions
    from flarekit.training.nnunet.running import run as train_fold

    result = train_fold(work_dir, architecture, TrainOptions(**vars(options)))
    typer.echo(f"{result}: trained; next: {typed('train', 'export', result, 'weights/NAME')}")
