"""A run from its start to its end: signals, deadlines, and limits that the kernel does not keep."""

import contextlib
import os
import platform
import resource
import signal
import subprocess
import time
from dataclasses import dataclass, replace

from flarekit.containers import ProcessResult, Run, SandboxError
from flarekit.containers.accounts import Account
from flarekit.containers.network import NetworkTries
from flarekit.containers.sandboxed_process import SandboxedProcess

_FIRST_S = 0.02
_SAMPLE_S = 0.1
_KILL_S = 30.0
_PROCESSES_PER_NAMESPACE = (5, 14)  # the kernel since which RLIMIT_NPROC counts so
_EVER = float("inf")


@dataclass(frozen=True, kw_only=True)
class WatchedLimits:
    """Limits that are kept by looking: a run that is above one is killed."""

    memory_mib: int | None = None
    pids: int | None = None


def follow(child: SandboxedProcess, run: Run, watched: WatchedLimits) -> ProcessResult:
    """Let a program run until it has ended; signal it, and kill it, when it is time.

    Raises:
        SandboxError: it does not end when killed, or could not be set up.
    """
    with NetworkTries(0 if run.conditions.network else child.pid) as tries:
        return _followed(child, run, watched, tries)


def _followed(
    child: SandboxedProcess, run: Run, watched: WatchedLimits, tries: NetworkTries
) -> ProcessResult:
    peak_mib: float | None = None
    signalled_s: float | None = None
    timed_out = out_of_memory = False
    killed_for = ""
    pause_s = _FIRST_S
    began = time.monotonic()
    child.go()
    while not child.wait(pause_s):
        usage = usage_of(child.pid)
        if usage is not None:
            peak_mib = max(peak_mib or 0.0, usage.resident_mib)
            out_of_memory = usage.resident_mib > (watched.memory_mib or _EVER)
            if usage.threads > (watched.pids or _EVER):
                killed_for = (
                    f"\nflarekit: killed for {usage.threads} processes and threads, "
                    f"where there may be {watched.pids}\n"
                )
        now_s = time.monotonic() - began
        timed_out = now_s >= run.timeout_s and not child.wait(0)  # we may be late, not it
        if timed_out or out_of_memory or killed_for:
            _kill(child)
            break
        to_signal_s = _EVER
        if signalled_s is None and run.terminate_after_s is not None:
            to_signal_s = run.terminate_after_s - now_s
            if to_signal_s <= 0:
                child.signal(signal.SIGTERM)
                signalled_s, to_signal_s = now_s, _EVER
        pause_s = min(_SAMPLE_S, run.timeout_s - now_s, to_signal_s)
    seconds = time.monotonic() - began
    ended = child.end()
    return replace(
        ended,
        stderr=ended.stderr + killed_for,
        seconds=seconds,
        timed_out=timed_out,
        stopped_after_s=None if signalled_s is None else seconds - signalled_s,
        peak_mib=peak_mib,
        network_tries=tries.count(),
        out_of_memory=out_of_memory,
    )


def limit_processes(pid: int, most: int | None, account: Account) -> int | None:
    """Limit a program's processes by RLIMIT_NPROC.

    Args:
        pid: the program, in a user namespace of its own unless it is root's.
        most: processes and threads; None for no limit.
        account: the program's user.

    Returns:
        The limit where the kernel would not keep it, so that it must be watched.

    Raises:
        SandboxError: the kernel refuses the limit.
    """
    release = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdecimal())
    root = os.geteuid() == 0
    if most is None or (root and account.uid == 0) or release < _PROCESSES_PER_NAMESPACE:
        return most
    if not root:
        resource.prlimit(pid, resource.RLIMIT_NPROC, (most, most))
        return None
    most += 1  # bubblewrap, which waits for the program, is this user's, too
    limited = subprocess.run(
        ["prlimit", "--pid", str(pid), f"--nproc={most}"],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if limited.returncode:
        raise SandboxError(
            f"the number of processes cannot be limited: {limited.stderr.strip()}",
            fix="verify with a Docker engine",
        )
    return None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the processes of a run use at a time."""

    resident_mib: float
    threads: int


def usage_of(pid: int) -> Usage | None:
    """Return what a process and all that it started use; None where it is gone."""
    import psutil

    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]
    except psutil.Error:
        return None
    resident, threads = 0.0, 0
    for process in family:
        with contextlib.suppress(psutil.Error), process.oneshot():
            resident += process.memory_info().rss / 2**20
            threads += process.num_threads()
    return Usage(resident_mib=resident, threads=threads) if threads else None


def _kill(child: SandboxedProcess) -> None:
    child.signal(signal.SIGKILL)
    if not child.wait(_KILL_S):
        raise SandboxError(
            f"a run does not end {_KILL_S:.0f} s after it was killed",
            fix="look for a disk or a network folder that hangs",
        )
