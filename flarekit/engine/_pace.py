"""How long tiles take just now, and how many more of them there is time for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

_LATEST = 4  # tiles that tell how long the next ones take
_LONGEST_OF = 8  # tiles that tell how long the next one may take
_SURE = 1.15  # it takes at most so many times the longest of these
_MOST_SLOWER = 2.0  # one slow tile is not a measure of what follows the tiles


class TilePace:
    """When tiles were done, and which time is left for more.

    No tile is begun that may end too late: the last one gets the time of the longest of the latest.
    Tiles that take longer than expected tell that the machine got slower, and that what
    follows them is going to take longer as well.

    Attributes:
        deadline: of the clock, for everything; None where there is no limit.
        after_s: what follows the last tile takes, at most.
        expected_s: how long a tile takes before any was run, its flips included; None where that is
            not known.
        longest_s: how long one takes at most, before any was run.
        starting_s: how much longer the first one takes.
        spare_s: how much less follows the tiles where none of them is left out.
        unknown_s: what a tile may take of which nothing is known.
        at_least: so many tiles are run even if they end too late.
        is_late: whether that came to pass.
    """

    def __init__(
        self,
        deadline: float | None = None,
        *,
        after_s: float = 0.0,
        expected_s: float | None = None,
        longest_s: float = 0.0,
        starting_s: float = 0.0,
        spare_s: float = 0.0,
        unknown_s: float = 0.0,
        at_least: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin now; see the attributes for the arguments.

        Args:
            deadline: see above.
            after_s: see above.
            expected_s: see above.
            longest_s: see above.
            starting_s: see above.
            spare_s: see above.
            unknown_s: see above.
            at_least: see above.
            now: the clock, `time.monotonic` or one of its kind.
        """
        self.deadline = deadline
        self.after_s = after_s
        self.expected_s = expected_s
        self.longest_s = longest_s
        self.starting_s = starting_s
        self.spare_s = spare_s
        self.unknown_s = unknown_s
        self.at_least = at_least
        self.is_late = False
        self._now = now
        self._ended: list[float] = []
        self._closed: float | None = None
        self._began = now()

    def begin(self) -> None:
        """The first tile begins now."""
        self._began = self._now()

    def count(self) -> float:
        """One more tile is done; return when that was."""
        self._ended.append(self._now())
        return self._ended[-1]

    def close(self) -> None:
        """What follows the last tile in the window is done."""
        self._closed = self._now()

    def affordable(self, waiting: int, running: int = 0) -> int:
        """Return how many of the tiles that wait there is time for.

        Args:
            waiting: tiles that were not begun.
            running: tiles that were begun and are not done.
        """
        if self.deadline is None:
            return waiting
        wanted = min(waiting, self.at_least - len(self._ended) - running)
        in_time = min(waiting, max(0, self._in_time(waiting, running)))
        self.is_late = self.is_late or wanted > in_time
        return max(wanted, in_time)

    def _in_time(self, waiting: int, running: int) -> int:
        left_s, usual_s = self._left_s(), self._usual_s()
        if usual_s is None:
            return waiting if left_s > self.unknown_s else 0
        gaps = self._gaps()[-_LONGEST_OF:]
        longest_s = max(usual_s, _SURE * max(gaps) if gaps else self.longest_s)
        if not self._ended:
            left_s -= self.starting_s
        if (waiting + running - 1) * usual_s + longest_s <= left_s + self.spare_s:
            return waiting
        if left_s < longest_s:
            return 0
        return 1 + int((left_s - longest_s) / max(usual_s, 1e-9)) - running

    def _left_s(self) -> float:
        assert self.deadline is not None
        slower, usual_s = 1.0, self._usual_s()
        if self.expected_s and usual_s is not None:
            slower = min(max(1.0, usual_s / self.expected_s), _MOST_SLOWER)
        return self.deadline - self._now() - self.after_s * slower

    def _usual_s(self) -> float | None:
        """Return how long the next tiles take; the first one alone is not believed too much."""
        gaps = self._gaps()
        if gaps:
            return statistics.fmean(gaps[-_LATEST:])
        if self.expected_s is None or self.first_s is None:
            return self.first_s if self.expected_s is None else self.expected_s
        return min(max(self.expected_s, self.first_s - self.starting_s), 2 * self.expected_s)

    def _gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self._ended[self._first_counted :])]

    @property
    def _first_counted(self) -> int:
        """The second tile is left out where there are more.

        An engine that begins with the next tile before it hands on the last one gives the first two
        together.
        """
        return 1 if len(self._ended) > 2 else 0  # noqa: PLR2004 - a gap after the second

    @property
    def first_s(self) -> float | None:
        """How long the first tile took, with the memory it had to take; None where none was run."""
        return self._ended[0] - self._began if self._ended else None

    @property
    def later_s(self) -> float | None:
        """Mean of the tiles after the first, with what is done with the slabs; None before that."""
        gaps = self._gaps()
        return statistics.fmean(gaps) if gaps else None

    @property
    def took_longer_s(self) -> float | None:
        """How much longer the first tiles took than later ones; None where that is not known."""
        first, later_s = self._first_counted, self.later_s
        if later_s is None:
            return None
        return max(0.0, self._ended[first] - self._began - (first + 1) * later_s)

    @property
    def settled_s(self) -> float:
        """How long the window took after the last tile, once it is closed."""
        last = self._ended[-1] if self._ended else self._began
        return 0.0 if self._closed is None else self._closed - last
