"""A recipe's network: as it is trained, as prediction builds it, and its averaged statistics."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from flarekit import models
from flarekit.core.errors import PredictorError
from flarekit.training.recipe import Recipe

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
    tensors = models.own_tensors(trained)
    with torch.no_grad():
        for name, tensor in models.own_tensors(network).items():
            tensor.copy_(tensors[name])


@torch.no_grad()
def estimate_statistics(
    network: nn.Module, images: Iterable[torch.Tensor], dtype: torch.dtype = torch.float32
) -> int:
    """Give a network's batch normalisations the mean statistics of batches, in place of their own.

    Running statistics follow the weights of the last few steps, and one batch that overflows stays
    in them for good. Averaged weights need statistics of their own, as in Izmailov et al.,
    "Averaging Weights Leads to Wider Optima and Better Generalization", 2018, section 3.2.
    Nothing happens to a network without batch normalisation; no image is drawn for it.

    Args:
        network: in any mode, which it is left in.
        images: batches (N, C, Z, Y, X) or (N, C, Y, X), as in training.
        dtype: of autocast; float32 means none.

    Returns:
        The number of batches taken; 0 where there is no batch normalisation, or no batch.
    """
    layers = [
        layer
        for layer in network.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    ]
    if not layers:
        return 0
    was_training = {module: module.training for module in network.modules()}
    momenta = {layer: layer.momentum for layer in layers}
    network.eval()
    taken = 0
    try:
        for image in images:
            for layer in layers:
                if not taken:
                    layer.reset_running_stats()
                layer.train()
                layer.momentum = None  # a mean over all batches
            with torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
                network(image)
            taken += 1
    finally:
        for module, training in was_training.items():
            module.training = training
        for layer, momentum in momenta.items():
            layer.momentum = momentum
    return taken
