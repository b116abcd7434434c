"""A recipe's network: as it is trained, and as prediction builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flarekit import models
from flarekit.core.errors import PredictorError
from flarekit.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

_MOST_NUMBERS = 500_000_000  # 2 GB: ten times the largest network of the papers


def as_trained(recipe: Recipe) -> nn.Module:
    """Return the network with random weights and every output that the loss looks at.

    Raises:
        PredictorError: the architecture does not take its arguments, or is too large.
    """
    try:
        with models.at_most(_MOST_NUMBERS):
            return _built(recipe)
    except models.TooLargeError as error:
        raise PredictorError(
            f"architecture {recipe.spec.architecture.name!r} has {error} in it",
            fix="correct [predictor.architecture.arguments]",
        ) from error


def _built(recipe: Recipe) -> nn.Module:
    architecture = recipe.spec.architecture
    if architecture.name not in models.built_in():  # gives what it likes, the finest first
        return models.build(architecture, recipe.folder, trusted=recipe.trusted)
    if architecture.name == "mamba_ahnet":  # one output in the paper, and the image
        only = {"reconstruction": recipe.regime.objective.reconstruction > 0}
    elif architecture.name in models.PEERS:  # one output
        only = {}
    else:
        only = {"deep_supervision": True}
    return models.create(architecture.name, **{**architecture.arguments, **only})


def as_predicted(trained: nn.Module, recipe: Recipe) -> nn.Module:
    """Return the network that prediction builds, without what only training needs."""
    network = models.build(recipe.spec.architecture, recipe.folder, trusted=recipe.trusted)
    copy_weights(trained, network)
    return network


def copy_weights(trained: nn.Module, network: nn.Module) -> None:
    """Copy every tensor that a network as predicted has from the one that is trained."""
    import torch

    tensors = models.own_tensors(trained)
    with torch.no_grad():
        for name, tensor in models.own_tensors(network).items():
            tensor.copy_(tensors[name])
