"""A clock for a whole process that sleeping moves, and nothing else but a little at every look.

What has to keep to a time is tested with it: how busy the machine is does not matter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

_LOOK_S = 1e-6


class StillClock:
    """Stands still until somebody sleeps; threads may share it.

    Attributes:
        now: in seconds.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self._turn = threading.Lock()

    def look(self) -> float:
        """Return the time; a later look sees a later time."""
        return self.sleep(_LOOK_S)

    def sleep(self, seconds: float) -> float:
        """Let so much time pass at once."""
        with self._turn:
            self.now += seconds
            return self.now


@contextmanager
def still_clock() -> Iterator[StillClock]:
    """Let the whole process have such a clock for a while."""
    clock = StillClock()
    with (
        mock.patch.object(time, "monotonic", clock.look),
        mock.patch.object(time, "perf_counter", clock.look),
        mock.patch.object(time, "sleep", clock.sleep),
    ):
        yield clock
