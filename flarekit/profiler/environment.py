"""What a profile ran on, in words."""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from flarekit.core.cores import usable_cores
from flarekit.core.package import VERSION
from flarekit.profiler.probes.nvml import NvmlProbe

_REPORTED = ("psutil", "nvidia-ml-py", "numpy", "torch", "openvino")


def environment(gpu: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return facts of the machine, the GPU and the programs.

    Args:
        gpu: index or UUID of the device that is watched.
        extra: of what is run, put first.
    """
    probe = NvmlProbe(gpu, frozenset)
    try:
        gpu_facts = probe.facts()
    finally:
        probe.close()
    facts = {
        **(extra or {}),
        **gpu_facts,
        "cpu": _cpu_name(),
        "cores": f"{usable_cores()} usable of {os.cpu_count()}",
        "ram_mib": f"{psutil.virtual_memory().total / 2**20:.0f}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "flarekit": VERSION,
    }
    for name in _REPORTED:
        with suppress(PackageNotFoundError):
            facts[name] = version(name)
    return facts


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
