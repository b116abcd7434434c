"""Readings of MambaClinix's HGCN, by what each adds to the parameters of the baseline's encoder.

    python profiling/paper_readings.py     # prints the table of docs/mamba_clinix.md

The paper's text leaves open how many channels C' are within, how the stem comes to them, and
whether one convolution follows the gate (Eq. 3) or two (the authors' code). Its Table 4 has
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from paper_rows import BRATS, TABLE_4
from torch import nn

from flarekit.models import mamba_clinix
from flarekit.models._nnunet_blocks import Topology

ROWS = (2, 5, 8)  # of Table 4: only HGCN, with Mamba at the bottleneck, with Mamba stage by stage


@dataclass(frozen=True)
class Reading:
    """One reading.

    Attributes:
        within: C', in words.
        channels: C' of C.
        stem: kernel of the stem.
        behind: convolutions behind the gate.
        gate: kernel of the gated convolution.
    """

    within: str
    channels: Callable[[int], int]
    stem: int
    behind: int
    gate: int = 3

    def hgcn(self, facts: Topology, channels: int, order: int) -> int:
        """Count the parameters of an HGCN."""
        inner = self.channels(channels)

        def conv(into: int, out: int, kernel: int) -> nn.Module:
            unit: nn.Module = ConvDropoutNormReLU(facts.conv, into, out, kernel, 1, conv_bias=True)
            return unit

        gate = mamba_clinix.GatedConvolution(facts, inner, order, [self.gate] * 3)
        norms = [mamba_clinix.ChannelNorm(inner) for _ in range(2)]
        behind = [conv(inner, channels, 3)] + [conv(channels, channels, 3)] * (self.behind - 1)
        parts = nn.ModuleList([conv(channels, inner, self.stem), gate, *norms, *behind])
        return counted(parts) + inner  # the scale of the gate's output


READINGS = (
    Reading("half the channels (the authors' code)", lambda c: c // 2, 1, 2),
    Reading("half", lambda c: c // 2, 3, 2),
    Reading("half", lambda c: c // 2, 1, 1),
    Reading("half", lambda c: c // 2, 3, 1),
    Reading("half, gate of 7 x 7 x 7 as in HorNet", lambda c: c // 2, 1, 2, 7),
    Reading("all", lambda c: c, 1, 1),
    Reading("half, 64 at most", lambda c: min(64, c // 2), 1, 2),
    Reading("64 in every stage", lambda _: 64, 1, 2),
    Reading("32 in every stage", lambda _: 32, 1, 2),
    Reading("32 in every stage (`gated_channels = 32`)", lambda _: 32, 3, 2),
)


def counted(module: nn.Module) -> int:
    """Count parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def added(reading: Reading, blocks: Sequence[str], orders: Sequence[int]) -> int:
    """Return how many parameters a row of Table 4 has more than the baseline."""
    facts = Topology(
        **{k: v for k, v in BRATS.items() if k not in ("input_channels", "num_classes")}
    )
    widths = facts.features_per_stage
    gated = [stage for stage, block in enumerate(blocks) if block == "hgcn"]
    found = 2 * widths[gated[-1]]  # the norm before the last HGCN
    with torch.device("meta"):
        for width, block, order in zip(widths, blocks, orders, strict=True):
            if block == "hgcn":
                found += reading.hgcn(facts, width, order)
            elif block == "mamba":
                found += counted(mamba_clinix.MambaResidualLayer(width))
    return found


def rows() -> list[list[str]]:
    """Return a row per reading, the paper's figures first."""
    paper = [f"{TABLE_4[row][3] - TABLE_4[0][3]:.2f}" for row in ROWS]
    table = [["the paper", "", "", *paper]]
    for each in READINGS:
        counts = [added(each, TABLE_4[row][1], TABLE_4[row][2]) / 1e6 for row in ROWS]
        kernel = " x ".join([str(each.stem)] * 3)
        behind = "one (Eq. 3)" if each.behind == 1 else "two"
        table.append([each.within, kernel, behind, *(f"{n:.2f}" for n in counts)])
    return table


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")
