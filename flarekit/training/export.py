"""From a training run to a predictor folder, whose card says nothing but what the run does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flarekit import models
from flarekit.core.apart import keep_apart
from flarekit.core.files import files_together, write_atomically
from flarekit.core.spec import PredictorSpec, parse_spec, read_spec, write_spec
from flarekit.training.networks import as_predicted
from flarekit.training.recipe import Recipe, read_recipe
from flarekit.training.run_record import CHECKPOINT, RECIPE, RunRecord, keep_recipe, read_record
from flarekit.training.state import averaged_network
from flarekit.training.validation import Measured, read_measured

if TYPE_CHECKING:
    from torch import nn

_LOG = logging.getLogger(__name__)
FACTS = "predictor.toml"
_HALF, _EIGHT_BITS = "fp16", "int8"  # how weights are stored, as facts say it
_HEAD = "Made by `flarekit train export`; edit recipe.toml, not this file."


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run of the compact trainer."""
    return (folder / CHECKPOINT).is_file()


def export_predictor(
    run_dir: Path,
    folder: Path,
    recipe_path: Path | None = None,
    *,
    trust: bool = False,
    eight_bits: bool = False,
) -> Recipe:
    """Write `model.safetensors`, `predictor.toml`, `recipe.toml` and `CARD.md`.

    Data, minutes, command and figures are the run's own, for the card and for the provenance. A
    card that a person wrote is kept as `CARD.before.md`: it speaks of other weights.

    Args:
        run_dir: of the compact trainer.
        folder: the predictor folder; files in it are replaced.
        recipe_path: of the run; its own copy by default.
        trust: it may execute the class of its own that it names.
        eight_bits: store the weights so, half as large as fp16, in place of that.

    Raises:
        InputError: no run there, or the recipe is not its.
        WeightsMismatchError: the training has diverged: some weights are not finite.
        UsageError: the predictor folder is the run's own.
        OutputError: a file could not be written; what was in the folder is as it was.
    """
    keep_apart(run_dir, folder, [], what="the folder of the run")
    path = recipe_path if recipe_path is not None else run_dir / RECIPE
    recipe = read_recipe(path, trust=trust)
    network, effort = averaged_network(recipe, run_dir / CHECKPOINT)
    record, measured = read_record(run_dir), read_measured(run_dir)
    if record is None:
        _LOG.warning(
            "%s does not say what it was trained on: the recipe's words are taken", run_dir
        )
        provenance = recipe.provenance
    else:
        provenance = record.provenance(recipe)
    if measured is not None and measured.scores and measured.step == effort["steps"]:
        effort = {**effort, "validation_dice": round(measured.mean, 3)}
    with files_together(folder, last=FACTS) as made:
        stored_as = _EIGHT_BITS if eight_bits else _HALF
        facts = _write_network(
            recipe, network, effort, made, provenance, _kept(folder), stored_as=stored_as
        )
        spec = parse_spec(facts, source=str(folder / FACTS))
        _write_card(_card(recipe, spec, record, effort, measured), made, folder / "CARD.md")
    return recipe


def export_network(
    recipe: Recipe, network: nn.Module, effort: Mapping[str, Any], folder: Path
) -> None:
    """Write the same files but the card for a trained network that is at hand.

    Args:
        recipe: it was trained by.
        network: as trained, or as prediction builds it.
        effort: steps and minutes of training, for the provenance.
        folder: the predictor folder; files in it are replaced.

    Raises:
        WeightsMismatchError: the network has diverged: some of its numbers are not finite.
        OutputError: a file could not be written.
    """
    with files_together(folder, last=FACTS) as made:
        _write_network(recipe, network, effort, made, recipe.provenance, _kept(folder))


def _write_network(
    recipe: Recipe,
    network: nn.Module,
    effort: Mapping[str, Any],
    folder: Path,
    provenance: Mapping[str, Any],
    kept: Mapping[str, Any],
    stored_as: str = _HALF,
) -> dict[str, Any]:
    """Write weights, facts and recipe, and return the facts."""
    import torch

    dtype = {_HALF: torch.float16, _EIGHT_BITS: torch.int8}[stored_as]
    weights = models.save_weights(
        as_predicted(network, recipe), folder / "model.safetensors", dtype=dtype
    )
    facts = {
        **recipe.predictor,
        "weights": weights,
        "provenance": {**provenance, **effort, "stored_as": stored_as},
        **kept,
    }
    write_spec(folder, facts, head=_HEAD)
    keep_recipe(recipe, folder)
    return facts


def _kept(folder: Path) -> dict[str, Any]:
    """Return what stays of the facts that are replaced: the locator, what labels measure."""
    if not (folder / FACTS).is_file():
        return {}
    spec = read_spec(folder).spec
    return spec.model_dump(mode="json", include={"locator", "expected"}, exclude_defaults=True)


def _write_card(text: str, made: Path, path: Path) -> None:
    """Write a card; one that a person wrote is kept beside it."""
    before = path.read_bytes() if path.is_file() else b""
    if before and _MADE.encode() not in before:
        kept = path.with_name("CARD.before.md")
        write_atomically(made / kept.name, before)
        _LOG.warning("%s speaks of other weights: it is kept as %s", path, kept.name)
    write_atomically(made / path.name, text.encode())


_MADE = "<!-- written by flarekit train export -->"


