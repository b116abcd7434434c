"""The control group of a container, sampled: memory and processor time of all inside it."""

from collections.abc import Callable

from flarekit.containers.cgroup_figures import Cgroup, Missing, figures_of
from flarekit.core.readings import Reading, Unsupported


class CgroupProbe:
    """Reads a group.

    Args:
        cgroup: which; None while its container is not there yet.
        peak_mib: the kernel's peak, where somebody looks at it more often; None while not known.
    """

    columns = (
        "cgroup_memory_mib",
        "cgroup_working_mib",
        "cgroup_cache_mib",
        "cgroup_peak_mib",
        "cgroup_cpu_s",
    )

    def __init__(
        self,
        cgroup: Callable[[], Cgroup | Unsupported | None],
        peak_mib: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._cgroup = cgroup
        self._peak_mib = peak_mib
        self._seen: set[str] = set()

    def read(self) -> dict[str, Reading]:
        """Read; nothing before the container is there, and only its peak after it is gone.

        A file that was there before and is not now went with the group: that is not a fault.
        """
        group = self._cgroup()
        if group is None:
            return {}
        if isinstance(group, Unsupported):
            return dict.fromkeys(self.columns, group)
        readings = figures_of(group)
        is_gone = not self._seen and not group.memory.is_dir()
        kept = {
            column: reading
            for column, reading in readings.items()
            if not (isinstance(reading, Missing) and (is_gone or column in self._seen))
        }
        self._seen |= {column for column, value in kept.items() if isinstance(value, float)}
        peak = self._peak_mib()
        return kept if peak is None else {**kept, "cgroup_peak_mib": peak}

    def close(self) -> None:
        """Do nothing: nothing stays open."""
