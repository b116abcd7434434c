"""The CUDA kernel of the package mamba-ssm (Apache-2.0)."""

from __future__ import annotations

import torch


def scan(
    u_BDL: torch.Tensor,
    delta_BDL: torch.Tensor,
    A_DN: torch.Tensor,
    B_BNL: torch.Tensor,
    C_BNL: torch.Tensor,
) -> torch.Tensor:
    """Return y without the skip term; float64 is computed in float32, as the kernel does."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    tensors = [tensor.float().contiguous() for tensor in (u_BDL, delta_BDL, A_DN, B_BNL, C_BNL)]
    y_BDL: torch.Tensor = selective_scan_fn(*tensors)
    return y_BDL
