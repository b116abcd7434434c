"""Mamba-AHNet with image reconstruction: a U-Net with attention, residual and Mamba decoder blocks.

Sanjid, Hossain, Junayed and Uddin, "Optimizing Universal Lesion Segmentation: State Space
Model-Guided Hierarchical Networks with Feature Importance Adjustment": Algorithms 1-4, Eq. 5-7,
sections III.D-IV.F. There is no public code: this is a reconstruction, and where the paper is
silent or contradicts itself the choice is ours: widths and depth, the levels that have Mamba, which
of its inputs the gate weighs, a sigmoid (not Algorithm 4's softmax) on the reconstructed image.

Rows of the paper's tables, as flags of `create` (attention, residual, mamba, reconstruction):

    HUNet                          no   no   no   no
    AHNet                          yes  yes  no   no
    AHNet + reconstruction         yes  yes  no   yes
    Mamba-AHNet                    yes  yes  yes  no
    Mamba-AHNet + reconstruction   yes  yes  yes  yes

The HUNet row is what this paper says of HUNet: Algorithm 1's upsampling block without attention and
residual blocks (section IV.C). Its own hierarchy of paths is described only in the preprint that is
cited for it (reference 48), so none of it is taken here: it would be a guess under its name.

Float32 island under half precision: the selective scan, nothing else.

Shape letters: B slices, C channels, K classes, Y X in-plane axes, L tokens (Y X, row-major),
M width of a token (C), D inner width (2 M), N states.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional

from flarekit.models._ahnet_blocks import DecoderBlock, Parts, conv_norm, vm_layer

_WIDTHS = (32, 64, 128, 256, 512)
_MAMBA_LEVELS = 3  # the deepest decoder levels; full resolution would be 65,536 tokens
Output = torch.Tensor | list[torch.Tensor]


class Decoder(nn.Module):
    """Decoder blocks, deepest first; only the deepest three have a VM layer."""

    def __init__(self, widths: Sequence[int], parts: Parts) -> None:
        super().__init__()
        plain = replace(parts, scan_directions=0)
        self.blocks = nn.ModuleList(
            DecoderBlock(channels, parts if depth < _MAMBA_LEVELS else plain)
            for depth, channels in enumerate(reversed(widths[:-1]))
        )

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the features of every block, finest first; `levels` are the encoder's."""
        features, decoded = levels[-1], []
        for block, skip in zip(self.blocks, levels[-2::-1], strict=True):
            features = block(features, skip)
            decoded.append(features)
        return decoded[::-1]


class MambaAHNet(nn.Module):
    """The network; by default the paper's full one, see the module for its other rows.

    Args:
        input_channels: C of the input (B, C, Y, X).
        num_classes: background included.
        attention: gate the skip features (Algorithm 3) in both decoders.
        residual: a residual block after each upsampling block in both decoders.
        mamba: VM layers in the three deepest decoder levels of the segmentation.
        reconstruction: a second decoder that redraws the image while training (section IV.E). It
            is not computed in evaluation, where a network without it has the same tensors
            otherwise.
        scan_directions: 1 is Eq. 7 with one row-major scan, 4 is VMamba's SS2D.
        encoder_mamba: VM layers in the three deepest encoder levels too, as the opening of section
            IV has it; section IV.B puts them into the upsampling path alone.
        stochastic_depth: how often a VM layer leaves out what its scan adds, while training.
        width: factor on every layer's channels; the first layer's are rounded to a multiple of 8
            and the deeper ones' are its multiples.
        deep_supervision: logits of the coarser decoder levels too while training; not the paper's.

    Raises:
        ValueError: a count or the width is not positive, scan_directions is neither 1 nor 4, the
            rate of stochastic depth is not in [0, 1), or Mamba in the encoder alone is asked for.
    """

    def __init__(
        self,
        *,
        input_channels: int = 1,
        num_classes: int = 2,
        attention: bool = True,
        residual: bool = True,
        mamba: bool = True,
        reconstruction: bool = True,
        scan_directions: int = 1,
        encoder_mamba: bool = False,
        stochastic_depth: float = 0.0,
        width: float = 1.0,
        deep_supervision: bool = False,
    ) -> None:
        if input_channels < 1 or num_classes < 1 or not width > 0:
            raise ValueError(
                "expected input_channels, num_classes and width to be positive, got "
                f"{input_channels}, {num_classes} and {width}"
            )
        if scan_directions not in (1, 4):
            raise ValueError(f"expected scan_directions to be 1 or 4, got {scan_directions}")
        if not 0 <= stochastic_depth < 1:
            raise ValueError(f"expected stochastic_depth to be in [0, 1), got {stochastic_depth}")
        if encoder_mamba and not mamba:
            raise ValueError("encoder_mamba needs mamba")
        base = max(8, 8 * round(_WIDTHS[0] * width / 8))
        widths = [base * channels // _WIDTHS[0] for channels in _WIDTHS]
        parts = Parts(
            attention=attention,
            residual=residual,
            scan_directions=scan_directions if mamba else 0,
            stochastic_depth=stochastic_depth,
        )
        super().__init__()
        first_mamba = len(widths) - _MAMBA_LEVELS if encoder_mamba else len(widths)
        self.encoder = nn.ModuleList(
            nn.Sequential(
                *conv_norm(before, channels),
                nn.ReLU(),
                *conv_norm(channels, channels),
                nn.ReLU(),
                *([vm_layer(channels, parts)] if level >= first_mamba else []),
            )
            for level, (before, channels) in enumerate(
                zip((input_channels, *widths), widths, strict=False)
            )
        )
        self.decoder = Decoder(widths, parts)
        self.logits = nn.Conv2d(widths[0], num_classes, 3, padding=1)
        coarse = widths[1:-1] if deep_supervision else ()
        self.coarse_logits = nn.ModuleList(nn.Conv2d(n, num_classes, 3, padding=1) for n in coarse)
        self.reconstruction_decoder: Decoder | None = None
        if reconstruction:
            self.reconstruction_decoder = Decoder(widths, replace(parts, scan_directions=0))
            self.reconstruction = nn.Conv2d(widths[0], input_channels, 3, padding=1)

    def forward(self, slices_BCYX: torch.Tensor) -> Output | tuple[Output, torch.Tensor]:
        """Return logits (B, K, Y, X); only while training also what it was asked for.

        With `deep_supervision` the logits become a list, finest first, each level half the size of
        the one before; with `reconstruction` they are the first of a pair, whose second is
        the image (B, C, Y, X) in [0, 1].

        Raises:
            ValueError: Y or X is not a multiple of 16.
        """
        size = slices_BCYX.shape[2:]
        if any(n % 16 for n in size):
            raise ValueError(f"slices must be multiples of 16 pixels in Y and X, got {tuple(size)}")
        levels, features = [], slices_BCYX
        for level, stage in enumerate(self.encoder):
            features = stage(features if level == 0 else functional.max_pool2d(features, 2))
            levels.append(features)
        decoded = self.decoder(levels)
        logits: torch.Tensor = self.logits(decoded[0])
        if not self.training:
            return logits
        coarse = [head(level) for head, level in zip(self.coarse_logits, decoded[1:], strict=False)]
        output: Output = [logits, *coarse] if coarse else logits
        if self.reconstruction_decoder is None:
            return output
        finest = self.reconstruction_decoder(levels)[0]
        return output, torch.sigmoid(self.reconstruction(finest))


create = MambaAHNet
