"""Blocks that the Mamba networks of the nnU-Net family share, 2D and 3D, under their usual names.

BasicBlockD and the plain convolution unit come from dynamic-network-architectures (Apache-2.0).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from torch import nn
from torch.nn import functional


class Topology:
    """What nnU-Net's planner decides about a network; one number may stand for all stages.

    Args:
        n_stages: the bottleneck included.
        features_per_stage: channels per stage.
        kernel_sizes: per stage and axis; 2 axes make a 2D network.
        strides: per stage and axis; the first stage's are ones.
        n_conv_per_stage: blocks per encoder stage.
        n_conv_per_stage_decoder: blocks per decoder stage, deepest first.

    Raises:
        ValueError: the per-stage lists do not agree.
    """

    def __init__(
        self,
        *,
        n_stages: int,
        features_per_stage: Sequence[int] | int,
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int] | int,
        n_conv_per_stage_decoder: Sequence[int] | int,
    ) -> None:
        self.features_per_stage = _spread(features_per_stage, n_stages)
        self.kernel_sizes = [tuple(kernel) for kernel in kernel_sizes]
        self.strides = [tuple(stride) for stride in strides]
        self.n_conv_per_stage = _spread(n_conv_per_stage, n_stages)
        self.n_conv_per_stage_decoder = _spread(n_conv_per_stage_decoder, n_stages - 1)
        sizes = (self.kernel_sizes, self.strides)
        per_stage = (self.features_per_stage, self.n_conv_per_stage, *sizes)
        if n_stages < 2 or any(len(values) != n_stages for values in per_stage):
            raise ValueError(f"expected {n_stages} (at least 2) entries per stage")
        if len(self.n_conv_per_stage_decoder) != n_stages - 1:
            raise ValueError(f"expected {n_stages - 1} entries in n_conv_per_stage_decoder")
        axes = {len(values) for values in (*self.kernel_sizes, *self.strides)}
        if axes not in ({2}, {3}):
            raise ValueError("kernel sizes and strides must all have 2 axes, or all have 3")

    @property
    def flat(self) -> bool:
        """Whether the network is 2D."""
        return len(self.kernel_sizes[0]) == 2

    @property
    def conv(self) -> type[nn.Conv2d | nn.Conv3d]:
        """The convolution of this dimension."""
        return nn.Conv2d if self.flat else nn.Conv3d

    @property
    def norm(self) -> type[nn.InstanceNorm2d | nn.InstanceNorm3d]:
        """The normalisation of this dimension."""
        return nn.InstanceNorm2d if self.flat else nn.InstanceNorm3d

    def block(self, channels_in: int, channels_out: int, kernel: Sequence[int]) -> nn.Module:
        """Return nnU-Net's residual block (BasicBlockD)."""
        block: nn.Module = BasicBlockD(
            self.conv, channels_in, channels_out, kernel, 1, **operators(self)
        )
        return block


def _spread(values: Sequence[int] | int, count: int) -> list[int]:
    return [values] * count if isinstance(values, int) else list(values)


def operators(facts: Topology) -> dict[str, Any]:
    """Return nnU-Net's default operators, as its blocks take them."""
    return {
        "conv_bias": True,
        "norm_op": facts.norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def thinned(facts: Topology) -> tuple[list[int], list[int]]:
    """Return the block counts that the U-Mamba family really builds.

    The second half of the encoder and of the decoder gets one block per stage, whatever is asked.
    """
    stages = len(facts.features_per_stage)
    encoder, decoder = list(facts.n_conv_per_stage), list(facts.n_conv_per_stage_decoder)
    for stage in range(math.ceil(stages / 2), stages):
        encoder[stage] = 1
    for stage in range(math.ceil((stages - 1) / 2 + 0.5), stages - 1):
        decoder[stage] = 1
    return encoder, decoder


class BasicResBlock(nn.Module):
    """Two convolutions with InstanceNorm and a 1x1x1 convolution as skip."""

    def __init__(
        self,
        facts: Topology,
        channels_in: int,
        channels_out: int,
        kernel: Sequence[int],
        stride: Sequence[int] | int = 1,
    ) -> None:
        super().__init__()
        padding = [size // 2 for size in kernel]
        conv, norm = facts.conv, facts.norm
        kernel_size: Any = tuple(kernel)
        strides: Any = stride if isinstance(stride, int) else tuple(stride)
        pads: Any = tuple(padding)
        self.conv1 = conv(channels_in, channels_out, kernel_size, strides, pads)
        self.norm1 = norm(channels_out, eps=1e-5, affine=True)
        self.conv2 = conv(channels_out, channels_out, kernel_size, padding=pads)
        self.norm2 = norm(channels_out, eps=1e-5, affine=True)
        self.conv3 = conv(channels_in, channels_out, 1, strides)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, channels_out, ...), smaller by the stride."""
        y = functional.leaky_relu(self.norm1(self.conv1(features)))
        return functional.leaky_relu(self.norm2(self.conv2(y)) + self.conv3(features))


class UpsampleLayer(nn.Module):
    """Nearest interpolation by a stride, then a 1x1x1 convolution."""

    def __init__(
        self, facts: Topology, channels_in: int, channels_out: int, stride: Sequence[int]
    ) -> None:
        super().__init__()
        self.stride = tuple(float(step) for step in stride)
        self.conv = facts.conv(channels_in, channels_out, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, channels_out, ...), larger by the stride."""
        raised = functional.interpolate(features, scale_factor=list(self.stride), mode="nearest")
        output: torch.Tensor = self.conv(raised)
        return output
