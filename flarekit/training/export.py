"""From a training run to a predictor folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit import models
from flarekit.core.apart import keep_apart
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.spec import read_spec, write_spec
from flarekit.training.card import MADE, card
from flarekit.training.networks import as_predicted
from flarekit.training.recipe import Recipe, read_recipe
from flarekit.training.run_record import CHECKPOINT, RECIPE, keep_recipe, read_record
from flarekit.training.state import averaged_network
from flarekit.training.validation import read_measured

if TYPE_CHECKING:
    from torch import nn

_LOG = logging.getLogger(__name__)
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
        UsageError: the predictor folder is the run's own.
        OutputError: a file could not be written.
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
    export_network(recipe, network, effort, folder, provenance=provenance)
    text = card(recipe, read_spec(folder).spec, record, effort, measured)
    _write_card(folder / "CARD.md", text)
    return recipe


def export_network(
    recipe: Recipe,
    network: nn.Module,
    effort: Mapping[str, Any],
    folder: Path,
    *,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the same files but the card for a trained network that is at hand.

    Args:
        recipe: it was trained by.
        network: as trained, or as prediction builds it.
        effort: steps and minutes of training, for the provenance.
        folder: the predictor folder; files in it are replaced.
        provenance: data, licence and command; what the recipe says where None.

    Raises:
        OutputError: a file could not be written.
    """
    import torch

    make_folder(folder)
    weights = models.save_weights(
        as_predicted(network, recipe), folder / "model.safetensors", dtype=torch.float16
    )
    stated = recipe.provenance if provenance is None else provenance
    facts = {
        **recipe.predictor,
        "weights": weights,
        "provenance": {**stated, **effort, "stored_as": "fp16"},
        **_kept(folder),
    }
    write_spec(folder, facts, head=_HEAD)
    keep_recipe(recipe, folder)


def _kept(folder: Path) -> dict[str, Any]:
    """Return what stays of the facts that are replaced: the locator, what labels measure."""
    if not (folder / "predictor.toml").is_file():
        return {}
    spec = read_spec(folder).spec
    return spec.model_dump(mode="json", include={"locator", "expected"}, exclude_defaults=True)


def _write_card(path: Path, text: str) -> None:
    """Write a card; one that a person wrote is kept beside it."""
    before = path.read_bytes() if path.is_file() else b""
    if before and MADE.encode() not in before:
        kept = path.with_name("CARD.before.md")
        write_atomically(kept, before)
        _LOG.warning("%s speaks of other weights: it is kept as %s", path, kept.name)
    write_atomically(path, text.encode())
