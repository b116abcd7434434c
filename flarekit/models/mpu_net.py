"""MPU-Net: 3D U-Net with position attention, gated decoder and four maps; and its U-Net baseline.

Yu and Han, "3D Medical Image Segmentation based on multi-scale MPU-Net", section 3; 22,557,009
parameters, of which 1,049,754 are in layers that the authors save but never run; `unused=False`
leaves these out. The baseline of the paper's Table 6 has 2,326,638.

The default is the authors' code, which leaves out parts of the paper; `paper_parts` adds them:
    "position_embedding": a learned vector per token before attention (Eq. 2); a token is a cell of
        the deepest grid, 8^3 voxels, or a patch of them.
    "patches": tokens are patches of 2^3 cells of the deepest grid, each embedded by a linear layer
        (Eq. 1-4: a convolution whose kernel is its stride) and brought back by a transposed one.
        The paper leaves their size open. Without it the 3x3x3 convolution before attention is
        Eq. 2's.
    "layer_norm": attention's result is normalised over its channels and changed linearly (3.2.3).
    "sequence_layer": attention is followed by Eq. 5, a convolution of kernel 3 along the sequence
        of tokens, ELU and max pooling. Pooling keeps the length (kernel 3, stride 1, as in the
        authors' downsampling): a shorter sequence would have no place in the decoder's grid.
    "cross_attention": after each upsampling, its features look at the skip's (section 3.3). The
        paper says neither which of them asks nor at what size. Here the upsampled ones ask, and the
        skip answers in at most 6 x 8 x 8 parts, since full resolution has three million tokens.
    "multi_head": eight heads, scaled by 1/sqrt(d), joined linearly, in place of one (Eq. 6, 7).
    "multi_scale": two receptive fields joined by a 1x1x1 convolution, on each decoder's output
        before its gate (Eq. 14-17). The paper gives no kernels: here 3, and 3 with dilation 2.

Not built: the pyramid pooling of section 3.5, which the paper tried and left, and Eq. 18's fusion
by convolution, which section 3.5 replaces by the weighted average that the code has.

Both return probabilities where other architectures return logits: argmax of their sum over
overlapping tiles is what the authors do. A loss that applies softmax itself takes their logarithm,
whose softmax is the same probabilities.

Shape letters: B batch, C channels, K classes, Z Y X volume axes, N tokens, H heads, D per head.
"""

from collections.abc import Collection, Iterator

import torch
from torch import nn
from torch.nn import functional

from flarekit.models._mpu_blocks import (
    AttentionGate,
    CrossAttention,
    MultiScale,
    PositionAttention,
    convolutions,
    down_step,
    resized,
    up_step,
)
from flarekit.models._official import OfficialName

PAPER_PARTS = frozenset(
    {
        "cross_attention",
        "layer_norm",
        "multi_head",
        "multi_scale",
        "patches",
        "position_embedding",
        "sequence_layer",
    }
)
_FIRST_WIDTH = 16
_BASELINE_FIRST_WIDTH = 32
_DROPOUT = 0.2
_UNUSED = {"up": "up1.up_conv", "decoder": "decoder5.decoder_stage", "map": "map5.map_conv.0"}
_UNUSED_LEAVES = {
    "up": (".0.weight", ".0.bias", ".1.weight"),
    "decoder": tuple(
        leaf for i in (0, 2, 4) for leaf in (f".{i}.weight", f".{i}.bias", f".{i + 1}.weight")
    ),
    "map": (".weight", ".bias"),
}


