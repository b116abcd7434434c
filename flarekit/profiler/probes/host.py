"""The whole machine, counted as the FLARE script counts it."""

from importlib import import_module
from types import ModuleType
from typing import Any

from flarekit.core.readings import Reading

_MIB = 2**20


class HostProbe:
    """Reads memory in use, and user, system and idle time since the last reading.

    The percentages are of user + system + idle + 0.1 s (`get_cpu_usage` of FLARE's Efficiency.py),
    so that short intervals come out low; they are kept so for comparison's sake.

    Args:
        library: what answers like `psutil`; that itself where None, imported at the first reading.
    """

    columns = ("host_ram_mib", "host_user_percent", "host_system_percent", "host_idle_percent")

    def __init__(self, library: ModuleType | None = None) -> None:
        self._library: Any = library
        self._before: tuple[float, float, float] | None = None

    def read(self) -> dict[str, Reading]:
        """Read; the percentages are those since the last reading, all 0 in the first one."""
        if self._library is None:
            self._library = import_module("psutil")
        times = self._library.cpu_times()
        now = (times.user, times.system, times.idle)
        spent = [late - early for late, early in zip(now, self._before or now, strict=True)]
        self._before = now
        user, system, idle = (100.0 * each / (sum(spent) + 0.1) for each in spent)
        return {
            "host_ram_mib": self._library.virtual_memory().used / _MIB,
            "host_user_percent": user,
            "host_system_percent": system,
            "host_idle_percent": idle,
        }

    def close(self) -> None:
        """Do nothing: nothing was opened."""
