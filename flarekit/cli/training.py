"""What `flarekit train compact` and `export` do."""

from pathlib import Path

from flarekit.cli.console import Console, typed
from flarekit.cli.train_requests import CompactRun, Sources
from flarekit.importing import ImportOptions
from flarekit.training.compact import RunOptions, check_run, train
from flarekit.training.fitting import check_fit, check_folders
from flarekit.training.recipe import Recipe, read_recipe
from flarekit.training.run_record import begin_record
from flarekit.training.sources import make_all, material_files, training_pools, validation_pool
from flarekit.training.validation import Validation

_USUAL_MINUTES = 75.0


def run_compact(sources: Sources, told: CompactRun, console: Console) -> None:
    """Train by what was typed; see `run_training`."""
    recipe = read_recipe(sources.recipe_path, trust=sources.trust)
    stages = sum(stage.minutes for stage in recipe.training.stages)
    minutes = (stages or _USUAL_MINUTES) if told.minutes is None else told.minutes
    run_training(recipe, sources, RunOptions(**{**vars(told), "minutes": minutes}), console)


def run_training(recipe: Recipe, sources: Sources, options: RunOptions, console: Console) -> None:
    """Compare recipe and data, prepare the cases, train, and say what comes next."""
    run_dir = sources.run_dir
    dataset, material, negatives = sources.dataset, sources.material or (), sources.negatives or ()
    check_folders(recipe, material, negatives)
    with console.bar("label maps") as progress:
        folders = check_fit(recipe, dataset, sources.others, progress)
    pools = training_pools(recipe, dataset, material, negatives)
    aside = validation_pool(recipe, dataset)
    check_run(recipe, run_dir, options)
    begin_record(run_dir, recipe, folders, _others(recipe, sources), _command(sources, options))
    with console.bar("cases") as progress:
        prepared = sources.cases or run_dir / "cases"
        make_all([*pools, aside], prepared, sources.processes, progress)
    validation = Validation(recipe, aside.cases, run_dir) if len(aside.cases) else None
    show = _Progress(console, options.minutes)
    train(recipe, pools, run_dir, options, validation=validation, progress=show)
    console.say(f"trained: {run_dir}; next: {typed('train', 'export', run_dir, 'weights/NAME')}")


def _others(recipe: Recipe, sources: Sources) -> dict[str, int]:
    """Return how many cases there are beside the labelled ones, by what they are."""
    facts, found = recipe.training, dict[str, int]()
    if facts.phantom_share:
        first, end = facts.phantom_seeds
        found[f"phantom CTs (seeds {first} to {end - 1} of flarekit.phantom)"] = end - first
    if facts.synthesis is not None:
        first, end = facts.synthesis.seeds
        found[f"synthetic cases ({facts.synthesis.kind})"] = end - first
    if facts.negatives is not None:
        folders, held_out = sources.negatives or (), facts.held_out
        scans = [path for folder in folders for path in material_files(folder, held_out)]
        found["scans that show none of the labels"] = len(scans)
    return found


def _command(sources: Sources, options: RunOptions) -> str:
    """Return what was typed, with the names of files and folders in place of their paths."""
    named = {"--material": sources.material, "--negatives": sources.negatives}
    named["--start"] = [] if options.start is None else [options.start]
    further = [
        word
        for option, paths in named.items()
        for path in paths or ()
        for word in (option, path.resolve().name)
    ]
    data = (sources.recipe_path.name, sources.dataset.resolve().name, "RUN_DIR")
    return typed("train", "compact", *data, "--minutes", f"{options.minutes:g}", *further)


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


def export_result(result: Path, folder: Path, options: ImportOptions) -> None:
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
