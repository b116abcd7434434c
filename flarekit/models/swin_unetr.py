"""SwinUNETR of MONAI: shifted-window attention as encoder, convolutions as decoder, 3D.

Hatamizadeh et al., "Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI
Images" (2022). The class is MONAI's (Apache-2.0, extra `peers`). It has one output.
"""

from torch import nn

from flarekit.models._monai import monai_network


def create(*, input_channels: int, num_classes: int, feature_size: int = 48) -> nn.Module:
    """Build the network.

    Args:
        input_channels: C of the input (B, C, Z, Y, X); axes are multiples of 32.
        num_classes: background included.
        feature_size: channels of the first level, a multiple of 12.

    Raises:
        UsageError: MONAI is not installed.
        ValueError: the feature size is not a multiple of 12.
    """
    network: nn.Module = monai_network(
        "SwinUNETR",
        in_channels=input_channels,
        out_channels=num_classes,
        feature_size=feature_size,
    )
    return network
