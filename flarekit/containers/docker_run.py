"""One container, run by a line of `docker run` and followed from outside until it has ended."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flarekit.containers import ProcessResult
from flarekit.containers.cgroup_figures import Cgroup, cgroup_of, kernel_peak_mib
from flarekit.containers.docker_command import docker, reason_in
from flarekit.containers.endings import end_of, wait_or_end
from flarekit.containers.follow import usage_of
from flarekit.containers.network import NetworkTries
from flarekit.core.readings import Unsupported

_NOT_STARTED = (125, 126, 127)  # docker run's own exit codes, which a program may have too
_PEAK_S = 0.01  # the kernel's own peak is gone with the container, and cheap to read
_USAGE_S = 0.1
_AFTER_S = 0.001  # until when events are asked for: they are told of to the nanosecond
_EVENTS_END_S = 5.0  # how long the last events may take after the run


class ContainerRun:
    """A container to be run once.

    Args:
        name: of the container.
        line: `docker run` with all its arguments, `--name` among them.
        observe: whether to look at its memory, process by process, and at its tries to reach a
            network, besides what the kernel keeps of its group.

    Attributes:
        cgroup: its control group; None before it has started, and where it was over too soon.
        kernel_peak_mib: most memory of that group so far, page cache included; None if not seen.
    """

    def __init__(self, name: str, line: Sequence[str], *, observe: bool = False) -> None:
        self.cgroup: Cgroup | Unsupported | None = None
        self.kernel_peak_mib: float | None = None
        self._name, self._line, self._observe = name, list(line), observe
        self._last_event = "destroy" if "--rm" in self._line else "die"
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._signalled_at: float | None = None
        self._out_of_memory = False
        self._peak_mib: float | None = None
        self._network_tries: int | None = None
        self._over = threading.Event()
        self._beside: list[threading.Thread] = []

    def run(
        self,
        stdout: Path,
        stderr: Path,
        *,
        timeout_s: float | None,
        terminate_after_s: float | None = None,
    ) -> ProcessResult:
        """Run it to its end, or kill it when its time is up.

        Args:
            stdout: file for what it says.
            stderr: file for its errors, and Docker's own; the same file for both together.
            timeout_s: after which it is killed; None for never.
            terminate_after_s: from its start to a SIGTERM; None for no signal.
        """
        called = time.time()
        events = self._events_since(called)
        arguments = (events, terminate_after_s)
        listener = threading.Thread(target=self._listen, args=arguments, daemon=True)
        listener.start()
        try:
            with stdout.open("wb") as out, stderr.open("ab" if stderr == stdout else "wb") as err:
                both = subprocess.STDOUT if stderr == stdout else err
                process = subprocess.Popen(self._line, stdout=out, stderr=both)
                code, _ = wait_or_end(process, timeout_s, lambda: self._kill(process))
            if self._started_at is not None:
                listener.join(_EVENTS_END_S)
        finally:
            self._over.set()
            events.terminate()
            events.wait()
            listener.join()
            for thread in self._beside:  # a signal is noted, and what was tried last is counted
                thread.join()
        return self._result(code, called, stdout, stderr)

    def _events_since(self, called: float) -> subprocess.Popen[bytes]:
        """Have Docker tell what happens to the container."""
        return subprocess.Popen(
            [
                *("docker", "events", "--since", f"{called:.3f}", "--format", "{{json .}}"),
                *("--filter", f"container={self._name}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _result(self, code: int | None, called: float, stdout: Path, stderr: Path) -> ProcessResult:
        """Return how the run ended, once the client and all who looked are done."""
        if self._ended_at is None:
            self._catch_up(called)
        ended = self._ended_at or time.time()
        is_docker_s = code in _NOT_STARTED and self._started_at is None
        said = end_of(stderr)
        return ProcessResult(
            exit_code=137 if code is None else code,
            stdout=end_of(stdout),
            stderr=said,
            seconds=ended - (self._started_at or called),
            timed_out=code is None,
            stopped_after_s=None if self._signalled_at is None else ended - self._signalled_at,
            out_of_memory=self._out_of_memory,
            not_started=reason_in(said) if is_docker_s else "",
            peak_mib=self._peak_mib,
            kernel_peak_mib=self.kernel_peak_mib,
            network_tries=self._network_tries,
            started_s=None if self._started_at is None else max(0.0, self._started_at - called),
        )

    def _listen(self, events: subprocess.Popen[bytes], terminate_after_s: float | None) -> None:
        """Follow the container's life: its start tells its group, then what killed it."""
        if events.stdout is None:
            return
        with events.stdout:
            for line in events.stdout:
                if not line.endswith(b"\n"):  # the command was ended as it spoke
                    return
                happened = self._note(line)
                if happened == "start":
                    self._begin(terminate_after_s)
                elif happened == "die":
                    self._over.set()
                if happened == self._last_event:
                    return

    def _catch_up(self, called: float) -> None:
        """Ask for what has happened once more: it may have been over before anybody listened."""
        until = time.time() + _AFTER_S
        span = ("--until", f"{until:.3f}", "--since", f"{called:.3f}")
        happened = docker(
            *("events", *span, "--format", "{{json .}}", "--filter", f"container={self._name}")
        )
        for line in happened.stdout.splitlines():
            self._note(line)

    def _note(self, line: str | bytes) -> str:
        """Note what an event tells of the container's life, and return what happened."""
        event: dict[str, Any] = json.loads(line)
        happened, at = str(event.get("Action")), event.get("timeNano", 0) / 1e9
        if happened == "start":
            self._started_at = at
        elif happened == "oom":
            self._out_of_memory = True
        elif happened == "die":
            self._ended_at = at
        return happened

    def _begin(self, terminate_after_s: float | None) -> None:
        """Start what goes on beside the container until it is over."""
        pid = _pid_of(self._name)
        self.cgroup = None if pid is None else _shown(cgroup_of(pid))
        if isinstance(self.cgroup, Cgroup):
            self._go_beside(self._follow_peak, self.cgroup)
        if self._observe and pid is not None:
            self._go_beside(self._follow_usage, pid)
        if terminate_after_s is not None:
            self._go_beside(self._terminate, terminate_after_s)

    def _go_beside(self, what: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)
        self._beside.append(thread)
        thread.start()

    def _follow_peak(self, group: Cgroup) -> None:
        """Read the kernel's peak until the container is over, or its group gone with the figure."""
        is_over = False
        while not is_over:
            is_over = self._over.is_set()
            peak = kernel_peak_mib(group)
            if isinstance(peak, Unsupported):
                return
            self.kernel_peak_mib = peak
            self._over.wait(_PEAK_S)

    def _follow_usage(self, pid: int) -> None:
        """Add up the memory of its processes, and count its tries to reach a network."""
        with NetworkTries(pid) as tries:
            while not self._over.is_set():
                usage = usage_of(pid)
                if usage is not None:
                    self._peak_mib = max(self._peak_mib or 0.0, usage.resident_mib)
                self._network_tries = tries.count()
                self._over.wait(_USAGE_S)
            self._network_tries = tries.count()

    def _terminate(self, after_s: float) -> None:
        if not self._over.wait(after_s):
            at = time.time()
            if not docker("kill", "--signal", "TERM", self._name).returncode:
                self._signalled_at = at

    def _kill(self, client: subprocess.Popen[bytes]) -> None:
        """Kill the container; where there is none yet, give up on the client."""
        if docker("kill", self._name).returncode:
            with contextlib.suppress(OSError):
                client.terminate()


def _pid_of(container: str) -> int | None:
    found = docker("inspect", "--format", "{{.State.Pid}}", container)
    pid = found.stdout.strip()
    return int(pid) if not found.returncode and pid.isdecimal() and pid != "0" else None


def _shown(group: Cgroup | Unsupported) -> Cgroup | Unsupported:
    """Return a container's group, or that its files are not shown here."""
    if isinstance(group, Cgroup) and not group.memory.is_dir():
        return Unsupported(not_supported=f"{group.memory} of the container is not seen from here")
    return group
