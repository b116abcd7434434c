"""The blocks of MPU-Net: position attention, attention gate, two receptive fields.

Shape letters and the paper: see `flarekit.models.mpu_net`.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.nn import functional

_HEADS = 8
_PATCH_GRID = (6, 32, 32)  # the deepest grid of the authors' 48x256x256 window
QUERIES_AT_ONCE = 1024


class PositionAttention(nn.Module):
    """Every voxel attends to every other; added to the input by a learned factor from 0.

    Queries are taken 1024 at a time: where PyTorch has no fused kernel, as on CPUs where values are
    wider than queries, it holds 1024 x N weights, not N x N.
    """

    def __init__(self, channels: int, *, paper_parts: Collection[str]) -> None:
        super().__init__()
        multi_head = "multi_head" in paper_parts
        narrow = channels if multi_head else channels // 8
        self.heads = _HEADS if multi_head else 1
        self.scale = (narrow // self.heads) ** -0.5 if multi_head else 1.0
        self.query_conv = nn.Conv3d(channels, narrow, 1)
        self.key_conv = nn.Conv3d(channels, narrow, 1)
        self.value_conv = nn.Conv3d(channels, channels, 1)
        self.join = nn.Conv3d(channels, channels, 1) if multi_head else nn.Identity()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.embedding: nn.Parameter | None = None
        if "position_embedding" in paper_parts:
            self.embedding = nn.Parameter(0.02 * torch.randn(1, channels, *_PATCH_GRID))

    def forward(self, features_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return features of the input's shape."""
        if self.embedding is not None:
            features_BCZYX = features_BCZYX + resized(self.embedding, features_BCZYX)
        query_BHND = self._tokens(self.query_conv(features_BCZYX))
        key_BHND = self._tokens(self.key_conv(features_BCZYX))
        value_BHND = self._tokens(self.value_conv(features_BCZYX))
        rows = [
            functional.scaled_dot_product_attention(some, key_BHND, value_BHND, scale=self.scale)
            for some in query_BHND.split(QUERIES_AT_ONCE, dim=2)
        ]
        attended_BHDN = torch.cat(rows, dim=2).transpose(2, 3)
        attended = self.join(attended_BHDN.reshape(features_BCZYX.shape))
        return torch.add(self.gamma * attended, features_BCZYX)

    def _tokens(self, features_BCZYX: torch.Tensor) -> torch.Tensor:
        batch, channels = features_BCZYX.shape[:2]
        return features_BCZYX.reshape(batch, self.heads, channels // self.heads, -1).transpose(2, 3)


class AttentionGate(nn.Module):
    """Multiply features by weights in (0, 1) seen from them and a guiding feature (Eq. 10-12)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.of_features = nn.Sequential(nn.Conv3d(channels, inner, 1), nn.BatchNorm3d(inner))
        self.of_guide = nn.Sequential(nn.Conv3d(channels, inner, 1), nn.BatchNorm3d(inner))
        self.weigh = nn.Sequential(nn.Conv3d(inner, 1, 1), nn.BatchNorm3d(1), nn.Sigmoid())

    def forward(self, features_BCZYX: torch.Tensor, guide_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        guide = resized(self.of_guide(guide_BCZYX), features_BCZYX)
        weights = self.weigh(functional.relu(self.of_features(features_BCZYX) + guide))
        return torch.mul(weights, features_BCZYX)


class MultiScale(nn.Module):
    """Two receptive fields, joined (Eq. 14-17)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(channels, half, 3, padding=reach, dilation=reach),
                nn.Conv3d(half, half, 3, padding=reach, dilation=reach),
            )
            for reach in (1, 2)
        )
        self.join = nn.Conv3d(2 * half, channels, 1)

    def forward(self, features_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        scales = [branch(features_BCZYX) for branch in self.branches]
        joined: torch.Tensor = self.join(torch.cat(scales, dim=1))
        return joined


def convolutions(channels_in: int, channels: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(count):
        layers.append(nn.Conv3d(channels if i else channels_in, channels, 3, padding=1))
        layers.append(nn.PReLU(channels))
    return nn.Sequential(*layers)


def down_step(channels_in: int, channels: int, *, halve: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.MaxPool3d(3, stride=1, padding=1),
        nn.Conv3d(channels_in, channels, 2, stride=2)
        if halve
        else nn.Conv3d(channels_in, channels, 3, padding=1),
        nn.BatchNorm3d(channels),
        nn.ELU(alpha=channels),  # the authors pass the channels where ELU takes its alpha
    )


def up_step(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose3d(channels_in, channels, 2, stride=2), nn.PReLU(channels))


def resized(values_BCZYX: torch.Tensor, like_BCZYX: torch.Tensor) -> torch.Tensor:
    size = tuple(int(n) for n in like_BCZYX.shape[2:])
    if values_BCZYX.shape[2:] == size:
        return values_BCZYX
    return functional.interpolate(values_BCZYX, size=size, mode="trilinear", align_corners=False)
