"""VGG13 attention U-Net with deep supervision: FLARE23's network, 2D axial slices; and its origin.

An, Xu and Wu, "Attention mechanism-based deep supervision network for abdominal multi-organ
segmentation", MICCAI FLARE 2023, section 2.2; 24,496,331 parameters at full width with 15 classes.
Where the text leaves a choice open, the published weights decide.

The paper's "attention" multiplies nothing: features are replaced by sigmoid(ReLU(features)), values
in [0.5, 1). It is kept literally, since the authors' weights need it. Without attention this is the
network it was derived from (FLARE21, 20,735,897 parameters with 5 classes), a plain U-Net with the
same encoder and heads.

Shape letters: B slices, C channels, K classes, Y X in-plane axes.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from flarekit.models._official import OfficialName

Unit = Callable[[int, int], nn.Module]
_ENCODER = (64, 128, 256, 512, 512)
_HEAD = 16
_DROPPED_FROM = 3  # stage, counted from 0, with the fewest pixels and most parameters


class SliceBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose inference can use each slice's own statistics.

    The authors' script never calls `eval()` and feeds one slice at a time, so their weights were
    measured on the statistics of that slice. With `batch_statistics` the same is computed for every
    slice of a batch by itself; the running statistics are used otherwise.
    """

    def __init__(self, channels: int, *, batch_statistics: bool) -> None:
        super().__init__(channels, eps=1e-5)
        self.batch_statistics = batch_statistics

    def forward(self, features_BCYX: torch.Tensor) -> torch.Tensor:
        """Normalise, shape kept."""
        if self.batch_statistics and not self.training:
            return functional.instance_norm(
                features_BCYX, weight=self.weight, bias=self.bias, eps=self.eps
            )
        normalised: torch.Tensor = super().forward(features_BCYX)
        return normalised


class ConvUnit(nn.Module):
    """3x3 convolution, BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, batch_statistics: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm = SliceBatchNorm(channels_out, batch_statistics=batch_statistics)

    def forward(self, features_BCYX: torch.Tensor) -> torch.Tensor:
        """Return (B, channels_out, Y, X)."""
        return functional.relu(self.norm(self.conv(features_BCYX)))


class AttentionDecoder(nn.Module):
    """Upsample, join the skip, squash to [0.5, 1), refine.

    Where upsampled and skip features differ in width, one and the same convolution narrows the
    upsampled ones before they are joined and the joined ones after.
    """

    def __init__(self, channels_in: int, channels_skip: int, unit: Unit, *, refine: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels_in, channels_in, 2, stride=2)
        self.narrow = nn.Conv2d(2 * channels_skip, channels_skip, 3, padding=1)
        self.narrow_first = channels_in == 2 * channels_skip
        self.refine = nn.Sequential(
            *(unit(channels_skip, channels_skip) for _ in range(2 if refine else 0))
        )

    def forward(self, features_BCYX: torch.Tensor, skip_BCYX: torch.Tensor) -> torch.Tensor:
        """Return features of the skip's shape."""
        raised = self.up(features_BCYX)
        if self.narrow_first:
            raised = self.narrow(raised)
        joined = self.narrow(torch.cat([raised, skip_BCYX], dim=1))
        refined: torch.Tensor = self.refine(torch.sigmoid(functional.relu(joined)))
        return refined


class PlainDecoder(nn.Module):
    """Upsample, join the skip, refine: what FLARE21 had in place of attention."""

    def __init__(self, channels_in: int, channels_skip: int, unit: Unit) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels_in, channels_skip, 2, stride=2)
        self.refine = nn.Sequential(
            unit(2 * channels_skip, channels_skip), unit(channels_skip, channels_skip)
        )

    def forward(self, features_BCYX: torch.Tensor, skip_BCYX: torch.Tensor) -> torch.Tensor:
        """Return features of the skip's shape."""
        joined = torch.cat([self.up(features_BCYX), skip_BCYX], dim=1)
        refined: torch.Tensor = self.refine(joined)
        return refined


