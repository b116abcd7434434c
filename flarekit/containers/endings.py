"""How processes end: by themselves, when their time is up, or when somebody interrupts."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

_GRACE_S = 5.0  # between asking processes to end and making them
_LOOK_S = 0.02
_KEPT = 2**20  # bytes of a log, its end


def wait_or_end(
    process: subprocess.Popen[bytes], timeout_s: float | None, end: Callable[[], None]
) -> tuple[int | None, float]:
    """Wait for a process; `end` is called when its time is up, or when we are interrupted.

    The wait itself is a blocking one: `Popen.wait` with a timeout looks only every 50 ms.

    Returns:
        The exit code, 128 + N for signal N, None where its time was up; and the most resident
        memory in MiB that it, or any one of the processes it has waited for, had at any moment.
    """
    late = threading.Event()

    def expire() -> None:
        if _is_running(process.pid):
            late.set()
            end()

    timer = None if timeout_s is None else threading.Timer(timeout_s, expire)
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        _await_end(process.pid)
    except BaseException:  # an interruption as well: nothing is left running
        end()
        raise
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()  # it may still be ending the children
        _, status, usage = os.wait4(process.pid, 0)
        code = process.returncode = os.waitstatus_to_exitcode(status)
    peak_mib = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    if late.is_set():
        return None, peak_mib
    return (128 - code if code < 0 else code), peak_mib


def _await_end(pid: int) -> None:
    """Wait for the end of a child, and leave it a zombie.

    Its number stays its own until it is waited for in earnest. After that it may be another
    process's, and nobody may signal it.
    """
    if sys.platform == "darwin":  # where Python has had `waitid` since 3.13
        while _is_running(pid):
            time.sleep(_LOOK_S)
    else:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def end_tree(pid: int) -> None:
    """End a process and its descendants: by SIGTERM first, then by SIGKILL.

    What may not be signalled is left, and the others end.
    """
    try:
        everyone = [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        everyone = _with_descendants(everyone)  # some may have come since
        for process in everyone:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                ask(process)
        deadline = time.monotonic() + _GRACE_S
        while (everyone := [each for each in everyone if _is_alive(each)]) and (
            time.monotonic() < deadline
        ):
            time.sleep(_LOOK_S)


def _with_descendants(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = dict.fromkeys(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found.update(dict.fromkeys(process.children(recursive=True)))
    return list(found)


def _is_running(pid: int) -> bool:
    """Tell whether a child that was not waited for yet is still running."""
    try:
        return _is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _is_alive(process: psutil.Process) -> bool:
    """Tell whether a process is still running. A zombie (ended, not yet waited for) is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_of(log: Path) -> str:
    """Return the last of what a log holds; empty where it cannot be read."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _KEPT))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
