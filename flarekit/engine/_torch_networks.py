"""Networks as a device runs them: half weights cast once, in the layout that suits it."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from flarekit.engine._torch_device import DTYPES


def placed(
    network: nn.Module, device: torch.device, precision: str, *, flat: bool
) -> tuple[nn.Module, torch.memory_format]:
    """Return a network on a device, and the layout that its input should have.

    Weights that autocast would cast for every batch, in half precision, are cast here, once.

    Args:
        network: float32 on the CPU; it stays as it is, and serves itself where that is asked for.
        device: where the copy goes.
        precision: of its arithmetic.
        flat: it is 2D.
    """
    if device.type == "cpu" and precision == "fp32":
        return network, torch.contiguous_format
    copied = copy.deepcopy(network).to(device)
    if precision != "fp32":
        cast_weights(copied, DTYPES[precision])
    layout = layout_of(copied, device, precision, flat=flat)
    return copied.to(memory_format=layout), layout  # type: ignore[call-overload]


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of convolutions and linear layers, except inside `float32_island`s.

    These are what autocast computes in half precision; norms and what stands alone stay float32.
    """
    if getattr(type(module), "float32_island", False):
        return
    if isinstance(module, _ConvNd | nn.Linear):
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(dtype)
    for child in module.children():
        cast_weights(child, dtype)


def layout_of(
    network: nn.Module, device: torch.device, precision: str, *, flat: bool
) -> torch.memory_format:
    """Return the layout in which a network runs fastest.

    Tensor cores want channels last, and BatchNorm keeps that; PyTorch's InstanceNorm undoes it, so
    that every convolution would copy its input.
    """
    channels_last = torch.channels_last if flat else torch.channels_last_3d
    if precision == "fp32":
        return torch.contiguous_format
    if device.type == "cpu":
        return torch.contiguous_format if flat else channels_last
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm | _InstanceNorm)]
    has_instance_norm = any(isinstance(norm, _InstanceNorm) for norm in norms)
    return channels_last if norms and not has_instance_norm else torch.contiguous_format
