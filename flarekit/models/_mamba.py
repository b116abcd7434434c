"""The Mamba block (version 1) of mamba_ssm, and the layer that the U-Mamba family makes of it.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023), section 3.4.
Parameters have mamba_ssm's names and shapes. The whole layer is a float32 island: autocast is off
inside, as in the authors' code, since the scan adds up over thousands of tokens.

Shape letters: B batch, L tokens, M model width (d_model), D inner width (2 M), N states.
"""

import math
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from flarekit.models.selective_scan import Backend, SelectiveScan

_STEP_RANGE = (1e-3, 1e-1)  # step sizes after initialisation


def start_steps(dt_proj: nn.Linear) -> None:
    """Draw the first step sizes log-uniformly, as section 3.6 of the paper asks."""
    spread = dt_proj.in_features**-0.5
    nn.init.uniform_(dt_proj.weight, -spread, spread)
    low, high = (math.log(step) for step in _STEP_RANGE)
    steps = torch.empty_like(dt_proj.bias).uniform_(low, high).exp().clamp(min=1e-4)
    with torch.no_grad():
        dt_proj.bias.copy_(steps + (-torch.expm1(-steps)).log())  # softplus undone


def scanned(block: nn.Module, u_BDL: torch.Tensor) -> torch.Tensor:
    """Return the scan (B, D, L) of a block, float32 (or float64): step sizes, B and C are u's own.

    The block has `x_proj`, `dt_proj`, `A_log`, `D`, `scan` and its `backend`.
    """
    parts: Any = block  # what these attributes are, nn.Module does not say
    rank, states = parts.dt_proj.in_features, parts.A_log.shape[1]
    rank_BLR, B_BLN, C_BLN = parts.x_proj(u_BDL.transpose(1, 2)).split(
        [rank, states, states], dim=-1
    )
    delta_BDL = functional.softplus(parts.dt_proj(rank_BLR)).transpose(1, 2)
    B_BNL, C_BNL = B_BLN.transpose(1, 2), C_BLN.transpose(1, 2)
    y_BDL: torch.Tensor = parts.scan(
        u_BDL, delta_BDL, -parts.A_log.exp(), B_BNL, C_BNL, parts.D, backend=parts.backend
    )
    return y_BDL


class Mamba(nn.Module):
    """Selective state space block: project, convolve, scan, gate, project back."""

    def __init__(
        self, d_model: int, *, d_state: int = 16, d_conv: int = 4, expand: int = 2
    ) -> None:
        super().__init__()
        inner, rank = expand * d_model, math.ceil(d_model / 16)
        self.backend: Backend = "auto"
        self.scan = SelectiveScan()
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        start_steps(self.dt_proj)

    def forward(self, tokens_BLM: torch.Tensor) -> torch.Tensor:
        """Return (B, L, M)."""
        length = tokens_BLM.shape[1]
        u_BDL, z_BDL = self.in_proj(tokens_BLM).transpose(1, 2).chunk(2, dim=1)
        u_BDL = functional.silu(self.conv1d(u_BDL)[..., :length])
        y_BDL = scanned(self, u_BDL)
        output: torch.Tensor = self.out_proj((y_BDL * functional.silu(z_BDL)).transpose(1, 2))
        return output


class MambaLayer(nn.Module):
    """LayerNorm and Mamba over the voxels of a feature map, without a residual.

    Args:
        dim: width of a token.
        channel_token: tokens are the channels, each as wide as the map has voxels, instead of the
            voxels; U-Mamba does this where a map has no more voxels than channels.

    Attributes:
        float32_island: computed in float32 whatever the surrounding precision.
    """

    float32_island: ClassVar[bool] = True

    def __init__(self, dim: int, *, channel_token: bool = False) -> None:
        super().__init__()
        self.channel_token = channel_token
        self.norm = nn.LayerNorm(dim)
        self.mamba = Mamba(dim)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape (B, C, ...), float32 (or float64) inside and out."""
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        with torch.autocast(features.device.type, enabled=False):
            flat_BCL = features.to(dtype).flatten(2)
            if self.channel_token:
                mixed = self.mamba(self.norm(flat_BCL))
            else:
                mixed = self.mamba(self.norm(flat_BCL.transpose(1, 2))).transpose(1, 2)
        output: torch.Tensor = mixed.reshape(features.shape)
        return output
