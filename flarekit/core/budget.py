"""Budgets: the time and memory that a case may take."""

from dataclasses import dataclass
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # v2, v1
_NO_LIMIT_BYTES = 1 << 60  # cgroup v1 writes a number even where there is none


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one case; None where there is none.

    Attributes:
        time_s: wall time until the mask is written, start-up included for the first case.
        gpu_memory_mib: in use on the device, the driver's and other processes' share included.
        ram_mib: resident memory of this process.
    """

    time_s: float | None = None
    gpu_memory_mib: float | None = None
    ram_mib: float | None = None


def container_memory_mib() -> float | None:
    """Return the memory limit of the container around this process; None where there is none."""
    for path in map(Path, _LIMITS):
        try:
            limit = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit() and int(limit) < _NO_LIMIT_BYTES:
            return int(limit) / 2**20
    return None
