"""Device memory: what is in use, what may be, and what to do when it runs out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from flarekit.core.errors import DeviceError
from flarekit.engine._torch_device import device_name

_LOG = logging.getLogger(__name__)
_MIB = 2**20
# what PyTorch raises where there is no room; cuDNN finds no engine whose workspace fits
_OUT_OF_MEMORY = (
    "out of memory",
    "unable to find an engine",
    "ALLOC_FAILED",
    "NOT_SUPPORTED_INSUFFICIENT_DEVICE_MEMORY",
    "DEVICE_ALLOCATION_FAILED",
)
# kernels that are loaded after the cap is set live outside PyTorch's allocator
_LATER_MIB = 64.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Room:
    """What this process may have of a device.

    Attributes:
        mib: for PyTorch's allocator; None where nothing limits it but the device.
        note: what had to be done with less than was asked for, in words; None where nothing.
        is_capped: PyTorch's allocator keeps to it.
    """

    mib: float | None = None
    note: str | None = None
    is_capped: bool = False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device's memory does not suffice."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OUT_OF_MEMORY)


@dataclass(frozen=True)
class NoRoom:
    """Some work that a device has no memory for, in PyTorch's words."""

    reason: str


def attempt(work: Callable[[], T]) -> T | NoRoom:
    """Return what some work gives, or that the device has no room for it.

    What the work held is let go of before this returns: it may be tried again with less.
    """
    try:
        return work()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error)
    return NoRoom(reason)  # here the error is gone, and with it the frames that hold activations


def no_room(device: torch.device, for_what: str, shortage: NoRoom) -> DeviceError:
    """Return the error of a device that has no room for something, however little is asked for."""
    return DeviceError(
        f"{device_name(device)} has no room for {for_what}: {shortage.reason}",
        fix="raise --gpu-memory-budget, use --precision fp16, or run on --device cpu",
    )


def free_cache(device: torch.device) -> None:
    """Give cached memory back to the device."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


def cap_memory(device: torch.device, budget_mib: float) -> Room:
    """Let this process have what a budget leaves of a device, all other use counted in.

    What the driver and other processes use is counted as NVML counts it, and organisers do. Call
    it when the context, the libraries and the kernels of a tile are loaded.
    """
    total_mib = torch.cuda.get_device_properties(device).total_memory / _MIB
    others_mib = used_mib(device) - torch.cuda.memory_reserved(device) / _MIB
    room_mib = min(budget_mib, total_mib) - others_mib - _LATER_MIB
    if room_mib <= 0:
        note = (
            f"{others_mib:.0f} MiB of {device} are in use beside PyTorch's tensors, the budget is "
            f"{budget_mib:.0f} MiB: one tile at a time"
        )
        _LOG.warning(note)
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        return Room(mib=0.0, note=note, is_capped=False)
    torch.cuda.set_per_process_memory_fraction(min(1.0, room_mib / total_mib), device)
    return Room(mib=room_mib, is_capped=True)


def lift_cap(device: torch.device, room: Room, needed_mib: float) -> Room:
    """Let this process have what it needs of a device: a mask counts for more than a budget."""
    note = (
        f"one tile needs about {needed_mib:.0f} MiB of {device}, the memory budget leaves "
        f"{room.mib:.0f}: it takes more"
    )
    _LOG.warning(note)
    torch.cuda.set_per_process_memory_fraction(1.0, device)
    return Room(mib=0.0, note=note)


def used_mib(device: torch.device) -> float:
    """Return what is in use of a CUDA device, by whomever: NVML's figure, else the runtime's."""
    used = _nvml_used_mib(device)
    if used is not None:
        return used
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / _MIB


def _nvml_used_mib(device: torch.device) -> float | None:
    """Return NVML's figure; None where NVML does not know the device."""
    import pynvml  # type: ignore[import-untyped]

    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        _LOG.debug("NVML is not available: %s", error)
        return None
    try:
        for kind in ("GPU", "MIG"):
            try:
                handle = pynvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}".encode())
                return float(pynvml.nvmlDeviceGetMemoryInfo(handle).used) / _MIB
            except pynvml.NVMLError as error:
                _LOG.debug("NVML does not know %s-%s: %s", kind, uuid, error)
    finally:
        pynvml.nvmlShutdown()
    return None
