"""Memory of the device, as everyone counts it, and waiting for the device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

_MIB = 2**20


def gpu_index() -> str:
    """Return the device that NVML is to be asked for: the first one that CUDA shows."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"


class Nvml:
    """The driver's own account of one device; without one every answer says so."""

    def __init__(self) -> None:
        self.fault: str | None = None
        try:
            import pynvml  # type: ignore[import-untyped]

            pynvml.nvmlInit()
            index = gpu_index()
            if index.isdecimal():
                self._handle = pynvml.nvmlDeviceGetHandleByIndex(int(index))
            else:
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(index)
            self._nvml: Any = pynvml
        except Exception as error:  # noqa: BLE001 - the library's own, which needs the library
            self.fault = f"{type(error).__name__}: {error}"

    def memory(self) -> dict[str, Any]:
        """Return used and reserved MiB; version 1 counts what the driver reserves, 2 does not."""
        if self.fault is not None:
            return {"not_supported": self.fault}
        first = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        told: dict[str, Any] = {
            "v1_used_mib": mib(first.used),
            "v1_total_less_free_mib": mib(first.total - first.free),
        }
        try:
            version = getattr(self._nvml, "nvmlMemory_v2", 0x02000028)
            second = self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=version)
            told |= {"v2_used_mib": mib(second.used), "v2_reserved_mib": mib(second.reserved)}
        except Exception as error:  # noqa: BLE001 - an older library or driver
            told["v2_not_supported"] = str(error)
        return told


def mib(count: float) -> float:
    """Return bytes in MiB."""
    return round(count / _MIB, 1)


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def cuda_memory() -> dict[str, float]:
    """Return torch's and CUDA's account of the device; starts CUDA where it is not."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return {
        "cuda_total_less_free_mib": mib(total - free),
        "allocated_mib": mib(torch.cuda.memory_allocated()),
        "reserved_mib": mib(torch.cuda.memory_reserved()),
        "peak_allocated_mib": mib(torch.cuda.max_memory_allocated()),
        "peak_reserved_mib": mib(torch.cuda.max_memory_reserved()),
    }


def ms_each(
    work: Callable[[], object], device: str, *, rounds: int = 20, most_s: float = 1.0
) -> float:
    """Return the milliseconds of one call: the mean of some rounds after one that warms up."""
    work()
    synchronize(device)
    began, done = time.perf_counter(), 0
    while done < rounds:
        work()
        done += 1
        if done % 4 == 0 or device == "cpu":
            synchronize(device)
            if time.perf_counter() - began > most_s:
                break
    synchronize(device)
    return round((time.perf_counter() - began) * 1000 / done, 4)
