"""A program in a sandbox, from its start to its end."""

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
from typing import IO

from flarekit.containers import ProcessResult, SandboxError
from flarekit.containers.docker_command import reason_in

USE_DOCKER = "or verify with a Docker engine"
NOT_STARTED = 127  # a shell's exit code for what cannot be started
_KEPT = 2**20  # bytes of each stream, its end


class SandboxedProcess:
    """A program that waits, set up, for its start.

    Args:
        process: bubblewrap, which waits for the program.
        status: what bubblewrap tells of it, as lines of JSON.
        gate: where a byte lets the program start.

    Attributes:
        pid: of the program, as seen from here.
    """

    def __init__(self, process: subprocess.Popen[bytes], status: IO[str], gate: int) -> None:
        self._process = process
        self._status = status
        self._gate = gate
        self._out, self._err = (
            _Tail(stream) for stream in (process.stdout, process.stderr) if stream is not None
        )
        try:
            self.pid: int = json.loads(status.readline())["child-pid"]
            self._handle = os.pidfd_open(self.pid)
        except (ValueError, ProcessLookupError) as error:  # it said nothing, or is gone already
            process.wait()
            raise not_set_up(self._err.text()) from error

    def go(self) -> None:
        """Start the program, which has been waiting."""
        with contextlib.suppress(BrokenPipeError):  # it failed before: see `end`
            os.write(self._gate, b"!")

    def wait(self, timeout_s: float) -> bool:
        """Return whether all inside has ended; wait for it no longer than this."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))

    def signal(self, number: signal.Signals) -> None:
        """Signal the program; a kill ends everything inside."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def end(self) -> ProcessResult:
        """Return how it ended, once it has.

        Raises:
            SandboxError: bubblewrap could not set it up.
        """
        code = self._process.wait()
        ran = "exit-code" in self._status.read()
        stdout, stderr = self._out.text(), self._err.text()
        if not ran and "bwrap: execvp" not in stderr and "bwrap: Can't chdir" not in stderr:
            raise not_set_up(stderr)
        if ran:
            return ProcessResult(exit_code=code, stdout=stdout, stderr=stderr)
        return ProcessResult(
            exit_code=NOT_STARTED, stdout=stdout, stderr=stderr, not_started=reason_in(stderr)
        )

    def close(self) -> None:
        """Kill the program, if it is still running."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._handle)


class _Tail(threading.Thread):
    """The end of a stream, read as it comes.

    It reads through a handle of its own: whoever closes the stream cannot close it under a read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(name="tail", daemon=True)
        self._handle = os.dup(stream.fileno())
        self._kept = bytearray()
        self._left_out = 0
        self.start()

    def run(self) -> None:
        with os.fdopen(self._handle, "rb", buffering=0) as stream:
            while chunk := stream.read(2**16):
                self._kept += chunk
                if len(self._kept) > 2 * _KEPT:
                    self._left_out += len(self._kept) - _KEPT
                    del self._kept[:-_KEPT]

    def text(self) -> str:
        """Return it once the stream has ended."""
        self.join()
        note = f"[{self._left_out} bytes before this are left out]\n" if self._left_out else ""
        return note + self._kept.decode(errors="replace")


def not_set_up(stderr: str) -> SandboxError:
    """Return the error of a sandbox that cannot be set up, given what was said on stderr."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return SandboxError(
        f"the process sandbox cannot be set up: {lines[-1] if lines else 'no reason given'}",
        fix=f"allow user namespaces and mounts here, run as root, {USE_DOCKER}",
    )
