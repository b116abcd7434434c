"""How processes end: by themselves, when their time is up, or when somebody interrupts."""

from __future__ import annotations

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
        late.set()
        end()

    timer = None if timeout_s is None else threading.Timer(timeout_s, expire)
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
        code = process.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        end()
        process.wait()
        raise
    finally:
        if timer is not None:
            timer.cancel()
    peak_mib = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    if timer is not None and late.is_set():
        timer.join()  # it may still be ending the children
        return None, peak_mib
    return (128 - code if code < 0 else code), peak_mib


def end_tree(pid: int) -> None:
    """End a process and its descendants: by SIGTERM first, then by SIGKILL."""
    try:
        root = psutil.Process(pid)
        everyone = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for process in everyone:
            try:
                ask(process)
            except psutil.NoSuchProcess:
                continue
        deadline = time.monotonic() + _GRACE_S
        while (everyone := [each for each in everyone if _is_alive(each)]) and (
            time.monotonic() < deadline
        ):
            time.sleep(_LOOK_S)


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
