"""From a training run to a predictor folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit import models
from flarekit.core.apart import keep_apart
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.spec import read_spec, write_spec
from flarekit.training.compact import CHECKPOINT, RECIPE, averaged_network
from flarekit.training.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from torch import nn

_HEAD = "Made by `flarekit train export`; edit recipe.toml, not this file."


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run of the compact trainer."""
    return (folder / CHECKPOINT).is_file()


def export_predictor(run_dir: Path, folder: Path, recipe_path: Path | None = None) -> Recipe:
    """Write `model.safetensors` (fp16), `predictor.toml` and `recipe.toml`.

    The card is written by a person. Which steps and minutes the weights took, and which weights
    they began with, stands in the provenance.

    Args:
        run_dir: of the compact trainer.
        folder: the predictor folder; files in it are replaced.
        recipe_path: of the run; its own copy by default.

    Raises:
        InputError: no run there, or the recipe is not its.
        UsageError: the predictor folder is the run's own.
        OutputError: a file could not be written.
    """
    keep_apart(run_dir, folder, [], what="the folder of the run")
    recipe = read_recipe(recipe_path if recipe_path is not None else run_dir / RECIPE)
    network, effort = averaged_network(recipe, run_dir / CHECKPOINT)
    export_network(recipe, network, effort, folder)
    return recipe


def export_network(
    recipe: Recipe, network: nn.Module, effort: Mapping[str, Any], folder: Path
) -> None:
    """Write the same files for a trained network that is at hand.

    Args:
        recipe: it was trained by.
        network: as trained, or as prediction builds it.
        effort: steps and minutes of training, for the provenance.
        folder: the predictor folder; files in it are replaced.

    Raises:
        OutputError: a file could not be written.
    """
    import torch

    make_folder(folder)
    weights = models.save_weights(
        as_predicted(network, recipe), folder / "model.safetensors", dtype=torch.float16
    )
    provenance = {**recipe.provenance, **effort, "stored_as": "fp16"}
    facts = {**recipe.predictor, "weights": weights, "provenance": provenance, **_locator(folder)}
    write_spec(folder, facts, head=_HEAD)
    write_atomically(folder / RECIPE, recipe.text.encode())


def _locator(folder: Path) -> dict[str, Any]:
    """Return the `[locator]` of the facts that are replaced: the locator stays where it is."""
    if not (folder / "predictor.toml").is_file():
        return {}
    locator = read_spec(folder).spec.locator
    return {} if locator is None else {"locator": locator.model_dump(exclude_defaults=True)}


def as_predicted(trained: nn.Module, recipe: Recipe) -> nn.Module:
    """Return the network that prediction builds, without what only training needs."""
    import torch

    architecture = recipe.spec.architecture
    network = models.create(architecture.name, **architecture.arguments)
    tensors = models.own_tensors(trained)
    with torch.no_grad():
        for name, tensor in models.own_tensors(network).items():
            tensor.copy_(tensors[name])
    return network
