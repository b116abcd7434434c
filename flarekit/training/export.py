"""From a training run to a predictor folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit import models
from flarekit.core.apart import keep_apart
from flarekit.core.files import files_together, write_atomically
from flarekit.core.spec import parse_spec, read_spec, write_spec
from flarekit.training.card import MADE, card
from flarekit.training.networks import as_predicted
from flarekit.training.recipe import Recipe, read_recipe
from flarekit.training.run_record import CHECKPOINT, RECIPE, keep_recipe, read_record
from flarekit.training.state import averaged_network
from flarekit.training.validation import read_measured

if TYPE_CHECKING:
    from torch import nn

_LOG = logging.getLogger(__name__)
FACTS = "predictor.toml"
_HEAD = "Made by `flarekit train export`; edit recipe.toml, not this file."


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run of the compact trainer."""
    return (folder / CHECKPOINT).is_file()


def export_predictor(
    run_dir: Path, folder: Path, recipe_path: Path | None = None, *, trust: bool = False
) -> Recipe:
    """Write `model.safetensors` (fp16), `predictor.toml`, `recipe.toml` and `CARD.md`.

    Data, minutes, command and figures are the run's own, for the card and for the provenance. A
    card that a person wrote is kept as `CARD.before.md`: it speaks of other weights.

    Args:
        run_dir: of the compact trainer.
        folder: the predictor folder; files in it are replaced.
        recipe_path: of the run; its own copy by default.
        trust: it may execute the class of its own that it names.

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
        facts = _write_network(recipe, network, effort, made, provenance, _kept(folder))
        spec = parse_spec(facts, source=str(folder / FACTS))
        _write_card(card(recipe, spec, record, effort, measured), made, folder / "CARD.md")
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
) -> dict[str, Any]:
    """Write weights, facts and recipe, and return the facts."""
    import torch

    weights = models.save_weights(
        as_predicted(network, recipe), folder / "model.safetensors", dtype=torch.float16
    )
    facts = {
        **recipe.predictor,
        "weights": weights,
        "provenance": {**provenance, **effort, "stored_as": "fp16"},
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
    if before and MADE.encode() not in before:
        kept = path.with_name("CARD.before.md")
        write_atomically(made / kept.name, before)
        _LOG.warning("%s speaks of other weights: it is kept as %s", path, kept.name)
    write_atomically(made / path.name, text.encode())
