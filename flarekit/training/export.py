"""From a training run to a predictor folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from flarekit import models
from flarekit.core.files import sha256_of, write_atomically
from flarekit.training.compact import averaged_network
from flarekit.training.recipe import Recipe

_FILE = "model.safetensors"


def export_predictor(recipe: Recipe, checkpoint: Path, folder: Path) -> None:
    """Write `model.safetensors` (fp16) and `predictor.toml`; the card is written by a person.

    Args:
        recipe: what was trained.
        checkpoint: `checkpoint.pt` of the run.
        folder: the predictor folder; files in it are replaced.

    Raises:
        WeightsMismatchError: the checkpoint is not of this recipe's architecture.
        OutputError: a file could not be written.
    """
    import tomli_w
    import torch

    network, effort = averaged_network(recipe, checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / _FILE
        models.save_weights(network, weights, dtype=torch.float16)
        facts: dict[str, Any] = {
            **recipe.predictor,
            "weights": {
                "file": _FILE,
                "sha256": sha256_of(weights),
                "parameters": sum(p.numel() for p in network.parameters()),
            },
            "provenance": {**recipe.provenance, **effort, "stored_as": "fp16"},
        }
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, folder / f".{_FILE}.tmp")
        (folder / f".{_FILE}.tmp").replace(folder / _FILE)
    head = "# Made by `python -m flarekit.training export`; edit recipe.toml, not this file.\n\n"
    write_atomically(folder / "predictor.toml", (head + tomli_w.dumps(facts)).encode())
