"""UNETR of MONAI: a vision transformer as encoder, convolutions as decoder, 3D.

Hatamizadeh et al., "UNETR: Transformers for 3D Medical Image Segmentation" (WACV 2022). The class
is MONAI's (Apache-2.0, extra `peers`). It has one output, and its size is that of the tile.
"""

from collections.abc import Sequence

from torch import nn

from flarekit.models._monai import monai_network


def create(
    *,
    input_channels: int,
    num_classes: int,
    input_size: Sequence[int],
    feature_size: int = 16,
    hidden_size: int = 768,
    mlp_dim: int = 3072,
    num_heads: int = 12,
) -> nn.Module:
    """Build the network.

    Args:
        input_channels: C of the input (B, C, Z, Y, X).
        num_classes: background included.
        input_size: of the tile, (Z, Y, X), multiples of 16; no other size can be run.
        feature_size: channels of the finest decoder level.
        hidden_size: width of a token.
        mlp_dim: of the transformer's feed-forward layers.
        num_heads: of attention.

    Raises:
        UsageError: MONAI is not installed.
        ValueError: the arguments contradict each other.
    """
    network: nn.Module = monai_network(
        "UNETR",
        in_channels=input_channels,
        out_channels=num_classes,
        img_size=tuple(input_size),
        feature_size=feature_size,
        hidden_size=hidden_size,
        mlp_dim=mlp_dim,
        num_heads=num_heads,
        norm_name="instance",
    )
    return network
