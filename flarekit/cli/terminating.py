"""SIGTERM and Ctrl-C end a run in order, and say how far it came."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_GRACE_S = 2.5  # from SIGTERM to the end, whatever is being computed
_STDERR = 2
_TERMINATED = 128 + signal.SIGTERM
_NOTHING_TO_TELL = "nothing half-written is left"


class _LastWords:
    """What is said when a run is ended from outside, once."""

    def __init__(self) -> None:
        self.position: Callable[[], str] = lambda: _NOTHING_TO_TELL
        self._unsaid = threading.Lock()  # taken by whoever says them, and never given back

    def say(self, how: str) -> None:
        """Write one line on stderr, past Python's buffers, which a signal may have interrupted."""
        if not self._unsaid.acquire(blocking=False):
            return
        with suppress(OSError):
            os.write(
                _STDERR, f"error: {how}; {self.position()}\n".encode(errors="backslashreplace")
            )


_WORDS = _LastWords()


@contextmanager
def telling(position: Callable[[], str]) -> Iterator[None]:
    """While something runs, let an end from outside tell how far it is.

    Args:
        position: gives a sentence on that; called from any thread.

    Raises:
        SystemExit: with 130 where the run is interrupted from the keyboard.
    """
    before, _WORDS.position = _WORDS.position, position
    try:
        yield
    except KeyboardInterrupt:
        _WORDS.say("interrupted")
        raise SystemExit(128 + signal.SIGINT) from None
    except SystemExit as end:
        if end.code == _TERMINATED:
            _WORDS.say("terminated")
        raise
    finally:
        _WORDS.position = before


def _terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's form
    raise SystemExit(_TERMINATED)


def _end_at_once() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_on_sigterm() -> None:
    """End in order on SIGTERM, and in any case soon: a network may be deep in one long call.

    Python's handlers wait for the main thread; the byte that a signal writes does not. No half
    a file is left, since files get their names when they are whole. Windows has no such signal.
    Forked children end at once: they share the pipe, and their end is not their parent's.
    """
    if sys.platform == "win32":
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, _terminate)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_end_at_once)

    def end() -> None:
        while os.read(reading, 1) != bytes([signal.SIGTERM]):
            pass
        time.sleep(_GRACE_S)
        _WORDS.say("terminated")
        os._exit(_TERMINATED)

    threading.Thread(target=end, daemon=True).start()
