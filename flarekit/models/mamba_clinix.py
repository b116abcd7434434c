"""MambaClinix: gated convolutions in the upper stages, Mamba in the lower ones.

The MambaClinix paper, sections on the hierarchical gated convolution network (HGCN) and on the
encoder. Modules have the authors' names; where the paper's text and the authors' code differ, the
code decides: the recursion adds its parts (Eq. 6 of the paper has a constant factor of one).

The network takes the block of every stage and the order of every HGCN, which makes the rows of the
paper's Table 4: `[4, 4, 4]` with Mamba stage by stage is orders [4, 4, 4, 0, 0, 0]; Mamba "Bot" is
HGCN in all stages but the last; the baseline has neither. The paper says that residual blocks stand
in their place there, but its counts are those of stages without a second block: with Mamba in six
stages 2.24 M more parameters than without, which is what six Mamba layers have. What its rows count
are encoders, whose HGCNs have 32 channels within (`gated_channels=32`, docs/mamba_clinix.md).

Float32 islands under half precision: every Mamba layer.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from dynamic_network_architectures.building_blocks.residual import StackedResidualBlocks
from dynamic_network_architectures.building_blocks.simple_conv_blocks import (
    ConvDropoutNormReLU,
    StackedConvBlocks,
)
from torch import nn
from torch.nn import functional

from flarekit.models._mamba import Mamba
from flarekit.models._nnunet_blocks import (
    BasicResBlock,
    Topology,
    UpsampleLayer,
    operators,
    thinned,
)

Block = Literal["conv", "hgcn", "mamba"]
_HIGHEST_ORDER = 6  # section 2.4


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each voxel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape (B, C, ...)."""
        last = features.movedim(1, -1)
        normed = functional.layer_norm(last, last.shape[-1:], self.gamma, self.beta, eps=1e-6)
        return normed.movedim(-1, 1)


