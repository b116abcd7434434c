"""What a run may use: control groups where they can be made, watched figures where not."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from flarekit.containers import SandboxError

_REMOVAL_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Group:
    """A control group of one run.

    Attributes:
        folder: where the kernel shows it.
        seen_at: where programs inside look for it.
        controllers: what it limits, of `memory` and `pids`.
        version: 1 or 2.
    """

    folder: Path
    seen_at: str
    controllers: tuple[str, ...]
    version: int

    def join(self, pid: int) -> None:
        """Put a process, and so its children to come, into the group."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def was_out_of_memory(self) -> bool:
        """Return whether the kernel killed something in it for its memory."""
        events = "memory.oom_control" if self.version == 1 else "memory.events"
        path = self.folder / events
        if "memory" not in self.controllers or not path.exists():
            return False
        rows = dict(line.split() for line in path.read_text().splitlines())
        return int(rows.get("oom_kill", 0)) > 0

    def peak_mib(self) -> float | None:
        """Return the most memory it had at any moment, page cache included; None if not told."""
        if "memory" not in self.controllers:
            return None
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        try:  # kernels before 5.19 have no memory.peak
            return int((self.folder / name).read_text()) / 2**20
        except (OSError, ValueError):
            return None

    def remove(self) -> None:
        """Remove the group; the kernel may take a moment to see that it is empty."""
        until = time.monotonic() + _REMOVAL_S
        while self.folder.exists():
            is_late = time.monotonic() > until
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            if is_late:
                raise SandboxError(
                    f"{self.folder}: cannot be removed, something still runs in it",
                    fix="end it, then remove the folder with rmdir",
                )
            time.sleep(0.02)


def make_groups(
    name: str,
    *,
    memory_mib: int | None,
    pids: int | None,
    mounts: Path = Path("/proc/self/mountinfo"),
) -> tuple[Group, ...]:
    """Make a run's control groups, as far as this process may.

    They stand at the top of the mounted hierarchy, where Docker's engine puts its own.

    Args:
        name: of the groups.
        memory_mib: most memory, swap included; None for no limit.
        pids: most processes and threads; None for no limit.
        mounts: where the kernel tells what is mounted.

    Returns:
        One for each controller in v1, one for all in v2; a limit that no group has must be
        watched.
    """
    wanted = {"memory": memory_mib, "pids": pids}
    limits = {controller: limit for controller, limit in wanted.items() if limit is not None}
    groups: list[Group] = []
    try:
        for line in mounts.read_text().splitlines():
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            point = Path(before.split(" ")[4])
            if kind == "cgroup":
                here = {key: limits[key] for key in options.split(",") if key in limits}
                seen_at = f"/sys/fs/cgroup/{point.name}"
            elif kind == "cgroup2":
                here = {key: limits[key] for key in _enabled(point) if key in limits}
                seen_at = "/sys/fs/cgroup"
            else:
                continue
            version = 2 if kind == "cgroup2" else 1
            group = Group(
                folder=point / name, seen_at=seen_at, controllers=tuple(here), version=version
            )
            if here and _made(group, here):
                groups.append(group)
    except BaseException:  # an interruption as well: no group is left behind
        for group in groups:
            group.remove()
        raise
    return tuple(groups)


def _enabled(point: Path) -> list[str]:
    """Return the controllers that groups below a v2 hierarchy's top have."""
    try:
        return (point / "cgroup.subtree_control").read_text().split()
    except OSError:
        return []


def _made(group: Group, limits: dict[str, int]) -> bool:
    """Make a group and set its limits; False where this process may not."""
    try:
        group.folder.mkdir()
    except OSError:
        return False
    try:
        for controller, limit in limits.items():
            for file, value in _settings(group.version, controller, limit):
                if "sw" not in file or (group.folder / file).exists():  # a kernel without swap
                    (group.folder / file).write_text(value)
    except OSError:
        group.remove()
        return False
    return True


def _settings(version: int, controller: str, limit: int) -> list[tuple[str, str]]:
    if controller == "pids":
        return [("pids.max", str(limit))]
    size = str(limit * 2**20)
    if version == 1:
        return [("memory.limit_in_bytes", size), ("memory.memsw.limit_in_bytes", size)]
    return [("memory.max", size), ("memory.swap.max", "0")]
