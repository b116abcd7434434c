"""Att-UMamba: U-Mamba with attention gates on the skips, for whole-body PET/CT lesions.

The Att-UMamba paper (autoPET), section on the network; gates after Oktay et al. 2018. Mamba stands
at the bottleneck in the paper (`mamba="bot"`, the default) and after every encoder stage in the
authors' repository (`mamba="enc"`). Modules have the authors' names.

Float32 islands under half precision: every Mamba layer.
"""

from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from flarekit.models import umamba

_Conv = type[nn.Conv2d | nn.Conv3d]


class AttentionGate(nn.Module):
    """Weigh every voxel of a skip by how well it agrees with the decoder's features.

    alpha = sigmoid(psi(ReLU(W_g g + W_x x))), one number per voxel; the skip times alpha.
    """

    def __init__(self, conv: _Conv, channels: int) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if conv is nn.Conv2d else nn.BatchNorm3d
        self.W_g = nn.Sequential(conv(channels, channels, 1), norm(channels))
        self.W_x = nn.Sequential(conv(channels, channels, 1), norm(channels))
        self.psi = nn.Sequential(conv(channels, 1, 1), norm(1), nn.Sigmoid())

    def forward(self, raised: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return the gated skip; both inputs are (B, channels, ...) of one size."""
        alpha = self.psi(functional.relu(self.W_g(raised) + self.W_x(skip)))
        gated: torch.Tensor = skip * alpha
        return gated


@wraps(umamba.create, assigned=(), updated=())  # so that its signature is that one's
def create(**arguments: Any) -> nn.Module:  # noqa: ANN401 - umamba's, which checks them
    """Build the network; arguments as in `flarekit.models.umamba.create`.

    Raises:
        ValueError: the arguments contradict each other.
        TypeError: one is missing or unknown.
    """
    network = umamba.create(**arguments)
    gates = []
    for head in network.decoder.seg_layers:
        assert isinstance(head, nn.Conv2d | nn.Conv3d)
        gates.append(AttentionGate(type(head), head.in_channels))
    network.decoder.attention_gates = nn.ModuleList(gates)
    return network