class AttentionUNet(nn.Module):
    """The network; see the module's docstring.

    Args:
        input_channels: C of the input (B, C, Y, X); the authors copy a grey slice to 3.
        num_classes: background included.
        width: factor on every layer's channels; the first layer's are rounded to a multiple of 8
            and the deeper ones' are its multiples.
        attention: FLARE23's decoder; without it the FLARE21 origin's.
        deep_supervision: return [logits, four heads] instead of logits.
        batch_statistics: at inference normalise by each slice's own statistics, as the authors'
            published script does, instead of the running ones.
        dropout: rate at which channels of the two deepest stages are dropped while training. The
            paper uses dropout (section 3.2) and states neither its rate nor its place: both are
            ours.

    Raises:
        ValueError: a count or the width is not positive, or the rate is not in [0, 1).
    """

    def __init__(
        self,
        *,
        input_channels: int = 3,
        num_classes: int = 15,
        width: float = 1.0,
        attention: bool = True,
        deep_supervision: bool = False,
        batch_statistics: bool = False,
        dropout: float = 0.0,
    ) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"expected dropout to be in [0, 1), got {dropout}")
        if input_channels < 1 or num_classes < 1 or not width > 0:
            raise ValueError(
                "expected input_channels, num_classes and width to be positive, got "
                f"{input_channels}, {num_classes} and {width}"
            )
        super().__init__()
        unit = partial(ConvUnit, batch_statistics=batch_statistics)
        self.attention = attention
        self.dropout = dropout
        self.deep_supervision = deep_supervision
        base = _scaled(_ENCODER[0], width)  # `narrow` needs each width twice the one before
        widths = [base * channels // _ENCODER[0] for channels in _ENCODER]
        head = _scaled(_HEAD, width)
        stages, channels = [], input_channels
        for stage_width in widths:
            units = unit(channels, stage_width), unit(stage_width, stage_width)
            stages.append(nn.Sequential(*units))
            channels = stage_width
        self.encoder = nn.ModuleList(stages)
        self.decoders = nn.ModuleList()  # deepest first
        for level in (3, 2, 1, 0):
            self.decoders.append(
                AttentionDecoder(channels, widths[level], unit, refine=level > 0)
                if attention
                else PlainDecoder(channels, widths[level], unit)
            )
            channels = widths[level]
        self.heads = nn.ModuleList(unit(widths[level], head) for level in range(4))  # finest first
        self.head_logits = nn.ModuleList(
            nn.Conv2d(head, num_classes, 3, padding=1) for _ in range(4)
        )
        self.joint = unit(4 * head, 4 * head)
        self.logits = nn.Conv2d(4 * head, num_classes, 3, padding=1)

    def forward(self, slices_BCYX: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (B, K, Y, X); with deep supervision the four heads' too, finest first.

        Raises:
            ValueError: Y or X is not a multiple of 16.
        """
        size = slices_BCYX.shape[2:]
        if any(n % 16 for n in size):
            raise ValueError(f"slices must be multiples of 16 voxels in Y and X, got {tuple(size)}")
        skips, features = [], slices_BCYX
        for level, stage in enumerate(self.encoder):
            features = stage(features if level == 0 else functional.max_pool2d(features, 2))
            if self.dropout and level >= _DROPPED_FROM:
                features = functional.dropout2d(features, self.dropout, self.training)
            skips.append(features)
        decoded = []
        for decoder, skip in zip(self.decoders, skips[-2::-1], strict=True):
            features = decoder(features, skip)
            decoded.append(features)
        heads = [
            functional.interpolate(
                head(level), size=(int(size[0]), int(size[1])), mode="bilinear", align_corners=False
            )
            for head, level in zip(self.heads, reversed(decoded), strict=True)
        ]
        joint = self.joint(torch.cat(heads, dim=1))
        if self.attention:
            joint = torch.sigmoid(functional.relu(joint))
        logits: torch.Tensor = self.logits(joint)
        if not self.deep_supervision:
            return logits
        return [logits, *(out(head) for out, head in zip(self.head_logits, heads, strict=True))]


create = AttentionUNet


def official_names(module: nn.Module) -> Iterator[OfficialName]:
    """Yield each of our modules with the names that the authors' code has for it.

    The first name is the one under which PyTorch lists the tensor first; the others are aliases.
    """
    for stage in range(5):
        alias, slot = ("center" if stage == 4 else f"enblock{stage + 1}"), int(stage > 0)
        for unit in range(2):
            for part, offset in (("conv", 0), ("norm", 1)):
                index = 3 * unit + offset
                names = (f"encoder.{7 * stage + index}", f"{alias}.{index + slot}")
                yield f"encoder.{stage}.{unit}.{part}", names
    attention = bool(module.attention)
    for decoder in range(4):
        theirs = f"decoder_att{decoder + 1}" if attention else f"deblock{decoder + 1}"
        yield f"decoders.{decoder}.up", (f"{theirs}.up",)
        if attention:
            yield f"decoders.{decoder}.narrow", (f"{theirs}.down_channel",)
        for unit in range(0 if attention and decoder == 3 else 2):
            for part, index in (("conv", 3 * unit), ("norm", 3 * unit + 1)):
                name = f"decoders.{decoder}.refine.{unit}.{part}"
                yield name, (f"{theirs}.conv.double_conv.{index}",)
    for level in range(4):
        yield f"heads.{level}.conv", (f"down{level + 1}.simple_conv.0",)
        yield f"heads.{level}.norm", (f"down{level + 1}.simple_conv.1",)
        yield f"head_logits.{level}", (f"down_out{level + 1}.single_conv",)
    yield "joint.conv", ("out1.simple_conv.0",)
    yield "joint.norm", ("out1.simple_conv.1",)
    yield "logits", ("out2.single_conv",)


def _scaled(channels: int, width: float) -> int:
    return max(8, 8 * round(channels * width / 8))
