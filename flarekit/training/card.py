"""The card of a predictor that was trained here: nothing in it but what its own run says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flarekit.core.spec import PredictorSpec
from flarekit.training.recipe import Recipe
from flarekit.training.run_record import RunRecord
from flarekit.training.validation import Measured

MADE = "<!-- written by flarekit train export -->"


def card(
    recipe: Recipe,
    spec: PredictorSpec,
    record: RunRecord | None,
    effort: Mapping[str, Any],
    measured: Measured | None,
) -> str:
    """Return the text of CARD.md.

    Args:
        recipe: of the run.
        spec: the predictor as exported.
        record: what the run was made of; None where its folder does not say.
        effort: of the weights: steps, minutes, devices, what they began with.
        measured: validation of the run; None where there was none.
    """
    parts = [
        f"# {spec.name}",
        f"{MADE}\n\n{spec.title}",
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
        f"- **Weights**: `{weights.file}`, {weights.parameters:,} parameters as fp16, SHA-256 "
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
    if record is not None:
        lines += [
            f"- **Command**: `{record.command}`",
            f"- **Software**: flarekit {record.flarekit}, PyTorch {record.torch}",
        ]
    return lines


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
