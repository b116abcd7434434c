"""The rows of MambaClinix's Table 4 beside the network: parameters, and what each block adds.

    python profiling/paper_rows.py         # prints the table of docs/mamba_clinix.md

The paper's figures are those of its Table 4; ours are counted from networks without weights, as the
authors' code has them and with 32 channels within every HGCN.
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


def parameters(
    blocks: Sequence[str], orders: Sequence[int], gated_channels: int | None = None
) -> tuple[int, int]:
    """Count the parameters of MambaClinix for BraTS with these blocks: all, and the encoder's."""
    import torch

    from flarekit import models

    facts = BRATS | {"blocks": blocks, "orders": orders, "gated_channels": gated_channels}
    with torch.device("meta"):
        network = models.create("mamba_clinix", **facts)
    encoder = network.get_submodule("encoder")
    whole, part = (sum(each.numel() for each in m.parameters()) for m in (network, encoder))
    return whole, part


def rows() -> list[list[str]]:
    """Return a row per network, in millions: what it is, what it has, what it adds.

    Its name; all parameters and the encoder's, as the authors' code has them; the encoder's with 32
    channels within every HGCN; the paper's; the last three less the baseline's.
    """
    code = [parameters(blocks, orders) for _, blocks, orders, _ in TABLE_4]
    table = [parameters(blocks, orders, 32)[1] / 1e6 for _, blocks, orders, _ in TABLE_4]
    found = []
    for index, (name, _, _, paper) in enumerate(TABLE_4):
        whole, part = (each / 1e6 for each in code[index])
        added = (part - code[0][1] / 1e6, table[index] - table[0], paper - TABLE_4[0][3])
        counts = (whole, part, table[index], paper)
        found.append([name, *(f"{n:.2f}" for n in counts), *(f"{n:+.2f}" for n in added)])
    return found


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")
