"""`flarekit train`: the compact trainer; nnU-Net with our networks; export to a predictor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from flarekit.cli.first_recipe import init
from flarekit.cli.help import App
from flarekit.cli.locators import locator
from flarekit.cli.nnunet_training import plan, run
from flarekit.cli.options import CHECKPOINT
from flarekit.cli.train_requests import CompactRun, Sources

app = App(help="Train a network and make a predictor folder of it.")


app.command()(init)


@app.command()
def compact(options: CompactRun, sources: Sources, quiet: bool = False) -> None:
    """Train on a small machine for a set time; call it again after a kill to go on.

    Recipe and data are compared before anything is prepared. The time begins when all cases are
    prepared, and does not count validation.
    """
    from flarekit.cli.console import Console
    from flarekit.cli.training import run_compact
    from flarekit.core.apart import keep_apart
    from flarekit.core.errors import UsageError

    start, run_dir = options.start, sources.run_dir
    for folder in (sources.dataset, *sources.others, *((start,) if start else ())):
        keep_apart(folder, run_dir, [], what="a folder that the training reads")
    if (run_dir / "predictor.toml").exists():
        raise UsageError(
            f"{run_dir}: is a predictor folder, whose recipe would be replaced",
            fix="name a folder of the run's own",
        )
    run_compact(sources, options, Console(quiet=quiet))


@app.command()
def recipes() -> None:
    """List the recipes of the papers' networks and tasks, which train compact takes by name."""
    from flarekit.training.recipe import paper_recipes, read_recipe

    for name, path in paper_recipes().items():
        typer.echo(f"{name:30} {read_recipe(path).spec.title}")


@dataclass(frozen=True, kw_only=True)
class Export:
    """How an nnU-Net result is exported; see `flarekit.importing.ImportOptions`."""

    convention: str = "flare"
    folds: Any = None
    checkpoint: str = CHECKPOINT


@app.command()
def export(
    source: Path,
    folder: Path,
    recipe: Path | None = None,
    eight_bits: bool = False,
    trust: bool = False,
    quiet: bool = False,
    *,
    options: Export,
) -> None:
    """Make a predictor folder of what was trained, with a card of the run's own figures."""
    from flarekit.cli.console import Console, typed
    from flarekit.cli.training import export_result
    from flarekit.core.errors import UsageError
    from flarekit.importing import ImportOptions
    from flarekit.training.export import export_predictor, is_run

    console = Console(quiet=quiet)
    compact_run = recipe is not None or is_run(source)
    if compact_run and options != Export():
        raise UsageError(
            "--convention, --folds and --checkpoint apply to an nnU-Net result; the recipe of a "
            "run says its convention, and it has one checkpoint",
            fix="leave them out, or correct predictor.convention in the run's recipe.toml",
        )
    if eight_bits and not compact_run:
        raise UsageError(
            "--eight-bits applies to a run of train compact; an nnU-Net result keeps its numbers",
            fix="leave it out",
        )
    with console.spinner(f"exporting {source.name}"):
        if compact_run:
            export_predictor(source, folder, recipe, trust=trust, eight_bits=eight_bits)
        else:
            export_result(source, folder, ImportOptions(name=folder.name, **vars(options)))
    step = typed("predict", "-p", folder, "-i", "SCANS", "-o", "MASKS")
    console.say(f"{folder}: made; read {folder / 'CARD.md'}; next: {step}")


@app.command()
def expected(predictor: str, datasets: list[Path], crops: bool = False) -> None:
    """Measure the labels of the training cases, so that unusual masks are flagged.

    Volumes, mean intensities, second components and cuts by the scan's edge go into the predictor's
    facts. Cases that its recipe keeps apart are left out.
    """
    from flarekit.cli.console import Console
    from flarekit.segmentation.predictors import find_predictor
    from flarekit.training import expected as measuring

    found = find_predictor(predictor)
    cases = {folder: measuring.training_ids(found, folder) for folder in datasets}
    with Console().spinner("measuring labels"):
        labels = measuring.expected_of(found, cases, crops=crops)
    measuring.write_expected(found, labels)
    count = sum(map(len, cases.values()))
    typer.echo(f"{found.folder}: {len(labels)} labels, measured in {count} cases")


@app.command()
def gate(
    predictor: str,
    datasets: list[Path],
    label: str | None = None,
    channel: str | None = None,
    lost: float = 0.01,
) -> None:
    """Measure how training lesions are shaped, so that components unlike all of them are dropped.

    Volume, extent, compactness and intensity of every labelled lesion go into the predictor's facts
    as the rule shape_gate. Cases that its recipe keeps apart are left out.
    """
    from flarekit.cli.console import Console
    from flarekit.segmentation.predictors import find_predictor
    from flarekit.training.gate import fit_gate, write_gate

    found = find_predictor(predictor)
    with Console().spinner("measuring lesions"):
        fitted = fit_gate(found, datasets, label=label, channel=channel, lost=lost)
    write_gate(found, fitted)
    typer.echo(
        f"{found.folder}: {fitted.gate.components} lesions measured; components further than "
        f"{fitted.most:g} from them are dropped, which keeps {fitted.kept:.1%} of these"
    )


for _command in (locator, plan, run):
    app.command()(_command)