def _card(
    recipe: Recipe,
    spec: PredictorSpec,
    record: RunRecord | None,
    effort: Mapping[str, Any],
    measured: Measured | None,
) -> str:
    """Return the text of CARD.md; without record or validation it says that there was none."""
    parts = [
        f"# {spec.name}",
        f"{_MADE}\n\n{spec.title}",
        "\n".join(_facts(recipe, spec)),
        "## Training\n\n" + "\n".join([*_data(record), *_course(recipe, record, effort)]),
        "## Measured\n\n" + _figures(recipe, effort, measured),
        "## What it cannot do\n\n" + _limits(recipe, record),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(recipe: Recipe, spec: PredictorSpec) -> list[str]:
    grid, weights = spec.grid, spec.weights
    spacing = " x ".join(f"{mm:g}" if isinstance(mm, float) else mm for mm in grid.spacing_mm_ZYX)
    tile = " x ".join(map(str, grid.tile_ZYX))
    labels = ", ".join(f"{name} {value}" for name, value in spec.labels.items())
    channels = ", ".join(channel.name for channel in spec.channels)
    return [
        f"- **Input**: {channels}; **labels**: {labels}",
        f"- **Architecture**: `{spec.architecture.name}`, trained by the regime "
        f"`{recipe.training.regime}`; grid of {spacing} mm, tiles of {tile} voxels (Z, Y, X)",
        f"- **Weights**: `{weights.file}`, {weights.parameters:,} parameters as "
        f"{spec.provenance['stored_as']}, SHA-256 "
        f"`{weights.sha256}`",
    ]


def _data(record: RunRecord | None) -> list[str]:
    if record is None:
        return ["- **Data**: not recorded by this run"]
    held_out = ", ".join(record.held_out) or "none"
    validation = [case_id for each in record.folders for case_id in each.validation]
    return [
        f"- **Data**: {'; '.join(record.data)}",
        f"- **Not trained on**: for validation {', '.join(validation) or 'none'}; "
        f"held out {held_out}",
        f"- **Licence of the data**: {record.licence}",
    ]


def _course(recipe: Recipe, record: RunRecord | None, effort: Mapping[str, Any]) -> list[str]:
    devices = "; ".join(effort.get("devices", ())) or "a device that was not recorded"
    start = effort.get("start_sha256")
    began = f", from weights of SHA-256 `{start}`" if start else ", from random weights"
    lines = [
        f"- **Course**: {effort['steps']:,} steps in {effort['minutes']} minutes on {devices}"
        f"{began}",
        f"- **Samples**: {recipe.training.batch} per step, of "
        f"{' x '.join(map(str, recipe.training.tile_ZYX))} voxels",
    ]
    if recipe.training.stages:
        lines.append(f"- **Stages**: {'; '.join(_stages(recipe))}")
    if record is not None:
        lines += [
            f"- **Command**: `{record.command}`",
            f"- **Software**: flarekit {record.flarekit}, PyTorch {record.torch}",
        ]
    return lines


def _stages(recipe: Recipe) -> Iterator[str]:
    """Yield what each stage of the training was, with its share of the minutes."""
    whole = sum(stage.minutes for stage in recipe.training.stages)
    for facts, stage in zip(recipe.training.stages, recipe.stages, strict=True):
        training, optimiser = stage.training, stage.regime.optimiser
        spacing = " x ".join(f"{mm}" for mm in stage.spec.grid.spacing_mm_ZYX)
        tile = " x ".join(map(str, training.tile_ZYX))
        yield (
            f"{facts.minutes / whole:.0%} of the minutes on a grid of {spacing} mm, "
            f"steps of {training.batch} x {tile} voxels, {optimiser.kind} from "
            f"{optimiser.learning_rate:g}"
        )


def _figures(recipe: Recipe, effort: Mapping[str, Any], measured: Measured | None) -> str:
    if measured is None or not measured.scores:
        return "Nothing: the recipe sets no cases aside (`training.validation`)."
    rows = [
        f"| {name} | {np.mean(dice):.3f} | {min(dice):.3f} | {len(dice)} |"
        for name, dice in measured.per_label.items()
    ]
    never = [name for name in recipe.spec.labels if name not in measured.per_label]
    absent = f" No validation case has {', '.join(never)}." if never else ""
    when = (
        "These weights"
        if measured.step == effort["steps"]
        else f"The weights after {measured.step:,} steps (these took {effort['steps']:,}),"
    )
    return "\n".join(
        [
            f"{when} on {len(measured.scores)} validation case(s) that were never trained on: Dice "
            "on the network's grid, before any rule, in the training's own precision; the mean "
            f"over labels is {measured.mean:.3f}. Choices may have been made on these cases, so a "
            f"test on others can come out lower.{absent}",
            "",
            "| label | mean Dice | worst | cases |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )


def _limits(recipe: Recipe, record: RunRecord | None) -> str:
    lines = []
    if record is not None:
        count = sum(len(each.training) for each in record.folders)
        lines.append(
            f"- It has seen {count} labelled cases; nothing is known of scans unlike them."
        )
    partly = {name for names in recipe.training.labelled.values() for name in names}
    never = [name for name in recipe.training.unlabelled if name not in partly]
    if never:
        lines.append(f"- No case that it was trained on had labels of {', '.join(never)}.")
    if any(set(names) < set(recipe.spec.labels) for names in recipe.training.labelled.values()):
        lines.append(
            "- Some of its cases have labels of some organs only: `training.labelled` in "
            "recipe.toml says which."
        )
    lines.append("- Not a medical device.")
    return "\n".join(lines)