class MPUNet(nn.Module):
    """See the module's docstring and `create`."""

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        width: float,
        deep_supervision: bool,
        *,
        paper_parts: Collection[str],
        unused: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        base = 4 * max(1, round(_FIRST_WIDTH * width / 4))
        widths = [base * 2**level for level in range(6)]
        channels = (input_channels, *widths[1:5])
        self.encoders = nn.ModuleList(
            convolutions(count, wide, 2) for count, wide in zip(channels, widths, strict=False)
        )
        self.downs = nn.ModuleList(
            down_step(widths[i], widths[i + 1], halve=i < 3) for i in range(len(self.encoders))
        )
        deep = widths[4]
        self.bottleneck = nn.Sequential(
            *(nn.Conv3d(widths[5], deep, 3, padding=1), nn.BatchNorm3d(deep), nn.PReLU()),
            PositionAttention(deep, paper_parts=paper_parts),
            *(nn.Conv3d(deep, deep, 3, padding=1), nn.BatchNorm3d(deep), nn.PReLU()),
        )
        decoded = widths[4:0:-1]  # deepest first, as are all lists below
        skips = widths[3::-1]
        self.ups = nn.ModuleList(up_step(wide, wide // 2) for wide in decoded[:3])
        self.decoders = nn.ModuleList(
            convolutions(skip + (wide if level else 0), wide, 3)
            for level, (skip, wide) in enumerate(zip(skips, decoded, strict=True))
        )
        self.multi_scales = nn.ModuleList(
            MultiScale(wide) if "multi_scale" in paper_parts else nn.Identity() for wide in decoded
        )
        self.crossings = nn.ModuleList(
            CrossAttention(wide, skip)
            for wide, skip in zip(decoded[1:], skips[1:], strict=True)
            if "cross_attention" in paper_parts
        )
        self.gates = nn.ModuleList(AttentionGate(wide) for wide in decoded)
        self.maps = nn.ModuleList(nn.Conv3d(wide, num_classes, 1) for wide in decoded)
        if unused:
            self.unused = nn.ModuleDict(
                {
                    "up": up_step(widths[5], widths[4]),
                    "decoder": convolutions(base // 2, 2, 3),
                    "map": nn.Conv3d(2, num_classes, 1),
                }
            )
        else:
            self.layers_left_out = ("unused.",)  # of files that hold them: see `load_weights`

    def forward(self, image_BCZYX: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return probabilities (B, K, Z, Y, X): the mean of four maps.

        With deep supervision [mean, three coarser maps, finest of them first], all of one size: the
        authors train on these; the finest map counts only within the mean.

        Raises:
            ValueError: an axis is not a multiple of 8.
        """
        _check_size(image_BCZYX, 8)
        skips, features = [], image_BCZYX
        for level, (encoder, down) in enumerate(zip(self.encoders, self.downs, strict=True)):
            # the authors add the one input channel to all of the first stage's; several: their mean
            added = features if level else features.mean(1, keepdim=True)
            features = encoder(features) + added
            if level:
                features = functional.dropout(features, _DROPOUT, self.training)
            skips.append(features)
            features = down(features)
        guide = self.bottleneck(features)
        features = self.decoders[0](skips[3]) + guide
        probabilities = []
        for level, (gate, segment) in enumerate(zip(self.gates, self.maps, strict=True)):
            if level:
                guide = self.ups[level - 1](features)
                if self.crossings:
                    guide = self.crossings[level - 1](guide, skips[3 - level])
                joined = torch.cat([guide, skips[3 - level]], dim=1)
                features = self.decoders[level](joined) + guide
            features = gate(self.multi_scales[level](features), guide)
            probabilities.append(resized(segment(features), image_BCZYX).softmax(dim=1))
        mean = torch.stack(probabilities).mean(dim=0)
        return [mean, *probabilities[2::-1]] if self.deep_supervision else mean


class BaselineUNet(nn.Module):
    """One convolution per level, pooled four times; skips are added; a map at each of four levels.

    It has the paper's parameters, the published code's 46.23 G multiply-accumulates at 48x256x256,
    and the names of the authors' state dict.
    """

    def __init__(
        self, input_channels: int, num_classes: int, width: float, deep_supervision: bool
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        base = 8 * max(1, round(_BASELINE_FIRST_WIDTH * width / 8))
        widths = [base * 2**level for level in range(4)]
        wide = (*widths[::-1], num_classes)  # decoders' widths, deepest first
        self.encoders = nn.ModuleList(
            nn.Conv3d(before, after, 3, padding=1)
            for before, after in zip((input_channels, *widths), widths, strict=False)
        )
        self.decoders = nn.ModuleList(
            nn.Conv3d(wide[i], wide[i + 1], 3, padding=1) for i in range(4)
        )
        self.maps = nn.ModuleList(nn.Conv3d(wide[i], num_classes, 1) for i in (0, 1, 2, 4))

    def forward(self, image_BCZYX: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return the finest map's probabilities (B, K, Z, Y, X).

        With deep supervision the four maps', finest first, all of one size.

        Raises:
            ValueError: an axis is not a multiple of 16.
        """
        _check_size(image_BCZYX, 16)
        skips, features = [], image_BCZYX
        for encoder in self.encoders:
            features = functional.relu(functional.max_pool3d(encoder(features), 2))
            skips.append(features)
        levels = [features]
        for level, decoder in enumerate(self.decoders):
            raised = functional.interpolate(decoder(features), scale_factor=2, mode="trilinear")
            features = functional.relu(raised)
            if level < 3:
                features = features + skips[2 - level]
            levels.append(features)
        mapped = (levels[0], levels[1], levels[2], levels[4])
        if not self.deep_supervision:
            finest: torch.Tensor = self.maps[3](mapped[3]).softmax(dim=1)
            return finest
        return [
            resized(segment(level), image_BCZYX).softmax(dim=1)
            for segment, level in zip(reversed(self.maps), reversed(mapped), strict=True)
        ]


def create(
    *,
    input_channels: int = 1,
    num_classes: int = 2,
    width: float = 1.0,
    deep_supervision: bool = False,
    baseline: bool = False,
    paper_parts: Collection[str] = (),
    unused: bool = True,
) -> nn.Module:
    """Build the network.

    Args:
        input_channels: C of the input (B, C, Z, Y, X).
        num_classes: background included.
        width: factor on every layer's channels; the first layer's are rounded to a multiple of 4
            (baseline: 8) and the deeper ones' are its multiples.
        deep_supervision: return [result, three coarser maps], which the authors train on.
        baseline: the paper's plain U-Net.
        paper_parts: parts of the paper that the authors' code lacks, see the module's docstring.
        unused: have the layers that the authors save but never run; their weights load either way.

    Raises:
        ValueError: a count or the width is not positive, or the network has no such part.
    """
    if input_channels < 1 or num_classes < 1 or not width > 0:
        raise ValueError(
            "expected input_channels, num_classes and width to be positive, got "
            f"{input_channels}, {num_classes} and {width}"
        )
    if not set(paper_parts) <= (set() if baseline else PAPER_PARTS):
        known = "empty for the baseline" if baseline else f"of {', '.join(sorted(PAPER_PARTS))}"
        raise ValueError(f"expected paper_parts to be {known}, got {paper_parts!r}")
    shape = (input_channels, num_classes, width, deep_supervision)
    if baseline:
        return BaselineUNet(*shape)
    return MPUNet(*shape, paper_parts=paper_parts, unused=unused)


def official_names(module: nn.Module) -> Iterator[OfficialName]:
    """Yield each of our modules with the name that the authors' code has for it.

    The paper's parts have no names but ours.
    """
    baseline = isinstance(module, BaselineUNet)
    for i in range(4 if baseline else 5):
        yield f"encoders.{i}", (f"encoder{i + 1}" + ("" if baseline else ".encoder_stage"),)
    for i in range(4):
        yield f"decoders.{i}", (f"decoder{i + 1}" + ("" if baseline else ".decoder_stage"),)
        yield f"maps.{i}", (f"map{i + 1}" + (".0" if baseline else ".map_conv.0"),)
    if baseline:
        return
    for i in range(5):
        yield f"downs.{i}", (f"down{i + 1}.down_conv",)
    yield "bottleneck", ("PCL.attn",)
    for i in range(3):
        yield f"ups.{i}", (f"up{i + 2}.up_conv",)
    for i in range(4):
        for ours, theirs in (("of_features", "Wx"), ("of_guide", "Wg"), ("weigh", "psi")):
            yield f"gates.{i}.{ours}", (f"Att{4 - i}.{theirs}",)
    for ours, theirs in _UNUSED.items():
        if hasattr(module, "unused"):
            yield f"unused.{ours}", (theirs,)
        else:
            yield None, tuple(f"{theirs}{leaf}" for leaf in _UNUSED_LEAVES[ours])
    yield "multi_scales", ("multi_scales",)
    yield "crossings", ("crossings",)


def _check_size(image_BCZYX: torch.Tensor, multiple: int) -> None:
    size = tuple(image_BCZYX.shape[2:])
    if len(size) != 3 or any(n % multiple or not n for n in size):
        raise ValueError(
            f"volumes must be multiples of {multiple} voxels in Z, Y and X, got {size}"
        )
