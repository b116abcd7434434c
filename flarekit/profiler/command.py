"""Any command of this machine, as something to watch."""

import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from flarekit.containers import ProcessResult
from flarekit.containers.endings import end_of, end_tree, wait_or_end
from flarekit.core.errors import UsageError
from flarekit.core.files import open_to_all
from flarekit.profiler.probes.host import HostProbe
from flarekit.profiler.probes.nvml import NvmlProbe
from flarekit.profiler.probes.processes import ProcessesProbe, ProcessTree
from flarekit.profiler.readings import Probe

_KILLED = 128 + 9  # SIGKILL, which Windows has no name for


class CommandTarget:
    """A command with its process tree.

    Args:
        command: program and arguments.
        log: file for what it says; None to let it speak for itself.
    """

    def __init__(self, command: Sequence[str], log: Path | None = None) -> None:
        self._command = list(command)
        self._log = log
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
        try:
            open_to_all(folder)
        except OSError:
            return False
        return True

    def run(self, timeout_s: float | None) -> ProcessResult:
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
                )
            except OSError as error:
                raise UsageError(
                    f"{self._command[0]}: cannot be started: {error.strerror}",
                    fix="name a program that is there",
                ) from error
            self._pid = process.pid
            started_s = _created(process.pid, called)
            code, self._peak_mib = wait_or_end(process, timeout_s, lambda: end_tree(process.pid))
        return ProcessResult(
            exit_code=_KILLED if code is None else code,
            stderr="" if self._log is None else end_of(self._log),
            timed_out=code is None,
            started_s=started_s,
        )


def _created(pid: int, called: float) -> float | None:
    """Return how long after `called` (of `time.time`) a process was made."""
    try:
        return max(0.0, psutil.Process(pid).create_time() - called)
    except psutil.Error:
        return None
