"""From a training run to a predictor folder."""

from __future__ import annotations

from pathlib import Path

from flarekit import models
from flarekit.core.files import make_folder
from flarekit.core.spec import write_spec
from flarekit.training.compact import averaged_network
from flarekit.training.recipe import Recipe

_HEAD = "Made by `python -m flarekit.training export`; edit recipe.toml, not this file."


def export_predictor(recipe: Recipe, checkpoint: Path, folder: Path) -> None:
    """Write `model.safetensors` (fp16) and `predictor.toml`; the card is written by a person.

    Args:
        recipe: what was trained.
        checkpoint: `checkpoint.pt` of the run.
        folder: the predictor folder; files in it are replaced.

    Raises:
        OutputError: a file could not be written.
    """
    import torch

    network, effort = averaged_network(recipe, checkpoint)
    make_folder(folder)
    weights = models.save_weights(network, folder / "model.safetensors", dtype=torch.float16)
    provenance = {**recipe.provenance, **effort, "stored_as": "fp16"}
    facts = {**recipe.predictor, "weights": weights, "provenance": provenance}
    write_spec(folder, facts, head=_HEAD)
