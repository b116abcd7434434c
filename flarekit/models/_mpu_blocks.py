"""The blocks of MPU-Net: position attention, attention gate, two receptive fields.

Shape letters and the paper: see `flarekit.models.mpu_net`.
"""

from collections.abc import Collection

import torch
from torch import nn
from torch.nn import functional

_HEADS = 8
_PATCH_GRID = (6, 32, 32)  # the deepest grid of the authors' 48x256x256 window
_PATCH = 2  # cells of that grid
_ANSWERS = (6, 8, 8)  # most parts of a skip that cross attention looks at
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
        self.embed: nn.Module = nn.Identity()
        self.unfold: nn.Module = nn.Identity()
        if "patches" in paper_parts:
            self.embed = nn.Conv3d(channels, channels, _PATCH, stride=_PATCH)
            self.unfold = nn.ConvTranspose3d(channels, channels, _PATCH, stride=_PATCH)
        self.patch = _PATCH if "patches" in paper_parts else 1
        self.norm: nn.Module = nn.Identity()
        if "layer_norm" in paper_parts:
            self.norm = _Sequence(nn.LayerNorm(channels), nn.Linear(channels, channels))
        self.layer: nn.Module = nn.Identity()
        if "sequence_layer" in paper_parts:
            self.layer = _Sequence(
                _Along(nn.Conv1d(channels, channels, 3, padding=1)),
                nn.ELU(),
                _Along(nn.MaxPool1d(3, stride=1, padding=1)),
            )
        self.embedding: nn.Parameter | None = None
        if "position_embedding" in paper_parts:
            self.embedding = nn.Parameter(0.02 * torch.randn(1, channels, *_PATCH_GRID))

    def forward(self, features_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return features of the input's shape."""
        given_BCZYX = features_BCZYX
        if any(n % self.patch for n in features_BCZYX.shape[2:]):
            raise ValueError(f"patches need volumes of multiples of {8 * self.patch} voxels")
        features_BCZYX = self.embed(features_BCZYX)
        if self.embedding is not None:
            features_BCZYX = features_BCZYX + resized(self.embedding, features_BCZYX)
        query_BHND, key_BHND, value_BHND = (
            tokens_of(layer(features_BCZYX), self.heads)
            for layer in (self.query_conv, self.key_conv, self.value_conv)
        )
        rows = [
            functional.scaled_dot_product_attention(some, key_BHND, value_BHND, scale=self.scale)
            for some in query_BHND.split(QUERIES_AT_ONCE, dim=2)
        ]
        attended_BHDN = torch.cat(rows, dim=2).transpose(2, 3)
        attended = self.join(attended_BHDN.reshape(features_BCZYX.shape))
        if self.patch > 1:
            attended = self.unfold(attended)
            features_BCZYX = given_BCZYX
        added = torch.add(self.gamma * attended, features_BCZYX)
        output: torch.Tensor = self.layer(self.norm(added))
        return output


class _Sequence(nn.Module):
    """Layers over the tokens (B, N, C) of a feature map, which comes back in its shape."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, features_BCZYX: torch.Tensor) -> torch.Tensor:
        tokens_BNC = self.layers(features_BCZYX.flatten(2).transpose(1, 2))
        output: torch.Tensor = tokens_BNC.transpose(1, 2).reshape(features_BCZYX.shape)
        return output


class _Along(nn.Module):
    """A layer along the sequence, which takes (B, C, N)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens_BNC: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(tokens_BNC.transpose(1, 2)).transpose(1, 2)
        return output


class CrossAttention(nn.Module):
    """Upsampled features look at parts of a skip; what they see is added by a factor from 0."""

    def __init__(self, channels: int, channels_skip: int) -> None:
        super().__init__()
        self.heads = _HEADS if channels % _HEADS == 0 else 1
        self.query = nn.Conv3d(channels, channels, 1)
        self.key = nn.Conv3d(channels_skip, channels, 1)
        self.value = nn.Conv3d(channels_skip, channels, 1)
        self.join = nn.Conv3d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, raised_BCZYX: torch.Tensor, skip_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return features of the shape of the upsampled ones."""
        z, y, x = (min(n, most) for n, most in zip(skip_BCZYX.shape[2:], _ANSWERS, strict=True))
        parts = functional.adaptive_avg_pool3d(skip_BCZYX, (z, y, x))
        query, key, value = (
            tokens_of(layer(features), self.heads)
            for layer, features in (
                (self.query, raised_BCZYX),
                (self.key, parts),
                (self.value, parts),
            )
        )
        rows = [
            functional.scaled_dot_product_attention(some, key, value)
            for some in query.split(16 * QUERIES_AT_ONCE, dim=2)
        ]
        seen = torch.cat(rows, dim=2).transpose(2, 3).reshape(raised_BCZYX.shape)
        return torch.add(self.gamma * self.join(seen), raised_BCZYX)


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


def tokens_of(features_BCZYX: torch.Tensor, heads: int) -> torch.Tensor:
    """Return voxels as tokens, (B, H, N, D)."""
    batch, channels = features_BCZYX.shape[:2]
    return features_BCZYX.reshape(batch, heads, channels // heads, -1).transpose(2, 3)


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
