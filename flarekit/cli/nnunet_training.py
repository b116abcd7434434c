"""`flarekit train plan` and `train run`: nnU-Net plans, preprocesses and trains our networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flarekit.cli.options import OneDevice, spread

if TYPE_CHECKING:
    from flarekit.training.nnunet.from_recipe import Taken

_Architecture = Annotated[
    str,
    typer.Option("--architecture", "-a", help="One of the networks, trained as its paper does."),
]
_Configuration = Annotated[
    str | None,
    typer.Option(help="nnU-Net configuration; by default 3d_fullres, or 2d for 2D networks."),
]


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What nnU-Net plans for; see `flarekit.training.nnunet.planning.PlanOptions`."""

    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture", "-a", help="One of the networks, trained as its paper does."
        ),
    ] = None
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Recipe, or a name of train recipes: its network, loss, optimiser, schedule and "
            "folds; nnU-Net decides the rest."
        ),
    ] = None
    configuration: _Configuration = None
    gpu_memory: Annotated[
        float | None,
        typer.Option(help="GPU memory in GB that nnU-Net chooses patch sizes for; by default 8."),
    ] = None
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "Label that the cases do not have, so that predicting it is never counted as "
                "wrong; may be given several times."
            )
        ),
    ] = None
    width: Annotated[
        float | None,
        typer.Option(
            help=(
                "Width of attention_unet, mpu_net or mamba_ahnet as a share of the paper's; 1 is "
                "full width."
            )
        ),
    ] = None
    argument: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Argument of the network, such as mamba=enc or "
            'blocks=\'["conv", "hgcn", "mamba"]\'; may be given several times. '
            "docs/papers.md lists them.",
        ),
    ] = None
    processes: Annotated[int, typer.Option(min=1, help="Processes that preprocess the cases.")] = 2


@spread
def plan(
    dataset: Annotated[Path, typer.Argument(help="nnU-Net raw layout, named DatasetNNN_Name.")],
    work_dir: Annotated[Path, typer.Argument(help="Folder that gets nnU-Net's folders.")],
    *,
    planning: Planning,
) -> None:
    """Let nnU-Net plan and preprocess a dataset, for one of our networks."""
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
    typer.echo(f"{path}: planned; next: flarekit train run {work_dir} -a {network}")


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

    configuration: _Configuration = None
    fold: Annotated[str, typer.Option(help="Fold to train: 0 to 4, or all.")] = "0"
    device: OneDevice = "auto"
    epochs: Annotated[
        int | None, typer.Option(help="Epochs to train; the paper's number by default.")
    ] = None
    iterations: Annotated[int | None, typer.Option(help="Steps per epoch.")] = None


@spread
def run(
    work_dir: Annotated[Path, typer.Argument(help="Folder that flarekit train plan has filled.")],
    architecture: _Architecture,
    *,
    options: FoldRun,
) -> None:
    """Train a fold with nnU-Net; call it again after a kill to go on."""
    from flarekit.training.nnunet.running import TrainOptions
    from flarekit.training.nnunet.running import run as train_fold

    result = train_fold(work_dir, architecture, TrainOptions(**vars(options)))
    typer.echo(f"{result}: trained; next: flarekit train export {result} weights/NAME")
