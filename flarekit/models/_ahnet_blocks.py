"""The blocks of Mamba-AHNet's decoder: attention gate, residual block, VM layer.

Shape letters and the paper: see `flarekit.models.mamba_ahnet`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from flarekit.models._mamba import scanned, start_steps
from flarekit.models.selective_scan import Backend, SelectiveScan


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which blocks a decoder has.

    Attributes:
        scan_directions: 0 without Mamba.
        stochastic_depth: how often a VM layer leaves out what its scan adds, while training.
    """

    attention: bool
    residual: bool
    scan_directions: int = 0
    stochastic_depth: float = 0.0


class AttentionGate(nn.Module):
    """Algorithm 3: weigh each pixel of the skip features by what the upsampled ones say of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Sequential(*conv_norm(channels, channels // 2, 1))
        self.phi = nn.Sequential(*conv_norm(channels, channels // 2, 1))
        self.psi = nn.Sequential(*conv_norm(channels // 2, 1, 1))

    def forward(self, skip_BCYX: torch.Tensor, raised_BCYX: torch.Tensor) -> torch.Tensor:
        """Return the skip features times a rate in (0, 1), one per pixel."""
        agreement = functional.relu(self.theta(skip_BCYX) + self.phi(raised_BCYX))
        return skip_BCYX * torch.sigmoid(self.psi(agreement))


class ResidualBlock(nn.Module):
    """Conv-BN-ReLU-conv-BN, plus the input, ReLU; widths never differ after Algorithm 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm(channels, channels), nn.ReLU(), *conv_norm(channels, channels)
        )

    def forward(self, features_BCYX: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        return functional.relu(self.body(features_BCYX) + features_BCYX)


class StateSpace(nn.Module):
    """SSM of Eq. 7 in one direction: step sizes, B and C from the input, then the scan."""

    def __init__(self, channels: int, *, rank: int, states: int = 16) -> None:
        super().__init__()
        self.backend: Backend = "auto"
        self.scan = SelectiveScan()
        self.x_proj = nn.Linear(channels, rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        start_steps(self.dt_proj)

    def forward(self, u_BDL: torch.Tensor) -> torch.Tensor:
        """Return (B, D, L), float32 (or float64)."""
        return scanned(self, u_BDL)


class VSSModule(nn.Module):
    """Eq. 7: W1 = LN(SSM(SiLU(DWConv(Linear(W))))), W2 = SiLU(Linear(W)), Linear(W1 * W2).

    With one direction the tokens are a row-major sequence and the depthwise convolution is Mamba's
    causal one over 4 tokens. With four (SS2D of VMamba) it is 3x3 over the plane, and scans along
    rows and columns, forwards and backwards, each with its own parameters, are added up.
    """

    def __init__(self, channels: int, *, directions: int) -> None:
        super().__init__()
        inner = 2 * channels
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv: nn.Module = (
            nn.Conv1d(inner, inner, 4, groups=inner)
            if directions == 1
            else nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        )
        self.scans = nn.ModuleList(
            StateSpace(inner, rank=math.ceil(channels / 16)) for _ in range(directions)
        )
        self.norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, tokens_BLM: torch.Tensor, size_YX: Sequence[int]) -> torch.Tensor:
        """Return (B, L, M)."""
        u_BLD, gate_BLD = self.in_proj(tokens_BLM).chunk(2, dim=-1)
        u_BDL = u_BLD.transpose(1, 2)
        if len(self.scans) == 1:
            y_BDL = self.scans[0](functional.silu(self.conv(functional.pad(u_BDL, (3, 0)))))
        else:
            u_BDL = functional.silu(self.conv(u_BDL.unflatten(2, tuple(size_YX)))).flatten(2)
            orders = _token_orders(size_YX, u_BDL.device)
            y_BDL = sum(
                scan(u_BDL[..., order_L])[..., order_L.argsort()]
                for scan, order_L in zip(self.scans, orders, strict=True)
            )
        mixed = self.norm(y_BDL.transpose(1, 2).to(tokens_BLM.dtype)) * functional.silu(gate_BLD)
        output: torch.Tensor = self.out_proj(mixed)
        return output


class VMLayer(nn.Module):
    """Eq. 5 and 6: M = VSS(LN(x)) + s * x, then Projection(LN(M)), over the pixels of a plane.

    With stochastic depth (section IV) VSS(LN(x)) is 0 for some slices of a batch while training,
    and larger for the others, so that its mean stays.
    """

    def __init__(self, channels: int, *, directions: int, stochastic_depth: float = 0.0) -> None:
        super().__init__()
        self.stochastic_depth = stochastic_depth
        self.norm = nn.LayerNorm(channels)
        self.vss = VSSModule(channels, directions=directions)
        self.scale = nn.Parameter(torch.ones(channels))
        self.out_norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, channels)

    def forward(self, features_BCYX: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        tokens_BLM = features_BCYX.flatten(2).transpose(1, 2)
        scanned_BLM = self.vss(self.norm(tokens_BLM), features_BCYX.shape[2:])
        if self.stochastic_depth and self.training:
            kept = torch.rand(len(scanned_BLM), 1, 1, device=scanned_BLM.device)
            kept = (kept >= self.stochastic_depth).to(scanned_BLM.dtype)
            scanned_BLM = scanned_BLM * kept / (1 - self.stochastic_depth)
        mixed_BLM = scanned_BLM + self.scale * tokens_BLM
        output_BLM: torch.Tensor = self.projection(self.out_norm(mixed_BLM))
        return output_BLM.transpose(1, 2).reshape(features_BCYX.shape)


class DecoderBlock(nn.Module):
    """Algorithm 1, then the residual block, then the VM layer; from 2C to C channels.

    The ReLU between the joining convolution and its BatchNorm is Algorithm 1's, line 6.
    """

    def __init__(self, channels: int, parts: Parts) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(2 * channels, channels, 2, stride=2, bias=False),
            _batch_norm(channels),
            nn.ReLU(),
        )
        self.gate = AttentionGate(channels) if parts.attention else None
        self.join = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, padding=1),
            nn.ReLU(),
            _batch_norm(channels),
            nn.ReLU(),
        )
        self.residual = ResidualBlock(channels) if parts.residual else None
        self.vm = vm_layer(channels, parts) if parts.scan_directions else None

    def forward(self, features_BCYX: torch.Tensor, skip_BCYX: torch.Tensor) -> torch.Tensor:
        """Return features of the skip's shape."""
        raised = self.up(features_BCYX)
        if self.gate is not None:
            skip_BCYX = self.gate(skip_BCYX, raised)
        joined: torch.Tensor = self.join(torch.cat([raised, skip_BCYX], dim=1))
        if self.residual is not None:
            joined = self.residual(joined)
        return joined if self.vm is None else self.vm(joined)


def vm_layer(channels: int, parts: Parts) -> VMLayer:
    """Return a VM layer that scans as the parts say."""
    return VMLayer(
        channels, directions=parts.scan_directions, stochastic_depth=parts.stochastic_depth
    )


def _token_orders(size_YX: Sequence[int], device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the row-major tokens in SS2D's four orders: rows, columns, each also backwards."""
    plane_YX = torch.arange(math.prod(size_YX), device=device).reshape(*size_YX)
    for order_L in (plane_YX.flatten(), plane_YX.T.flatten()):
        yield order_L
        yield order_L.flip(0)


def conv_norm(channels_in: int, channels_out: int, kernel: int = 3) -> tuple[nn.Module, nn.Module]:
    """Return a convolution without the bias that BatchNorm would undo, and BatchNorm."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    return conv, _batch_norm(channels_out)


def _batch_norm(channels: int) -> nn.Module:
    """Return BatchNorm with the defaults of Keras, in which the paper's layers are written."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
