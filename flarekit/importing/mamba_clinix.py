"""Which blocks a trained MambaClinix has, told by its tensors."""

import re
from collections.abc import Mapping
from typing import Any

_BLOCK = re.compile(r"encoder\.encoder_layers\.(\d+)\.(?:mamba|hgConvs\.reconv\.(\d+))\.")


def clinix_blocks(weights: Mapping[str, Any], topology: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of MambaClinix's blocks, where its tensors are not of the usual ones.

    The topology is as of `flarekit.models.mamba_clinix.create`.
    """
    n_stages, counts = len(topology["strides"]), topology["n_conv_per_stage"]
    blocks, orders = ["conv"] * n_stages, [0] * n_stages
    for key in weights:
        match = _BLOCK.match(key)
        if match is None or int(match[1]) >= n_stages:
            continue
        stage = int(match[1])
        blocks[stage] = "mamba" if match[2] is None else "hgcn"
        if match[2] is not None:
            orders[stage] = max(orders[stage], int(match[2]) + 2)
    several = [counts > 1] * n_stages if isinstance(counts, int) else [n > 1 for n in counts]
    first_half = [stage < (n_stages + 1) // 2 for stage in range(n_stages)]
    gated = [each and first for each, first in zip(several, first_half, strict=True)]
    usual = ["hgcn" if each else "mamba" for each in gated]
    rising = [min(stage + 2, 6) if each else 0 for stage, each in enumerate(gated)]
    within = _gated_channels(weights, topology)
    inner = {} if within is None else {"gated_channels": within}
    if (blocks, orders) == (usual, rising):
        return inner
    return {"blocks": blocks, "orders": orders} | inner


def _gated_channels(weights: Mapping[str, Any], topology: Mapping[str, Any]) -> int | None:
    """Return the channels within HGCNs; None where their stem is of one voxel, as usual."""
    for stage, kernel in enumerate(topology["kernel_sizes"]):
        stem = weights.get(f"encoder.encoder_layers.{stage}.transconv.conv.weight")
        if stem is not None and max(kernel) > 1:
            return int(stem.shape[0]) if max(stem.shape[2:]) > 1 else None
    return None
