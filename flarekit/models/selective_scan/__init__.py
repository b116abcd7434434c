"""The selective scan of Mamba (Gu and Dao 2023, Algorithm 2), by several backends.

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t        y_t = C_t . h_t + D u_t

Shape letters: B batch, L tokens, D channels (d_inner), N states per channel.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar, Literal

import torch
from torch import nn

from flarekit.core.errors import DeviceError

__all__ = ["BACKENDS", "Backend", "SelectiveScan", "choose_backend", "selective_scan"]

_LOG = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "chunked", "triton", "mamba_ssm"]
BACKENDS: tuple[Backend, ...] = ("reference", "chunked", "triton", "mamba_ssm")


def choose_backend(backend: Backend, device: torch.device) -> Backend:
    """Return the backend that a request means on a device; only `auto` leaves a choice.

    `auto` is mamba_ssm's kernel, else ours in Triton, where the device is CUDA and they are
    installed; the chunked scan otherwise.

    Raises:
        DeviceError: the backend asked for cannot run on that device, or is not installed.
    """
    if backend not in ("auto", *BACKENDS):
        raise DeviceError(f"no scan backend {backend!r}", fix=f"known: {', '.join(BACKENDS)}")
    installed = {name: find_spec(name) is not None for name in ("triton", "mamba_ssm")}
    if backend == "auto":
        if device.type == "cuda":
            return next((name for name in ("mamba_ssm", "triton") if installed[name]), "chunked")
        return "chunked"
    if backend in installed and not installed[backend]:
        raise DeviceError(
            f"scan backend {backend!r} is not installed", fix=f"pip install {backend}"
        )
    if backend == "mamba_ssm" and device.type != "cuda":
        raise DeviceError("scan backend 'mamba_ssm' needs a CUDA device", fix="use 'chunked'")
    if backend == "triton" and device.type != "cuda" and not _interpreted():
        raise DeviceError(
            "scan backend 'triton' needs a CUDA device", fix="use 'chunked', or TRITON_INTERPRET=1"
        )
    return backend


def selective_scan(
    u_BDL: torch.Tensor,
    delta_BDL: torch.Tensor,
    A_DN: torch.Tensor,
    B_BNL: torch.Tensor,
    C_BNL: torch.Tensor,
    D_D: torch.Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> torch.Tensor:
    """Scan, in float32 (float64 where `u` is) whatever the surrounding precision.

    Args:
        u_BDL: input.
        delta_BDL: step sizes, after softplus.
        A_DN: negative decay rates.
        B_BNL: input matrix of each token.
        C_BNL: output matrix of each token.
        D_D: skip weight per channel; none where None.
        backend: see `choose_backend`.

    Returns:
        y (B, D, L) in the dtype it was computed in.

    Raises:
        DeviceError: the backend is not available.
    """
    dtype = torch.float64 if u_BDL.dtype == torch.float64 else torch.float32
    chosen = choose_backend(backend, u_BDL.device)
    _report(chosen, str(u_BDL.device))
    module = import_module(f"flarekit.models.selective_scan._{chosen}")
    with torch.autocast(u_BDL.device.type, enabled=False):
        tensors = [tensor.to(dtype) for tensor in (u_BDL, delta_BDL, A_DN, B_BNL, C_BNL)]
        y_BDL: torch.Tensor = module.scan(*tensors)
        if D_D is not None:
            y_BDL = torch.addcmul(y_BDL, tensors[0], D_D.to(dtype)[:, None])
    return y_BDL


class SelectiveScan(nn.Module):
    """`selective_scan` as a module without tensors, which converters replace by an own operation.

    Attributes:
        float32_island: computed in float32 whatever the surrounding precision.
        operation: the name under which converters know it.
    """

    float32_island: ClassVar[bool] = True
    operation: ClassVar[str] = "selective_scan"

    def forward(
        self,
        u_BDL: torch.Tensor,
        delta_BDL: torch.Tensor,
        A_DN: torch.Tensor,
        B_BNL: torch.Tensor,
        C_BNL: torch.Tensor,
        D_D: torch.Tensor,
        *,
        backend: Backend = "auto",
    ) -> torch.Tensor:
        """Return y (B, D, L); see `selective_scan`."""
        return selective_scan(u_BDL, delta_BDL, A_DN, B_BNL, C_BNL, D_D, backend=backend)


@cache
def _report(backend: Backend, device: str) -> None:
    """Say once per process what computes the scans of a device."""
    _LOG.info("selective scan: %s on %s", backend, device)


def _interpreted() -> bool:
    from triton import knobs

    return bool(knobs.runtime.interpret)
