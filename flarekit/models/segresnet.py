"""SegResNet of MONAI: a residual U-Net, 3D; the papers' CNN beside nnU-Net.

Myronenko, "3D MRI Brain Tumor Segmentation Using Autoencoder Regularization" (2018), without the
autoencoder. The class is MONAI's (Apache-2.0, extra `peers`); its defaults here are those of
U-Mamba's comparison, which both papers repeat. It has one output.
"""

from collections.abc import Sequence

from torch import nn

from flarekit.models._monai import monai_network


def create(
    *,
    input_channels: int,
    num_classes: int,
    init_filters: int = 32,
    blocks_down: Sequence[int] = (1, 2, 2, 4),
    blocks_up: Sequence[int] = (1, 1, 1),
    dropout: float = 0.2,
) -> nn.Module:
    """Build the network.

    Args:
        input_channels: C of the input (B, C, Z, Y, X); axes are multiples of 8.
        num_classes: background included.
        init_filters: channels of the first level, doubled in every further one.
        blocks_down: residual blocks per level of the encoder.
        blocks_up: of the decoder.
        dropout: rate, before the encoder.

    Raises:
        UsageError: MONAI is not installed.
        ValueError: the arguments contradict each other.
    """
    network: nn.Module = monai_network(
        "SegResNet",
        spatial_dims=3,
        in_channels=input_channels,
        out_channels=num_classes,
        init_filters=init_filters,
        blocks_down=tuple(blocks_down),
        blocks_up=tuple(blocks_up),
        dropout_prob=dropout or None,
    )
    return network
