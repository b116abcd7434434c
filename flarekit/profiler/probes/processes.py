"""A tree of processes, through psutil: resident memory, memory of its own, processor time."""

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

import psutil

from flarekit.core.readings import Reading, Unsupported

_MIB = 2**20
_USS_SHARE = 0.0005
_KERNEL_TELLS_CHILDREN = Path("/proc/self/task", str(os.getpid()), "children").exists()
_EVERY_S = 1.0  # between two looks at what is dear: children of all threads, unique memory


class ProcessTree:
    """Who belongs to a process: itself and all below it.

    On Linux the children of each main thread are looked up every time (15 microseconds a process),
    those of all other threads once a second; elsewhere everyone's once a second. A process stays in
    the tree when its parent goes.

    Args:
        root: its pid; None while it is not started.
    """

    def __init__(self, root: Callable[[], int | None]) -> None:
        self._root = root
        self._known: frozenset[int] = frozenset()
        self._looked_at = -_EVERY_S

    def pids(self) -> frozenset[int]:
        """Return the processes that are alive."""
        root = self._root()
        if root is None:
            return frozenset()
        thoroughly = time.monotonic() - self._looked_at >= _EVERY_S
        if thoroughly:
            self._looked_at = time.monotonic()
        alive: set[int] = set()
        waiting = [root, *self._known]
        while waiting:
            pid = waiting.pop()
            children = None if pid in alive else _children(pid, thoroughly=thoroughly)
            if children is not None:
                alive.add(pid)
                waiting.extend(children)
        self._known = frozenset(alive)
        return self._known

    def last(self) -> frozenset[int]:
        """Return what `pids` returned last, without looking again."""
        return self._known


def _children(pid: int, *, thoroughly: bool) -> list[int] | None:
    """Return a process's children; None where it is gone."""
    if not _KERNEL_TELLS_CHILDREN:
        return _children_by_search(pid) if thoroughly else _none_if_gone(pid)
    try:
        tasks = os.listdir(f"/proc/{pid}/task") if thoroughly else [str(pid)]  # noqa: PTH208
    except OSError:
        return None
    children: list[int] = []
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as stream:  # noqa: PTH123
                children.extend(map(int, stream.read().split()))
        except OSError:
            if task == str(pid):
                return None
    return children


def _children_by_search(pid: int) -> list[int] | None:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return None


def _none_if_gone(pid: int) -> list[int] | None:
    return [] if psutil.pid_exists(pid) else None


class ProcessesProbe:
    """Reads the sum over some processes.

    Args:
        pids: who they are, asked at every reading.
        peak_mib: what the kernel says at the end of the largest of them; None before.
    """

    columns = ("tree_rss_mib", "tree_uss_mib", "tree_cpu_s", "tree_peak_mib")

    def __init__(
        self,
        pids: Callable[[], Collection[int]],
        peak_mib: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._pids = pids
        self._peak_mib = peak_mib
        self._processes: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, float] = {}
        self._uss_due = 0.0

    def read(self) -> dict[str, Reading]:
        """Read; memory that is the tree's own (USS) once a second at most.

        The kernel walks all pages for it: it is read so rarely that it takes 0.05 % of a core.
        """
        pids = self._pids()
        peak_mib = self._peak_mib()
        peak: dict[str, Reading] = {} if peak_mib is None else {"tree_peak_mib": peak_mib}
        if not pids and not self._cpu_s:
            return peak
        rss, denied = 0, None
        for pid in pids:
            try:
                process = self._processes.get(pid) or psutil.Process(pid)
                self._processes[pid] = process
                times = process.cpu_times()
                self._cpu_s[pid] = times.user + times.system
                rss += process.memory_info().rss
            except psutil.AccessDenied:
                denied = Unsupported(not_supported=f"not allowed to look at process {pid}")
            except psutil.NoSuchProcess:
                continue
        if denied is not None:
            return dict.fromkeys(self.columns, denied)
        readings: dict[str, Reading] = {
            **peak,
            "tree_rss_mib": rss / _MIB,
            "tree_cpu_s": sum(self._cpu_s.values()),
        }
        if time.monotonic() >= self._uss_due:
            began = time.thread_time()
            readings["tree_uss_mib"] = self._uss_mib(pids)
            spent_s = time.thread_time() - began
            self._uss_due = time.monotonic() + max(_EVERY_S, spent_s / _USS_SHARE)
        return readings

    def close(self) -> None:
        """Forget the processes."""
        self._processes.clear()

    def _uss_mib(self, pids: Collection[int]) -> Reading:
        total = 0
        for pid in pids:
            try:
                total += self._processes[pid].memory_full_info().uss
            except psutil.AccessDenied:
                return Unsupported(not_supported=f"not allowed to look into process {pid}")
            except (psutil.NoSuchProcess, KeyError):
                continue
        return total / _MIB
