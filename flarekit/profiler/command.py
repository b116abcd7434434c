"""Any command of this machine, as something to watch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from flarekit.core.errors import UsageError
from flarekit.core.files import below
from flarekit.profiler.monitor import Ending
from flarekit.profiler.probes.host import HostProbe
from flarekit.profiler.probes.nvml import NvmlProbe
from flarekit.profiler.probes.processes import ProcessesProbe, ProcessTree
from flarekit.profiler.readings import Probe

_GRACE_S = 5.0  # between asking processes to end and making them
_LOOK_S = 0.02


class CommandTarget:
    """A command with its process tree.

    Args:
        command: program and arguments.
        log: file for what it says; None to let it speak for itself.
        environment: of the command; this process's where None.
        folder: to run it in.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._command = list(command)
        self._log = log
        self._environment = environment
        self._folder = folder
        self._pid: int | None = None
        self._peak_mib: float | None = None

    def probes(self, gpu: str) -> list[Probe]:
        """Return probes of the tree, the GPU and the host."""
        tree = ProcessTree(lambda: self._pid)
        return [
            ProcessesProbe(tree.pids, lambda: self._peak_mib),
            NvmlProbe(gpu, tree.last),
            HostProbe(),
        ]

    def open_up(self, folder: Path) -> bool:
        """Let everybody read a folder with what it has left, as far as that is this user's."""
        return open_up(folder)

    def run(self, timeout_s: float | None) -> Ending:
        """Run it; when its time is up the whole tree is ended.

        Raises:
            UsageError: it cannot be started.
        """
        with ExitStack() as stack:
            output = None if self._log is None else stack.enter_context(self._log.open("wb"))
            called = time.time()
            try:
                process = subprocess.Popen(
                    self._command,
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
                    env=self._environment,
                    cwd=self._folder,
                )
            except OSError as error:
                raise UsageError(
                    f"{self._command[0]}: cannot be started: {error.strerror}",
                    fix="name a program that is there",
                ) from error
            self._pid = process.pid
            started_s = _created(process.pid, called)
            code, self._peak_mib = wait_or_end(process, timeout_s, lambda: end_tree(process.pid))
        return Ending(
            exit_code=code,
            last_line=None if self._log is None else last_line(self._log),
            started_s=started_s,
        )


def open_up(folder: Path) -> bool:
    """Let everybody read what is below a folder, as far as it is this user's."""
    try:
        for path in (folder, *below(folder)):
            if not path.is_symlink():
                path.chmod(0o777 if path.is_dir() else 0o666)
    except OSError:
        return False
    return True


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
    """End a process and all below it: politely, then not."""
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
    """Tell whether it still runs: one that is over but not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def last_line(log: Path) -> str | None:
    """Return the last line of a log that is not empty."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 8192))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


def _created(pid: int, called: float) -> float | None:
    """Return how long after `called` (of `time.time`) a process was made."""
    try:
        return max(0.0, psutil.Process(pid).create_time() - called)
    except psutil.Error:
        return None
