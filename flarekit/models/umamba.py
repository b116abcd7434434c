"""U-Mamba: nnU-Net's residual U-Net with Mamba at the bottleneck or after every encoder stage.

Ma, Li and Wang, "U-Mamba: Enhancing Long-range Dependency for Biomedical Image Segmentation"
(2024); the baseline that Att-UMamba extends. Modules have the authors' names.

Float32 islands under half precision: every Mamba layer.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import nn

from flarekit.models._mamba import MambaLayer
from flarekit.models._nnunet_blocks import (
    BasicResBlock,
    Topology,
    UpsampleLayer,
    thinned,
)

Where = Literal["bot", "enc"]


class Encoder(nn.Module):
    """A stem, then stages of one strided block and plain ones; Mamba after each where asked."""

    def __init__(
        self, facts: Topology, input_channels: int, input_size: Sequence[int] | None
    ) -> None:
        super().__init__()
        features, kernels = facts.features_per_stage, facts.kernel_sizes
        counts, _ = thinned(facts)
        self.stem = _stage(facts, input_channels, features[0], kernels[0], 1, counts[0])
        stages, channels = [], features[0]
        for stage, width in enumerate(features):
            stages.append(
                _stage(facts, channels, width, kernels[stage], facts.strides[stage], counts[stage])
            )
            channels = width
        self.mamba_layers = nn.ModuleList(
            MambaLayer(voxels if voxels <= width else width, channel_token=voxels <= width)
            for voxels, width in zip(_voxels(facts, input_size), features, strict=False)
        )
        self.stages = nn.ModuleList(stages)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of every stage, finest first."""
        features = self.stem(image)
        skips = []
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if self.mamba_layers:
                features = self.mamba_layers[index](features)
            skips.append(features)
        return skips


class Decoder(nn.Module):
    """Upsample, join the (gated) skip, refine; logits at every level."""

    def __init__(
        self, facts: Topology, encoder: nn.Module, num_classes: int, *, deep_supervision: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder  # as in nnU-Net: the decoder's state dict repeats the encoder's
        self.deep_supervision = deep_supervision
        features, kernels = facts.features_per_stage, facts.kernel_sizes
        _, counts = thinned(facts)
        stages, raises, heads = [], [], []
        for index in range(len(features) - 1):
            below, width = features[-1 - index], features[-2 - index]
            raises.append(UpsampleLayer(facts, below, width, facts.strides[-1 - index]))
            stages.append(_stage(facts, 2 * width, width, kernels[-2 - index], 1, counts[index]))
            heads.append(facts.conv(width, num_classes, 1))
        self.stages = nn.ModuleList(stages)
        self.upsample_layers = nn.ModuleList(raises)
        self.seg_layers = nn.ModuleList(heads)
        self.attention_gates: nn.ModuleList | None = None

    def forward(self, skips: Sequence[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Return logits, at every level (finest first) with deep supervision."""
        features = skips[-1]
        logits = []
        for index, stage in enumerate(self.stages):
            raised, skip = self.upsample_layers[index](features), skips[-2 - index]
            if self.attention_gates is not None:
                skip = self.attention_gates[index](raised, skip)
            features = stage(torch.cat([raised, skip], dim=1))
            if self.deep_supervision or index == len(self.stages) - 1:
                logits.append(self.seg_layers[index](features))
        return logits[::-1] if self.deep_supervision else logits[0]


class UMamba(nn.Module):
    """The network; arguments are nnU-Net's own but for the last two.

    Args:
        input_channels: C of the input (B, C, Z, Y, X), or (B, C, Y, X) where kernels have 2 axes.
        n_stages: encoder stages, the bottleneck included.
        features_per_stage: channels per stage.
        kernel_sizes: per stage and axis.
        strides: per stage and axis.
        n_conv_per_stage: blocks per encoder stage; the second half of the stages get one.
        num_classes: background included.
        n_conv_per_stage_decoder: blocks per decoder stage; the second half get one.
        deep_supervision: return logits at every decoder level, finest first.
        mamba: at the bottleneck (`bot`), or after every encoder stage (`enc`).
        input_size: of the tile; `enc` needs it, since shapes of parameters depend on it.

    Raises:
        ValueError: the arguments contradict each other.
    """

    def __init__(
        self,
        *,
        input_channels: int,
        n_stages: int,
        features_per_stage: Sequence[int] | int,
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int] | int,
        num_classes: int,
        n_conv_per_stage_decoder: Sequence[int] | int,
        deep_supervision: bool = False,
        mamba: Where = "bot",
        input_size: Sequence[int] | None = None,
    ) -> None:
        if mamba not in ("bot", "enc"):
            raise ValueError(f"mamba must be 'bot' or 'enc', got {mamba!r}")
        if mamba == "enc" and input_size is None:
            raise ValueError("mamba='enc' needs input_size: shapes of its parameters depend on it")
        facts = Topology(
            n_stages=n_stages,
            features_per_stage=features_per_stage,
            kernel_sizes=kernel_sizes,
            strides=strides,
            n_conv_per_stage=n_conv_per_stage,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
        )
        super().__init__()
        self.encoder = Encoder(facts, input_channels, input_size if mamba == "enc" else None)
        if mamba == "bot":
            self.mamba_layer = MambaLayer(facts.features_per_stage[-1])
        self.mamba_at_bottleneck = mamba == "bot"
        self.decoder = Decoder(facts, self.encoder, num_classes, deep_supervision=deep_supervision)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (B, K, ...); with deep supervision a list, finest first."""
        skips = self.encoder(image)
        if self.mamba_at_bottleneck:
            skips[-1] = self.mamba_layer(skips[-1])
        output: torch.Tensor | list[torch.Tensor] = self.decoder(skips)
        return output


create = UMamba


def _stage(
    facts: Topology,
    channels_in: int,
    channels_out: int,
    kernel: Sequence[int],
    stride: Sequence[int] | int,
    blocks: int,
) -> nn.Sequential:
    first = BasicResBlock(facts, channels_in, channels_out, kernel, stride)
    others = [facts.block(channels_out, channels_out, kernel) for _ in range(blocks - 1)]
    return nn.Sequential(first, *others)


def _voxels(facts: Topology, input_size: Sequence[int] | None) -> Iterator[int]:
    """Yield the voxels of every stage's map; none without an input size."""
    if input_size is None:
        return
    size = list(input_size)
    for stride in facts.strides:
        size = [n // step for n, step in zip(size, stride, strict=True)]
        voxels = 1
        for n in size:
            voxels *= n
        yield voxels
