"""Our architectures as nnU-Net's plans name them: `flarekit.training.nnunet.networks.att_umamba`.

Those of `PLANNED` take the arguments that nnU-Net plans for its own U-Nets; its operators are
checked, not used: ours have the same ones built in. The others have a width instead of a topology.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from flarekit import models
from flarekit.core.errors import PredictorError

PLANNED = ("umamba", "att_umamba", "mamba_clinix")
_ONE_OUTPUT = ("mamba_ahnet", *models.PEERS)  # whatever nnU-Net asks
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
        __getattr__(architecture)(input_channels=channels, num_classes=classes, **plain)


def __getattr__(name: str) -> Callable[..., nn.Module]:
    """Return what builds an architecture for nnU-Net's arguments, under its own name."""
    if name not in models.names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_planned if name in PLANNED else _built, name)


def _built(name: str, **arguments: Any) -> nn.Module:  # noqa: ANN401
    if name in _ONE_OUTPUT:
        arguments.pop("deep_supervision", None)
    return models.create(name, **arguments)


def _planned(name: str, **given: Any) -> nn.Module:  # noqa: ANN401
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
