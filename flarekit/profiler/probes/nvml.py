"""The GPU, through nvidia-ml-py: memory and utilisation of one device, memory of our processes."""

from collections.abc import Callable, Collection
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import psutil

from flarekit.core.readings import Reading, Unsupported

_MIB = 2**20
_Answer = TypeVar("_Answer")


class NvmlProbe:
    """Reads one device.

    Args:
        gpu: index as NVML counts (CUDA_VISIBLE_DEVICES has no say), or UUID.
        pids: the processes of the watched tree, asked at every reading; None where they are not
            known.
        library: what answers like `pynvml`; that itself where None, imported at the first reading.
    """

    columns = ("gpu_used_mib", "gpu_charged_mib", "gpu_tree_mib", "gpu_utilisation_percent")

    def __init__(
        self,
        gpu: str,
        pids: Callable[[], Collection[int] | None],
        library: ModuleType | None = None,
    ) -> None:
        self._gpu = gpu
        self._pids = pids
        self._library: Any = library
        self._handle: Any = None
        self._absent: Unsupported | None = None

    def read(self) -> dict[str, Reading]:
        """Read total - free, the processes' share of it and that of others, and the utilisation."""
        absent = self._open()
        if absent is not None:
            return dict.fromkeys(self.columns, absent)
        used = self._asked(self._used_mib)
        shares = self._asked(self._shares_mib)
        others = shares if isinstance(shares, Unsupported) else shares[1]
        return {
            "gpu_used_mib": used,
            "gpu_charged_mib": _less(used, others),
            "gpu_tree_mib": shares if isinstance(shares, Unsupported) else shares[0],
            "gpu_utilisation_percent": self._asked(self._utilisation_percent),
        }

    def facts(self) -> dict[str, str]:
        """Return name, UUID, total memory and driver of the device, or why there are none."""
        absent = self._open()
        if absent is not None:
            return {"gpu": f"not supported: {absent.not_supported}"}
        nvml, handle = self._library, self._handle
        questions: dict[str, Callable[[], str]] = {
            "gpu": lambda: nvml.nvmlDeviceGetName(handle),
            "gpu_uuid": lambda: nvml.nvmlDeviceGetUUID(handle),
            "gpu_memory_mib": lambda: f"{nvml.nvmlDeviceGetMemoryInfo(handle).total / _MIB:.0f}",
            "driver": lambda: nvml.nvmlSystemGetDriverVersion(),
            "driver_cuda": lambda: _version(nvml.nvmlSystemGetCudaDriverVersion_v2()),
        }
        answers = {name: self._asked(question) for name, question in questions.items()}
        return {
            name: f"not supported: {answer.not_supported}"
            if isinstance(answer, Unsupported)
            else answer
            for name, answer in answers.items()
        }

    def close(self) -> None:
        """End the session with the driver."""
        if self._handle is not None:
            self._asked(self._library.nvmlShutdown)
            self._handle = None

    def _open(self) -> Unsupported | None:
        """Find the device at the first call; return why there is none."""
        if self._handle is None and self._absent is None:
            self._absent = self._find()
        return self._absent

    def _find(self) -> Unsupported | None:
        if self._library is None:
            try:
                self._library = import_module("pynvml")
            except ImportError:
                return Unsupported(not_supported="nvidia-ml-py is not installed")
        nvml = self._library
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            return Unsupported(not_supported=str(error))
        try:
            if self._gpu.isdecimal():
                self._handle = nvml.nvmlDeviceGetHandleByIndex(int(self._gpu))
            else:
                self._handle = nvml.nvmlDeviceGetHandleByUUID(self._gpu.encode())
        except nvml.NVMLError as error:
            self._asked(nvml.nvmlShutdown)
            return Unsupported(not_supported=f"GPU {self._gpu}: {error}")
        return None

    def _asked(self, question: Callable[[], _Answer]) -> _Answer | Unsupported:
        """Return the library's answer, or what it has against answering.

        A driver that is older than the library may lack a function altogether.
        """
        nvml = self._library
        mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
        try:
            return question()
        except (nvml.NVMLError, mismatch) as error:
            return Unsupported(not_supported=str(error))

    def _used_mib(self) -> Reading:
        memory = self._library.nvmlDeviceGetMemoryInfo(self._handle)
        return float((memory.total - memory.free) / _MIB)

    def _utilisation_percent(self) -> Reading:
        return float(self._library.nvmlDeviceGetUtilizationRates(self._handle).gpu)

    def _processes(self) -> list[Any]:
        """Return what runs on the device, each process once; a desktop's programs too."""
        compute = self._library.nvmlDeviceGetComputeRunningProcesses(self._handle)
        graphics = self._asked(
            lambda: self._library.nvmlDeviceGetGraphicsRunningProcesses(self._handle)
        )
        others = [] if isinstance(graphics, Unsupported) else graphics
        return list({process.pid: process for process in (*others, *compute)}.values())

    def _shares_mib(self) -> tuple[Reading, Reading] | Unsupported:
        """Return the memory of the watched processes, and that of all others."""
        ours, shares = self._pids(), [0.0, 0.0]
        if ours is None:
            return Unsupported(not_supported="the watched processes are not seen from here")
        silent = [False, False]
        for process in self._processes():
            is_other = process.pid not in ours
            if is_other and not psutil.pid_exists(process.pid):
                if process.pid not in {each.pid for each in self._processes()}:
                    continue  # it ended meanwhile
                return Unsupported(
                    not_supported=f"the driver names process {process.pid}, which is not in this "
                    "PID namespace: run the profiler outside the container"
                )
            if process.usedGpuMemory is None:
                silent[is_other] = True
            else:
                shares[is_other] += process.usedGpuMemory / _MIB
        own, others = (
            Unsupported(not_supported="the driver does not tell memory by process")
            if is_silent
            else share
            for is_silent, share in zip(silent, shares, strict=True)
        )
        return own, others


def _less(used_mib: Reading, others_mib: Reading) -> Reading:
    if isinstance(used_mib, Unsupported):
        return used_mib
    return others_mib if isinstance(others_mib, Unsupported) else max(0.0, used_mib - others_mib)


def _version(number: int) -> str:
    """Return 12.4 for 12040."""
    return f"{number // 1000}.{number % 1000 // 10}"
