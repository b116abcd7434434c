"""The rows of MambaClinix's Table 4 beside the network: parameters, and what each block adds.

    python profiling/paper_rows.py         # prints the table of docs/papers.md

The paper's figures are those of its Table 4; ours are counted from networks without weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# row, the block of each of six stages, orders, parameters in the paper (millions)
TABLE_4: Sequence[tuple[str, Sequence[str], Sequence[int], float]] = (
    ("Baseline", ["conv"] * 6, [0] * 6, 14.37),
    ("+ only Mamba", ["mamba"] * 6, [0] * 6, 16.61),
    ("+ only HGCN [2, 3, 4, 5, 6, 6]", ["hgcn"] * 6, [2, 3, 4, 5, 6, 6], 24.21),
    ("+ only HGCN [3, 3, 3, 3, 3, 3]", ["hgcn"] * 6, [3] * 6, 24.21),
    ("+ only HGCN [4, 4, 4, 4, 4, 4]", ["hgcn"] * 6, [4] * 6, 24.22),
    (
        "+ HGCN [2, 3, 4, 5, 6] + Mamba (Bot)",
        ["hgcn"] * 5 + ["mamba"],
        [2, 3, 4, 5, 6, 0],
        21.67,
    ),
    (
        "+ HGCN [4, 4, 4] + Mamba (stage-wise)",
        ["hgcn"] * 3 + ["mamba"] * 3,
        [4, 4, 4, 0, 0, 0],
        17.41,
    ),
    (
        "+ HGCN [4, 5, 6] + Mamba (stage-wise)",
        ["hgcn"] * 3 + ["mamba"] * 3,
        [4, 5, 6, 0, 0, 0],
        17.42,
    ),
    (
        "+ HGCN [2, 3, 4] + Mamba (stage-wise)",
        ["hgcn"] * 3 + ["mamba"] * 3,
        [2, 3, 4, 0, 0, 0],
        17.41,
    ),
)
BRATS: dict[str, Any] = {
    "input_channels": 4,
    "n_stages": 6,
    "features_per_stage": [32, 64, 128, 256, 320, 320],
    "kernel_sizes": [[3, 3, 3]] * 6,
    "strides": [[1, 1, 1]] + [[2, 2, 2]] * 5,
    "n_conv_per_stage": 2,
    "num_classes": 4,
    "n_conv_per_stage_decoder": 2,
}


def parameters(blocks: Sequence[str], orders: Sequence[int]) -> int:
    """Count the parameters of MambaClinix for BraTS with these blocks."""
    import torch

    from flarekit import models

    with torch.device("meta"):
        network = models.create("mamba_clinix", **BRATS, blocks=blocks, orders=orders)
    return sum(parameter.numel() for parameter in network.parameters())


def rows() -> list[list[str]]:
    """Return a row per network: its name, both counts in millions, and both less the baseline's."""
    counts = [parameters(blocks, orders) / 1e6 for _, blocks, orders, _ in TABLE_4]
    baseline = TABLE_4[0][3]
    return [
        [
            name,
            f"{count:.2f}",
            f"{paper:.2f}",
            f"{count - counts[0]:+.2f}",
            f"{paper - baseline:+.2f}",
        ]
        for (name, _, _, paper), count in zip(TABLE_4, counts, strict=True)
    ]


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")