class GatedConvolution(nn.Module):
    """Recursive convolution of some order: ever wider parts of the channels are added in.

    Args:
        facts: dimension of the network.
        channels: C' of the input and of the output.
        order: number of parts; part j has C' / 2^(order - 1 - j) channels.
        kernel: of the depthwise convolution.
    """

    def __init__(self, facts: Topology, channels: int, order: int, kernel: Sequence[int]) -> None:
        super().__init__()
        if not 2 <= order <= _HIGHEST_ORDER:
            raise ValueError(f"orders must be from 2 to {_HIGHEST_ORDER}, got {order}")
        if channels % 2 ** (order - 1):
            raise ValueError(f"{channels} channels cannot be halved {order - 1} times")
        self.widths = [channels // 2 ** (order - 1 - part) for part in range(order)]
        total = sum(self.widths)
        size: Any = tuple(kernel)
        padding: Any = tuple(n // 2 for n in kernel)
        self.proj_in = facts.conv(channels, 2 * channels, 1)
        self.dwconv = facts.conv(total, total, size, padding=padding, groups=total)
        self.reconv = nn.ModuleList(
            facts.conv(narrow, wide, 1)
            for narrow, wide in zip(self.widths, self.widths[1:], strict=False)
        )
        self.proj_out = facts.conv(channels, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        base, rest = self.proj_in(features).split([self.widths[0], sum(self.widths)], dim=1)
        parts = self.dwconv(rest).split(self.widths, dim=1)
        u = base + parts[0]
        for widen, part in zip(self.reconv, parts[1:], strict=True):
            u = widen(u) + part
        output: torch.Tensor = self.proj_out(u)
        return output


class HGCN(nn.Module):
    """Hierarchical gated convolution network: fewer channels, gate, expand, add the input.

    Args:
        facts: of the network.
        channels: in and out.
        order: of the gated convolution.
        kernel: of the stage.
        inner: channels within (C' of the paper), after a convolution of the stage's kernel; where
            None half the channels, after one of a single voxel, as the authors' code has it.
    """

    def __init__(
        self,
        facts: Topology,
        channels: int,
        order: int,
        kernel: Sequence[int],
        inner: int | None = None,
    ) -> None:
        super().__init__()
        half = channels // 2 if inner is None else inner

        def bare(channels_in: int, channels_out: int, size: Sequence[int] | int) -> nn.Module:
            unit: nn.Module = ConvDropoutNormReLU(
                facts.conv, channels_in, channels_out, size, 1, conv_bias=True
            )
            return unit

        self.gamma1 = nn.Parameter(1e-6 * torch.ones(half))
        self.hgConvs = GatedConvolution(facts, half, order, kernel)
        self.lynorm1 = ChannelNorm(half)
        self.lynorm2 = ChannelNorm(half)
        self.transconv = bare(channels, half, 1 if inner is None else kernel)
        self.conv1 = bare(half, channels, kernel)
        self.conv2 = bare(channels, channels, kernel)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        t = self.transconv(features)
        scale = self.gamma1.view(-1, *[1] * (t.ndim - 2))
        t = t + scale * self.hgConvs(self.lynorm1(t))
        output: torch.Tensor = self.conv2(functional.leaky_relu(self.conv1(self.lynorm2(t))))
        return features + output


class MambaResidualLayer(nn.Module):
    """Norm, Mamba, the same norm, projection, plus the input; tokens are voxels.

    Attributes:
        float32_island: computed in float32 whatever the surrounding precision.
    """

    float32_island: ClassVar[bool] = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip_scale = nn.Parameter(torch.ones(1))  # in the authors' weights, never used
        self.norm = nn.LayerNorm(channels)
        self.mamba = Mamba(channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape (B, C, ...), float32 (or float64) in and out."""
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        with torch.autocast(features.device.type, enabled=False):
            tokens_BLC = features.to(dtype).flatten(2).transpose(1, 2)
            mixed_BLC = self.proj(self.norm(self.mamba(self.norm(tokens_BLC)))) + tokens_BLC
        output: torch.Tensor = mixed_BLC.transpose(1, 2).reshape(features.shape)
        return output


class Encoder(nn.Module):
    """A stem; per stage a strided residual block, then HGCN, Mamba, or nothing more (`conv`)."""

    def __init__(
        self,
        facts: Topology,
        input_channels: int,
        blocks: Sequence[Block],
        orders: Sequence[int],
        gated_channels: int | None,
    ) -> None:
        super().__init__()
        features, kernels = facts.features_per_stage, facts.kernel_sizes
        units = operators(facts)
        self.stem = StackedConvBlocks(
            1, facts.conv, input_channels, features[0], list(kernels[0]), 1, **units
        )
        gated = [stage for stage, block in enumerate(blocks) if block == "hgcn"]
        self.last_gated = max(gated, default=None)
        if self.last_gated is not None:
            self.LayerNorm = ChannelNorm(features[self.last_gated])
        stages, channels = [], features[0]
        layers: list[nn.Module] = []
        for stage, width in enumerate(features):
            kernel, stride = list(kernels[stage]), list(facts.strides[stage])
            stages.append(
                StackedResidualBlocks(1, facts.conv, channels, width, kernel, stride, **units)
            )
            if blocks[stage] == "hgcn":
                layers.append(HGCN(facts, width, orders[stage], kernel, gated_channels))
            else:
                mamba = blocks[stage] == "mamba"
                layers.append(MambaResidualLayer(width) if mamba else nn.Identity())
            channels = width
        self.encoder_layers = nn.ModuleList(layers)
        self.stages = nn.ModuleList(stages)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of every stage, finest first."""
        features = self.stem(image)
        skips = []
        for index, (stage, layer) in enumerate(zip(self.stages, self.encoder_layers, strict=True)):
            features = stage(features)
            if index == self.last_gated:
                features = self.LayerNorm(features)
            features = layer(features)
            skips.append(features)
        return skips


class Decoder(nn.Module):
    """Residual blocks on bottleneck and skips; upsample, join, refine; logits at every level."""

    def __init__(
        self, facts: Topology, encoder: nn.Module, num_classes: int, *, deep_supervision: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder  # as in nnU-Net: the decoder's state dict repeats the encoder's
        self.deep_supervision = deep_supervision
        features, kernels = facts.features_per_stage, facts.kernel_sizes
        self.Init_Residual = facts.block(features[-1], features[-1], kernels[-1])
        residuals, stages, raises, heads = [], [], [], []
        for index in range(len(features) - 1):
            below, width = features[-1 - index], features[-2 - index]
            raises.append(UpsampleLayer(facts, below, width, facts.strides[-1 - index]))
            residuals.append(facts.block(width, width, kernels[-2 - index]))
            stages.append(BasicResBlock(facts, 2 * width, width, kernels[-2 - index]))
            heads.append(facts.conv(width, num_classes, 1))
        self.residual_blocks = nn.ModuleList(residuals)
        self.stages = nn.ModuleList(stages)
        self.upsample_layers = nn.ModuleList(raises)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips: Sequence[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Return logits, at every level (finest first) with deep supervision."""
        features = self.Init_Residual(skips[-1])
        logits = []
        for index, stage in enumerate(self.stages):
            raised = self.upsample_layers[index](features)
            residual = self.residual_blocks[index](skips[-2 - index])
            features = stage(torch.cat([raised, residual], dim=1))
            if self.deep_supervision or index == len(self.stages) - 1:
                logits.append(self.seg_layers[index](features))
        return logits[::-1] if self.deep_supervision else logits[0]


class MambaClinix(nn.Module):
    """The network; arguments are nnU-Net's own but for the last three.

    Args:
        input_channels: C of the input (B, C, Z, Y, X), or (B, C, Y, X) where kernels have 2 axes.
        n_stages: encoder stages, the bottleneck included.
        features_per_stage: channels per stage.
        kernel_sizes: per stage and axis.
        strides: per stage and axis.
        n_conv_per_stage: more than one gives a stage HGCN, one gives it Mamba; the second half of
            the stages have one whatever is asked.
        num_classes: background included.
        n_conv_per_stage_decoder: one fewer entry than stages; only its length matters.
        deep_supervision: return logits at every decoder level, finest first.
        blocks: what follows the residual block of each encoder stage: `hgcn`, `mamba`, or `conv`
            for nothing more. By default what `n_conv_per_stage` says.
        orders: of each stage's HGCN, from 2 to 6; any number where a stage has another block. By
            default 2 in the first stage and one more in each further one, 6 at most (Eq. 11).
        gated_channels: within every HGCN; 32 in the network that the paper's Table 4 counts. By
            default half of each stage's, as in the authors' code.

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
        blocks: Sequence[Block] | None = None,
        orders: Sequence[int] | None = None,
        gated_channels: int | None = None,
    ) -> None:
        facts = Topology(
            n_stages=n_stages,
            features_per_stage=features_per_stage,
            kernel_sizes=kernel_sizes,
            strides=strides,
            n_conv_per_stage=n_conv_per_stage,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
        )
        usual: list[Block] = ["hgcn" if count > 1 else "mamba" for count in thinned(facts)[0]]
        rising = [min(stage + 2, _HIGHEST_ORDER) for stage in range(n_stages)]
        blocks, orders = usual if blocks is None else blocks, rising if orders is None else orders
        if len(blocks) != n_stages or len(orders) != n_stages:
            raise ValueError(f"expected {n_stages} entries in blocks and in orders")
        unknown = sorted(set(blocks) - set(get_args(Block)))
        if unknown:
            raise ValueError(f"blocks must be of {', '.join(get_args(Block))}, got {unknown[0]!r}")
        super().__init__()
        self.encoder = Encoder(facts, input_channels, blocks, orders, gated_channels)
        self.decoder = Decoder(facts, self.encoder, num_classes, deep_supervision=deep_supervision)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (B, K, ...); with deep supervision a list, finest first."""
        output: torch.Tensor | list[torch.Tensor] = self.decoder(self.encoder(image))
        return output


create = MambaClinix
