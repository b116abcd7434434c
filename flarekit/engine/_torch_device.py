"""Which device and which precision a request means to PyTorch."""

import logging
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from flarekit.core.errors import DeviceError
from flarekit.core.spec import HalfPrecision
from flarekit.engine import Precision, sees_gpu
from flarekit.engine._cpu import cpu_has_bf16, cpu_name, cpu_runs_bf16
from flarekit.engine._cuda_driver import driver_fault, installed_driver

_LOG = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BOTH: tuple[HalfPrecision, ...] = ("fp16", "bf16")
_AMPERE = (8, 0)  # the first compute capability whose instructions have bf16


def choose_device(request: str) -> torch.device:
    """Return the device that a request means.

    Args:
        request: `auto` (the first CUDA device, or the CPU where there is none), `cpu`, `cuda`,
            `cuda:N`, or the UUID of a GPU or of a MIG instance (`GPU-...`, `MIG-...`, as nvidia-smi
            lists them; their first characters are enough).

    Raises:
        DeviceError: not such a word, or no such device here.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?|(?:GPU|MIG|MIG-GPU)-[0-9a-fA-F/-]+", request)
    if match is None:
        fix = "use auto, cpu, cuda, cuda:N, or a UUID such as GPU-... or MIG-..."
        raise DeviceError(f"no device {request!r}", fix=fix)
    if request == "cpu":
        return torch.device("cpu")
    has_uuid = request.startswith(("GPU-", "MIG-"))
    index = _index_of(request) if has_uuid else int(match[1] or 0)
    chosen = torch.device("cuda", index)
    fault = opening_fault(chosen)
    if fault is None:
        return chosen
    if request == "auto":
        if sees_gpu():
            _LOG.warning("the GPU here stays unused: %s", fault)
        return torch.device("cpu")
    raise DeviceError(
        f"device {request!r} is not available: {fault}",
        fix="use --device cpu, another device, or run the container with --gpus",
    )


def _index_of(uuid: str) -> int:
    """Return the number of the device with a UUID among those that are visible.

    CUDA shows one MIG instance to a process at most, the one that it is told before it starts.

    Raises:
        DeviceError: there is none, or more than one.
    """
    if uuid.startswith("MIG-") and not torch.cuda.is_initialized():
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", uuid)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 1 and uuid.startswith("MIG-") and uuid == os.environ.get("CUDA_VISIBLE_DEVICES"):
        return 0  # CUDA shows what it was told; older ones give the GPU's UUID, not the instance's
    uuids = [str(torch.cuda.get_device_properties(index).uuid).lower() for index in range(count)]
    wanted = uuid[len("GPU-") :].lower()
    found = [index for index, each in enumerate(uuids) if each.startswith(wanted)]
    if len(found) != 1:
        kind = uuid[: len("GPU")]
        visible = ", ".join(f"{kind}-{each}" for each in uuids) or "none"
        raise DeviceError(
            f"device {uuid!r} names {len(found) or 'none'} of the visible CUDA devices: {visible}",
            fix="name one of them; a MIG instance must be the only device in CUDA_VISIBLE_DEVICES",
        )
    return found[0]


def opening_fault(device: torch.device) -> str | None:
    """Open a CUDA device and return why that fails, in one sentence; None where it does not.

    That a driver is installed says little: it may be older than this PyTorch needs, and the GPU
    older than its kernels.
    """
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            if not torch.cuda.is_available():
                too_old = driver_fault(installed_driver(), torch.version.cuda)
                return too_old or _first_sentence(said) or "no driver or no GPU is visible"
            count = torch.cuda.device_count()
            if device.index >= count:
                return f"{device} does not exist, {count} CUDA device(s) are visible"
            if not _has_kernels(device):
                major, minor = torch.cuda.get_device_capability(device)
                return (
                    f"{torch.cuda.get_device_name(device)} is of architecture sm_{major}{minor}, "
                    f"this PyTorch has kernels for {', '.join(torch.cuda.get_arch_list())}"
                )
            int(torch.ones(1, device=device).sum())
        except RuntimeError as error:
            return str(error).strip().splitlines()[0]
    return None


def _has_kernels(device: torch.device) -> bool:
    """Return whether this PyTorch has machine code, or PTX, that runs on a device."""
    if not torch.cuda.get_arch_list():
        return True  # a build that does not say
    major, minor = torch.cuda.get_device_capability(device)
    for kind, digits in (each.split("_", 1) for each in torch.cuda.get_arch_list()):
        number = int(re.match(r"\d+", digits)[0])  # type: ignore[index]
        own, has_suffix = divmod(number, 10), not digits.isdigit()
        if own == (major, minor) or (kind == "compute" and own <= (major, minor)):
            return True
        if own[0] == major and own[1] <= minor and not has_suffix:
            return True  # machine code runs on later devices of its generation
    return False


def _first_sentence(said: Sequence[warnings.WarningMessage]) -> str | None:
    """Return what PyTorch warned of when it found no device, without its advice."""
    words = " ".join(str(warning.message) for warning in said)
    words = words.removeprefix("CUDA initialization: ")
    return words.split(". ")[0].strip() or None


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
    if device.type == "cuda":
        available = [half for half in _BOTH if is_native(half, device)]
    else:  # where a CPU lacks it, a tile in bf16 takes PyTorch 139 times as long as in fp32
        available = ["bf16"] if cpu_runs_bf16() else []
    if request not in (*available, "fp32"):
        raise DeviceError(
            f"{request} is not available on {device_name(device)}",
            fix=f"use --precision {' or '.join([*available, 'fp32'])}",
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


def compute_fp32_exactly() -> None:
    """Switch TF32 off, in this process: ten bits of a float32 product are not float32.

    PyTorch's convolutions use it on CUDA unless told otherwise. What is computed in half precision
    does not change.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    if hasattr(getattr(cudnn, "conv", None), "fp32_precision"):  # PyTorch 2.9 and later
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = matmul.fp32_precision = "ieee"
    else:
        cudnn.allow_tf32 = matmul.allow_tf32 = False


def compute_repeatably() -> None:
    """Let cuDNN and cuBLAS take algorithms that give the same bits in every run, in this process.

    cuBLAS reads its setting when it starts; where that has happened, it keeps the one it has.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def entered(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device the current one, as kernels of others than PyTorch need."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class Answer:
    """Whether something on a device is true, without waiting for what was launched after it."""

    def __init__(self, flag: torch.Tensor) -> None:
        self._flag = flag
        self._ready: torch.cuda.Event | None = None
        if flag.device.type == "cuda":
            host = torch.empty((), dtype=flag.dtype, pin_memory=True)
            self._flag, self._ready = host.copy_(flag, non_blocking=True), torch.cuda.Event()
            self._ready.record()

    def __bool__(self) -> bool:
        if self._ready is not None:
            self._ready.synchronize()
        return bool(self._flag)
