"""Running statistics of batch normalisation, estimated anew for averaged weights."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


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
