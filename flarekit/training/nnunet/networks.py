"""Our architectures as nnU-Net's plans name them: `flarekit.training.nnunet.networks.att_umamba`.

The first ones take the arguments that nnU-Net plans for its own U-Nets; its operators are checked,
not used: ours have the same ones built in. The others have a width instead of a topology.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from flarekit import models
from flarekit.core.errors import PredictorError

PLANNED = ("umamba", "att_umamba", "mamba_clinix")
_OPERATORS: dict[str, tuple[Any, ...]] = {
    "conv_op": (None, nn.Conv2d, nn.Conv3d),
    "conv_bias": (True,),
    "norm_op": (None, nn.InstanceNorm2d, nn.InstanceNorm3d),
    "norm_op_kwargs": (None, {"eps": 1e-5, "affine": True}),
    "dropout_op": (None,),
    "dropout_op_kwargs": (None, {}),
    "nonlin": (None, nn.LeakyReLU),
    "nonlin_kwargs": (None, {"inplace": True}),
}


def try_network(
    architecture: str, configuration: Mapping[str, Any], channels: int, classes: int
) -> None:
    """Build a network as it was planned; where it can be, without memory for its weights.

    Args:
        architecture: `nnunet`, whose network nnU-Net builds, is not tried.
        configuration: of plans.
        channels: of the dataset.
        classes: of the network.

    Raises:
        PredictorError: it does not take these arguments.
    """
    if architecture == "nnunet":
        return
    arguments = configuration["architecture"]["arch_kwargs"]
    plain = {name: value for name, value in arguments.items() if name not in _OPERATORS}
    with torch.device("cpu" if architecture in models.PEERS else "meta"):
        globals()[architecture](input_channels=channels, num_classes=classes, **plain)


def umamba(**arguments: Any) -> nn.Module:  # noqa: ANN401
    """Return U-Mamba for nnU-Net's arguments."""
    return _planned("umamba", arguments)


def att_umamba(**arguments: Any) -> nn.Module:  # noqa: ANN401
    """Return Att-UMamba for nnU-Net's arguments."""
    return _planned("att_umamba", arguments)


def mamba_clinix(**arguments: Any) -> nn.Module:  # noqa: ANN401
    """Return MambaClinix for nnU-Net's arguments."""
    return _planned("mamba_clinix", arguments)


def attention_unet(**arguments: Any) -> nn.Module:  # noqa: ANN401
    """Return the FLARE23 attention U-Net."""
    return models.create("attention_unet", **arguments)


def mpu_net(**arguments: Any) -> nn.Module:  # noqa: ANN401
    """Return MPU-Net."""
    return models.create("mpu_net", **arguments)


def mamba_ahnet(*, deep_supervision: bool = False, **arguments: Any) -> nn.Module:  # noqa: ANN401, ARG001
    """Return Mamba-AHNet, which has one supervised output whatever nnU-Net asks."""
    return models.create("mamba_ahnet", **arguments)


def segresnet(*, deep_supervision: bool = False, **arguments: Any) -> nn.Module:  # noqa: ANN401, ARG001
    """Return MONAI's SegResNet, which has one output whatever nnU-Net asks."""
    return models.create("segresnet", **arguments)


def unetr(*, deep_supervision: bool = False, **arguments: Any) -> nn.Module:  # noqa: ANN401, ARG001
    """Return MONAI's UNETR, which has one output whatever nnU-Net asks."""
    return models.create("unetr", **arguments)


def swin_unetr(*, deep_supervision: bool = False, **arguments: Any) -> nn.Module:  # noqa: ANN401, ARG001
    """Return MONAI's SwinUNETR, which has one output whatever nnU-Net asks."""
    return models.create("swin_unetr", **arguments)


def _planned(name: str, arguments: dict[str, Any]) -> nn.Module:
    given = dict(arguments)
    for key, known in _OPERATORS.items():
        value = given.pop(key, known[0])
        if value not in known:
            raise PredictorError(
                f"{name} has no {key} {value!r}", fix="plan it again with flarekit train plan"
            )
    blocks = given.pop("n_blocks_per_stage", None)
    if blocks is not None:
        given["n_conv_per_stage"] = blocks
    return models.create(name, **given)
