"""The control group of a container (v1 and v2): memory and processor time of all inside it."""

import errno
from dataclasses import dataclass
from pathlib import Path

from flarekit.core.readings import Reading, Unsupported

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


@dataclass(frozen=True, kw_only=True)
class Missing(Unsupported):
    """A file of the group is not there: it never was, or the group is gone."""


def kernel_peak_mib(group: Cgroup) -> Reading:
    """Return the most memory the group had at any moment, page cache included.

    Linux keeps it from 5.19 on where groups are of version 2.
    """
    name = "memory.peak" if group.version == 2 else "memory.max_usage_in_bytes"
    return _scaled(_number(group.memory / name), 1 / _MIB)


def figures_of(group: Cgroup) -> dict[str, Reading]:
    """Return the figures of a group as they are now: column -> reading."""
    is_v2 = group.version == 2
    usage = _number(group.memory / ("memory.current" if is_v2 else "memory.usage_in_bytes"))
    cache = _cache(group.memory / "memory.stat", b"" if is_v2 else b"total_")
    if is_v2:
        cpu_s = _scaled(_entry(group.cpu / "cpu.stat", b"usage_usec"), 1e-6)
    else:
        cpu_s = _scaled(_number(group.cpu / "cpuacct.usage"), 1e-9)
    return {
        "cgroup_memory_mib": _scaled(usage, 1 / _MIB),
        "cgroup_working_mib": _working_mib(usage, cache),
        "cgroup_cache_mib": _scaled(cache, 1 / _MIB),
        "cgroup_peak_mib": kernel_peak_mib(group),
        "cgroup_cpu_s": cpu_s,
    }


def _cache(stat: Path, prefix: bytes) -> Reading:
    """Return bytes of files in memory, which the kernel may drop; shared memory is not of them."""
    total = 0.0
    for kind in (b"inactive_file", b"active_file"):
        entry = _entry(stat, prefix + kind)
        if isinstance(entry, Unsupported):
            return entry
        total += entry
    return total


def _working_mib(usage: Reading, cache: Reading) -> Reading:
    """Return what processes hold, without files that the kernel may drop."""
    if isinstance(usage, Unsupported):
        return usage
    if isinstance(cache, Unsupported):
        return cache
    return max(0.0, usage - cache) / _MIB


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
            content = stream.read()
    except OSError as error:
        kind = Missing if error.errno in (errno.ENOENT, errno.ENODEV) else Unsupported
        return kind(not_supported=f"{path.name}: {error.strerror}")
    return content or Missing(not_supported=f"{path.name} is empty")


def _scaled(reading: Reading, factor: float) -> Reading:
    return reading if isinstance(reading, Unsupported) else reading * factor
