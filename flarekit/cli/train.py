"""`flarekit train`: the compact trainer; nnU-Net with our networks; export to a predictor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flarekit.cli.options import CHECKPOINT, Checkpoint, Folds, OneDevice, spread

if TYPE_CHECKING:
    from flarekit.cli.console import Console
    from flarekit.importing import ImportOptions

app = typer.Typer(
    help="Train a network and make a predictor folder of it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Architecture = Annotated[
    str,
    typer.Option("--architecture", "-a", help="One of the networks, trained as its paper does."),
]
_Configuration = Annotated[
    str | None, typer.Option(help="nnU-Net's; 3d_fullres, or 2d for 2D networks, by default.")
]


@dataclass(frozen=True, kw_only=True)
class CompactRun:
    """How a compact run is made; see `flarekit.training.compact.RunOptions`."""

    minutes: Annotated[
        float, typer.Option(help="Training time in all, runs that were killed counted in.")
    ] = 75
    start: Annotated[
        Path | None,
        typer.Option(help="Predictor folder, of the same network, whose weights to begin with."),
    ] = None
    device: OneDevice = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(
            help="auto: bf16 where the device computes in it, else fp16 on CUDA, fp32 on a CPU."
        ),
    ] = "auto"


@app.command()
@spread
def compact(
    recipe_path: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A recipe, such as a predictor's recipe.toml.")
    ],
    dataset: Annotated[
        Path,
        typer.Argument(
            help="nnU-Net raw layout (imagesTr, labelsTr); where the recipe names several "
            "datasets, the folder that holds them."
        ),
    ],
    run_dir: Annotated[
        Path,
        typer.Argument(help="Folder that gets the checkpoint, the curve and a copy of the recipe."),
    ],
    *,
    options: CompactRun,
    material: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that the recipe's synthesis works on; may be given again."),
    ] = None,
    negatives: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of CTs that show none of the labels; may be given again."),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps prepared cases, which several runs may share; "
            "RUN_DIR/cases by default."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Processes that prepare the cases before training begins.")
    ] = 2,
) -> None:
    """Train on a small machine for a set time; call it again after a kill to go on.

    The time begins when all cases are prepared.
    """
    from flarekit.cli.console import Console
    from flarekit.core.apart import keep_apart
    from flarekit.core.errors import UsageError
    from flarekit.training.compact import RunOptions, train
    from flarekit.training.recipe import read_recipe
    from flarekit.training.sources import make_all, training_pools

    console, start = Console(), options.start
    recipe = read_recipe(recipe_path)
    for folder in (dataset, *(material or ()), *(negatives or ()), *((start,) if start else ())):
        keep_apart(folder, run_dir, [], what="a folder that the training reads")
    if (run_dir / "predictor.toml").exists():
        raise UsageError(
            f"{run_dir}: is a predictor folder, whose recipe would be replaced",
            fix="name a folder of the run's own",
        )
    pools = training_pools(recipe, dataset, material or (), negatives or ())
    make_all(pools, cases or run_dir / "cases", processes)
    progress = _Progress(console, options.minutes)
    train(recipe, pools, run_dir, RunOptions(**vars(options)), progress=progress)
    console.say(f"trained: {run_dir}; next: flarekit train export {run_dir} weights/NAME")


class _Progress:
    """Prints one line about the training every half minute."""

    def __init__(self, console: Console, minutes: float) -> None:
        self._console = console
        self._minutes = minutes
        self._said = -1.0
        self._mean: float | None = None

    def __call__(self, step: int, minutes: float, loss: float) -> None:
        self._mean = loss if self._mean is None else 0.95 * self._mean + 0.05 * loss
        if minutes - self._said >= 0.5:
            self._said = minutes
            self._console.say(
                f"step {step}, {minutes:.1f} of {self._minutes:g} min, loss {self._mean:.3f}"
            )


@app.command()
def plan(
    dataset: Annotated[Path, typer.Argument(help="nnU-Net raw layout, named DatasetNNN_Name.")],
    work_dir: Annotated[Path, typer.Argument(help="Folder that gets nnU-Net's folders.")],
    architecture: _Architecture,
    configuration: _Configuration = None,
    gpu_memory: Annotated[
        float | None, typer.Option(help="GB that nnU-Net sizes patches for; 8 by default.")
    ] = None,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(help="A label that the cases do not have: never punished. May be repeated."),
    ] = None,
    width: Annotated[
        float | None, typer.Option(help="Of attention_unet, mpu_net and mamba_ahnet; 1 is full.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Processes that preprocess the cases.")] = 2,
) -> None:
    """Let nnU-Net plan and preprocess a dataset, for one of our networks."""
    from flarekit.training.nnunet.planning import PlanOptions
    from flarekit.training.nnunet.planning import plan as make_plan

    options = PlanOptions(
        configuration=configuration,
        gpu_memory_gb=gpu_memory,
        unlabelled=tuple(unlabelled or ()),
        processes=processes,
        arguments={} if width is None else {"width": width},
    )
    path = make_plan(dataset, work_dir, architecture, options)
    typer.echo(f"{path}: planned; next: flarekit train run {work_dir} -a {architecture}")


@dataclass(frozen=True, kw_only=True)
class FoldRun:
    """How nnU-Net trains a fold; see `flarekit.training.nnunet.running.TrainOptions`."""

    configuration: _Configuration = None
    fold: Annotated[str, typer.Option(help="0 to 4, or all.")] = "0"
    device: OneDevice = "auto"
    epochs: Annotated[
        int | None, typer.Option(help="Epochs to train; the paper's number by default.")
    ] = None
    iterations: Annotated[int | None, typer.Option(help="Steps per epoch.")] = None


@app.command()
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


@dataclass(frozen=True, kw_only=True)
class Export:
    """How an nnU-Net result is exported; see `flarekit.importing.ImportOptions`."""

    convention: Annotated[
        str, typer.Option(help="Of an nnU-Net result: the predictor's default convention.")
    ] = "flare"
    folds: Folds = None
    checkpoint: Checkpoint = CHECKPOINT


@app.command()
@spread
def export(
    source: Annotated[Path, typer.Argument(help="Folder of a run, or an nnU-Net result folder.")],
    folder: Annotated[Path, typer.Argument(help="The predictor folder to make.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Of a compact run; by default the copy in its folder.")
    ] = None,
    *,
    options: Export,
) -> None:
    """Make a predictor folder of what was trained."""
    from flarekit.training.export import export_predictor, is_run

    if recipe is not None or is_run(source):
        export_predictor(source, folder, recipe)
    else:
        from flarekit.importing import ImportOptions

        _export_result(source, folder, ImportOptions(name=folder.name, **vars(options)))
    typer.echo(f"{folder}: made; complete {folder / 'CARD.md'}")


def _export_result(result: Path, folder: Path, options: ImportOptions) -> None:
    """Make a predictor of an nnU-Net result folder, whichever of our networks it holds."""
    from flarekit.core.json_files import read_json
    from flarekit.importing import import_predictor
    from flarekit.importing.checkpoint import load_checkpoint, state_dict_of
    from flarekit.importing.nnunet import fold_files
    from flarekit.training.nnunet.result import is_ours, read_result

    plans = read_json(result / "plans.json") if result.is_dir() else {}
    if not is_ours(plans, result):  # nnU-Net's own networks, and those told by their tensors
        import_predictor(result, folder, options)
        return
    from flarekit.importing.plans import read_configuration
    from flarekit.importing.writing import write_predictor

    dataset, paths = read_json(result / "dataset.json"), fold_files(result, options)
    contents = [load_checkpoint(path) for path in paths]
    weights = [
        state_dict_of(content, path, field="network_weights")
        for content, path in zip(contents, paths, strict=True)
    ]
    ours = read_result(result, plans, dataset, contents, weights)
    configuration = read_configuration(ours.plans, ours.configuration, source=ours.source)
    facts = {
        "name": options.name,
        "title": f"{ours.plans['dataset_name']}, {ours.architecture}",
        "convention": options.convention,
        "architecture": {"name": ours.architecture, "arguments": ours.arguments},
        "channels": configuration.channels(list(ours.channel_names.values())),
        "crop": {"kind": "nonzero"},
        "grid": configuration.grid(ours.mirror_axes),
        "nnunet": configuration.arithmetic(),
        "labels": ours.labels,
        "provenance": {"imported_from": result.name, "trainer": ours.trainer},
    }
    write_predictor(folder, facts, ours.networks, source=result)
