"""What probes read at one moment, and what the columns mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from flarekit.core.readings import Reading


@dataclass(frozen=True, kw_only=True)
class Sample:
    """All readings of one moment.

    Attributes:
        t_s: since the watched thing was started; 0 just before that.
        readings: column -> reading; a column is missing while there is nothing to read yet.
    """

    t_s: float
    readings: Mapping[str, Reading]


class Probe(Protocol):
    """One source of readings. Nothing is opened before the first `read`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads."""
        ...

    def read(self) -> dict[str, Reading]:
        """Read now; a column is left out while there is nothing to read yet."""
        ...

    def close(self) -> None:
        """Close what `read` opened."""
        ...


COLUMNS = {
    "gpu_used_mib": "GPU memory in use on the device (total - free)",
    "gpu_charged_mib": "GPU memory in use on the device, less that of other processes",
    "gpu_tree_mib": "GPU memory of the watched processes",
    "gpu_utilisation_percent": "GPU utilisation",
    "tree_rss_mib": "resident memory of the process tree",
    "tree_uss_mib": "memory that only the process tree has",
    "tree_peak_mib": "most resident memory of one process of the tree, by the kernel",
    "tree_cpu_s": "processor time of the process tree so far",
    "cgroup_memory_mib": "memory of the container (page cache included)",
    "cgroup_working_mib": "memory of the container (without page cache)",
    "cgroup_cache_mib": "page cache of the container",
    "cgroup_peak_mib": "most memory of the container so far, by the kernel (page cache included)",
    "cgroup_cpu_s": "processor time of the container so far",
    "host_ram_mib": "memory in use on the host",
    "host_user_percent": "processor, user (official)",
    "host_system_percent": "processor, system (official)",
    "host_idle_percent": "processor, idle (official)",
}
