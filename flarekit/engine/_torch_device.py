"""Which device and which precision a request means to PyTorch."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from flarekit.core.errors import DeviceError
from flarekit.core.spec import HalfPrecision
from flarekit.engine import Precision
from flarekit.engine._cpu import cpu_has_bf16, cpu_name

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BOTH: tuple[HalfPrecision, ...] = ("fp16", "bf16")
_AMPERE = (8, 0)  # the first compute capability whose instructions have bf16


def choose_device(request: str) -> torch.device:
    """Return the device that a request means.

    Args:
        request: `auto` (the first CUDA device, or the CPU where there is none), `cpu`, `cuda` or
            `cuda:N`.

    Raises:
        DeviceError: not such a word, or no such device here.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", request)
    if match is None:
        raise DeviceError(f"no device {request!r}", fix="use auto, cpu, cuda or cuda:N")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if request == "cpu" or (request == "auto" and not available):
        return torch.device("cpu")
    index = int(match[1] or 0)
    if not available:
        why = "no driver or no GPU is visible" if torch.version.cuda else "this torch is CPU-only"
        raise DeviceError(
            f"device {request!r} is not available: {why}",
            fix="use --device cpu, or run the container with --gpus",
        )
    if index >= available:
        raise DeviceError(
            f"device {request!r} does not exist: {available} CUDA device(s) visible",
            fix=f"use cuda:0 to cuda:{available - 1}",
        )
    return torch.device("cuda", index)


def choose_precision(
    request: Precision,
    device: torch.device,
    half_precisions: Sequence[HalfPrecision] = _BOTH,
) -> str:
    """Return the precision that a request means on a device.

    `auto` is the first that the networks are finite in and the device has instructions for: of
    fp16, bf16 and fp32 on CUDA, of bf16 and fp32 on a CPU.

    Args:
        request: `auto`, or the one to use.
        device: from `choose_device`.
        half_precisions: those in which the networks' activations stay finite.

    Raises:
        DeviceError: the device does not compute in that precision.
    """
    if request == "auto":
        fastest: tuple[HalfPrecision, ...] = _BOTH if device.type == "cuda" else ("bf16",)
        suiting = (half for half in fastest if half in half_precisions)
        return next((half for half in suiting if is_native(half, device)), "fp32")
    if request == "fp16" if device.type == "cpu" else not is_native(request, device):
        raise DeviceError(
            f"{request} is not available on {device_name(device)}",
            fix=f"use --precision {'fp16' if device.type == 'cuda' else 'bf16'} or fp32",
        )
    return request


def is_native(precision: str, device: torch.device) -> bool:
    """Return whether a device has instructions for a precision: emulation does not count."""
    if precision == "fp32":
        return True
    if device.type == "cuda":
        return precision == "fp16" or torch.cuda.get_device_capability(device) >= _AMPERE
    return precision == "bf16" and cpu_has_bf16()


def wider_precision(precision: str, device: torch.device) -> str | None:
    """Return what to compute in where a precision overflows; None where nothing is wider."""
    if precision == "fp32":
        return None
    return "bf16" if precision == "fp16" and is_native("bf16", device) else "fp32"


def device_name(device: torch.device) -> str:
    """Return the processor's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
