"""The selective scan of Mamba (Gu and Dao 2023, Algorithm 2), by several backends.

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t        y_t = C_t . h_t + D u_t

Each backend is a module with `scan(u_BDL, delta_BDL, A_DN, B_BNL, C_BNL)`, which returns y
(B, D, L) without the skip term D u.

Shape letters: B batch, L tokens, D channels (d_inner), N states per channel.
"""

import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar, Literal

import torch
from torch import nn

from flarekit.core.errors import DeviceError
from flarekit.models.selective_scan._proof import entered, fault_of

__all__ = [
    "BACKENDS",
    "Backend",
    "SelectiveScan",
    "choose_backend",
    "selective_scan",
]

_LOG = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "chunked", "triton", "nvrtc", "mamba_ssm"]
BACKENDS: tuple[Backend, ...] = ("reference", "chunked", "triton", "nvrtc", "mamba_ssm")
# packages that backends of the same name need, and what brings them
_PACKAGES = {"triton": "triton", "mamba_ssm": "mamba-ssm"}
_KERNELS = ("triton", "nvrtc", "mamba_ssm")  # are given addresses, and read what lies there
# what `auto` tries, best first
_ORDER: dict[str, tuple[Backend, ...]] = {"cuda": ("mamba_ssm", "nvrtc", "triton", "chunked")}


def choose_backend(backend: Backend, device: torch.device) -> Backend:
    """Return the backend that a request means on a device; only `auto` leaves a choice.

    On CUDA `auto` is the first of mamba_ssm's kernel, ours compiled by NVRTC, ours in Triton and
    the chunked scan that has run a small scan there, in this process, and agreed with the
    reference; elsewhere the chunked scan. Installed ones that did not are named in a warning.

    Raises:
        DeviceError: the backend asked for cannot run on that device, or is not installed.
    """
    if backend not in ("auto", *BACKENDS):
        raise DeviceError(f"no scan backend {backend!r}", fix=f"known: {', '.join(BACKENDS)}")
    if backend == "auto":
        return _first_that_works(device)[0]
    if backend in _PACKAGES and find_spec(backend) is None:
        raise DeviceError(
            f"scan backend {backend!r} is not installed", fix=f"pip install {_PACKAGES[backend]}"
        )
    on_cuda_only = backend in ("mamba_ssm", "nvrtc") or (backend == "triton" and not _interpreted())
    if on_cuda_only and device.type != "cuda":
        instead = ", or TRITON_INTERPRET=1" if backend == "triton" else ""
        raise DeviceError(
            f"scan backend {backend!r} needs a CUDA device", fix=f"use 'chunked'{instead}"
        )
    return backend


@cache
def _first_that_works(device: torch.device) -> tuple[Backend, tuple[str, ...]]:
    """Return what `auto` means, and what is wrong with each that would have been better."""
    order, faults = _ORDER.get(device.type, ("chunked",)), list[str]()
    for name in order:
        if name in _PACKAGES and find_spec(name) is None:
            continue
        fault = fault_of(name, device) if len(order) > 1 else None
        if fault is None:
            break
        faults.append(f"{name} does not work: {fault}")
    for fault in faults:
        _LOG.warning("selective scan on %s: %s", device, fault)
    _LOG.info("selective scan: %s on %s", name, device)
    return name, tuple(faults)


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
    scan = import_module(f"flarekit.models.selective_scan._{chosen}").scan
    if chosen in _KERNELS and _has_no_contents(u_BDL):
        scan = _shape_alone
    with torch.autocast(u_BDL.device.type, enabled=False):
        tensors = [tensor.to(dtype) for tensor in (u_BDL, delta_BDL, A_DN, B_BNL, C_BNL)]
        with entered(u_BDL.device):
            y_BDL: torch.Tensor = scan(*tensors)
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

    @staticmethod
    def computed_by(device: torch.device) -> str:
        """Return the backend that `auto` means there, and in brackets why no better one does."""
        backend, faults = _first_that_works(device)
        return f"{backend} ({'; '.join(faults)})" if faults else backend

    def forward(self, *tensors: torch.Tensor, backend: Backend = "auto") -> torch.Tensor:
        """Return y (B, D, L) of u, delta, A, B, C and D; see `selective_scan`."""
        return selective_scan(*tensors, backend=backend)


def _has_no_contents(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is one that memory is estimated with."""
    if type(tensor) is torch.Tensor:
        return False
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


def _shape_alone(*tensors: torch.Tensor) -> torch.Tensor:
    """Return what a kernel returns, and allocate what it allocates; launch nothing.

    A kernel that reads where there is nothing ends all work of its process on that device.
    """
    u_BDL, *_ = [tensor.contiguous() for tensor in tensors]
    return torch.empty_like(u_BDL)


def _interpreted() -> bool:
    from triton import knobs

    return bool(knobs.runtime.interpret)
