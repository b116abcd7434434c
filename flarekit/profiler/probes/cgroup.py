"""The control group of a container (v1 and v2): memory and processor time of all inside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flarekit.profiler.readings import Reading, Unsupported

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """Where the files of a group are; in v2 both folders are one.

    Attributes:
        version: 1 or 2.
        memory: folder of the memory controller.
        cpu: folder that counts processor time.
    """

    version: int
    memory: Path
    cpu: Path


def cgroup_of(pid: int, proc: Path = Path("/proc")) -> Cgroup | Unsupported:
    """Find the group of a process.

    Args:
        pid: the process, as seen from here.
        proc: where the kernel tells; of a recorded tree in tests.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError as error:
        return Unsupported(not_supported=f"{error.filename}: {error.strerror}")
    inside = {
        name: path
        for _, controllers, path in (line.split(":", 2) for line in lines)
        for name in controllers.split(",")
    }
    roots = _roots(mounts)
    if "memory" in inside and "memory" in roots:
        accounting = "cpuacct" if "cpuacct" in roots else "cpu"
        return Cgroup(
            version=1,
            memory=_joined(*roots["memory"], inside["memory"]),
            cpu=_joined(*roots.get(accounting, roots["memory"]), inside.get(accounting, "/")),
        )
    if "" in inside and "" in roots:
        folder = _joined(*roots[""], inside[""])
        return Cgroup(version=2, memory=folder, cpu=folder)
    return Unsupported(not_supported="no memory control group is mounted here")


def _roots(mounts: list[str]) -> dict[str, tuple[Path, str]]:
    """Return controller ('' for v2) -> its mount point and the group that is mounted there."""
    roots: dict[str, tuple[Path, str]] = {}
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        group, point = before.split(" ")[3:5]
        if kind == "cgroup2":
            roots[""] = (Path(point), group)
        elif kind == "cgroup":
            for name in options.split(","):
                roots[name] = (Path(point), group)
    return roots


def _joined(point: Path, mounted: str, group: str) -> Path:
    relative = group.removeprefix(mounted) if mounted != "/" else group
    return point / relative.lstrip("/")


class CgroupProbe:
    """Reads a group.

    Args:
        cgroup: which; None while its container is not there yet.
    """

    columns = ("cgroup_memory_mib", "cgroup_working_mib", "cgroup_cpu_s")

    def __init__(self, cgroup: Callable[[], Cgroup | Unsupported | None]) -> None:
        self._cgroup = cgroup

    def read(self) -> dict[str, Reading]:
        """Read; nothing before the container is there and after it is gone."""
        group = self._cgroup()
        if group is None:
            return {}
        if isinstance(group, Unsupported):
            return dict.fromkeys(self.columns, group)
        readings = _read_v2(group) if group.version == 2 else _read_v1(group)
        if all(isinstance(each, Unsupported) for each in readings.values()):
            return {} if not group.memory.is_dir() else readings
        return readings

    def close(self) -> None:
        """Do nothing: nothing stays open."""


def _read_v2(group: Cgroup) -> dict[str, Reading]:
    usage = _number(group.memory / "memory.current")
    return {
        "cgroup_memory_mib": _scaled(usage, 1 / _MIB),
        "cgroup_working_mib": _working_mib(
            usage, _entry(group.memory / "memory.stat", b"inactive_file")
        ),
        "cgroup_cpu_s": _scaled(_entry(group.cpu / "cpu.stat", b"usage_usec"), 1e-6),
    }


def _read_v1(group: Cgroup) -> dict[str, Reading]:
    usage = _number(group.memory / "memory.usage_in_bytes")
    return {
        "cgroup_memory_mib": _scaled(usage, 1 / _MIB),
        "cgroup_working_mib": _working_mib(
            usage, _entry(group.memory / "memory.stat", b"total_inactive_file")
        ),
        "cgroup_cpu_s": _scaled(_number(group.cpu / "cpuacct.usage"), 1e-9),
    }


def _working_mib(usage: Reading, inactive_file: Reading) -> Reading:
    """Return what `docker stats` shows: without files that the kernel may drop at once."""
    if isinstance(usage, Unsupported):
        return usage
    if isinstance(inactive_file, Unsupported):
        return inactive_file
    return max(0.0, usage - inactive_file) / _MIB


def _number(path: Path) -> Reading:
    content = _content(path)
    return content if isinstance(content, Unsupported) else float(content)


def _entry(path: Path, key: bytes) -> Reading:
    content = _content(path)
    if isinstance(content, Unsupported):
        return content
    _, found, after = (b"\n" + content).partition(b"\n" + key + b" ")
    if not found:
        return Unsupported(not_supported=f"{path.name} has no {key.decode()}")
    return float(after.partition(b"\n")[0])


def _content(path: Path) -> bytes | Unsupported:
    try:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - half the time of the other
            return stream.read()
    except OSError as error:
        return Unsupported(not_supported=f"{path.name}: {error.strerror}")


def _scaled(reading: Reading, factor: float) -> Reading:
    return reading if isinstance(reading, Unsupported) else reading * factor
