"""nnU-Net's plain and residual-encoder U-Nets, 2D and 3D.

Isensee et al., Nature Methods 18 (2021) 203-211; blocks from dynamic-network-architectures
(Apache-2.0), so nnU-Net v2 checkpoints fit key by key.
"""

from collections.abc import Sequence

from torch import nn


def create(
    *,
    input_channels: int,
    n_stages: int,
    features_per_stage: Sequence[int],
    kernel_sizes: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
    n_conv_per_stage: Sequence[int],
    num_classes: int,
    n_conv_per_stage_decoder: Sequence[int],
    deep_supervision: bool = False,
    residual: bool = False,
) -> nn.Module:
    """Build the network; arguments are nnU-Net's own.

    Args:
        input_channels: C of the input (B, C, Z, Y, X), or (B, C, Y, X) where kernels have 2 axes.
        n_stages: encoder stages, the bottleneck included.
        features_per_stage: channels per stage.
        kernel_sizes: per stage and axis.
        strides: per stage and axis.
        n_conv_per_stage: convolutions (plain) or residual blocks (residual) per encoder stage.
        num_classes: background included.
        n_conv_per_stage_decoder: one fewer entry than stages.
        deep_supervision: return logits at every decoder level, finest first.
        residual: residual encoder instead of the plain one.

    Returns:
        A module from intensities to logits (B, num_classes, ...).

    Raises:
        ValueError: the per-stage lists differ in length.
    """
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    per_stage = (features_per_stage, kernel_sizes, strides, n_conv_per_stage)
    if any(len(values) != n_stages for values in per_stage):
        raise ValueError(f"expected {n_stages} entries per stage")
    flat = len(kernel_sizes[0]) == 2
    block_count = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    network: nn.Module = (ResidualEncoderUNet if residual else PlainConvUNet)(
        input_channels=input_channels,
        n_stages=n_stages,
        features_per_stage=list(features_per_stage),
        conv_op=nn.Conv2d if flat else nn.Conv3d,
        kernel_sizes=[list(kernel) for kernel in kernel_sizes],
        strides=[list(stride) for stride in strides],
        num_classes=num_classes,
        n_conv_per_stage_decoder=list(n_conv_per_stage_decoder),
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if flat else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
        **{block_count: list(n_conv_per_stage)},
    )
    return network
