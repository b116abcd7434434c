"""How long tiles take just now, and how many more of them there is time for."""

import statistics
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

_FIRST = 2  # tiles that take longer
_LATEST = 4  # tiles that tell how long the next ones take
_LONGEST_OF = 8  # tiles that tell how long the next one may take
_SURE = 1.1  # it takes at most so many times the longest of these
_MOST_SLOWER = 2.0  # one slow tile is not a measure of what follows the tiles


@dataclass(eq=False)
class TilePace:
    """When tiles were done, and which time is left for more.

    No tile is begun that may end too late: the last one gets the time of the longest of the latest.
    Tiles that take longer than expected tell that the machine got slower, and that what
    follows them is going to take longer as well.

    Attributes:
        deadline: of the clock, for everything; None where there is no limit.
        after_s: what follows the last slice takes, at most.
        slice_s: how long a slice takes that leaves the window, at most.
        expected_s: how long a tile takes before any was run, its flips included; None where that is
            not known.
        longest_s: how long one takes at most, before any was run.
        starting_s: how much longer the first two take.
        alone_s: how long the first one takes at most, where no other follows; as the others and
            `starting_s` more where None.
        spare_s: how much less follows the tiles where none of them is left out.
        unknown_s: what a tile may take of which nothing is known.
        at_least: so many tiles are run even if they end too late.
        together: so many tiles are done at the same time: a GPU runs them as one batch.
        is_late: whether that came to pass.
        slices: that have left the window, those left out that no tile covered.
        slices_s: how long these took.
        now: the clock, `time.monotonic` or one of its kind.
    """

    deadline: float | None = None
    _: KW_ONLY
    after_s: float = 0.0
    slice_s: float = 0.0
    expected_s: float | None = None
    longest_s: float = 0.0
    starting_s: float = 0.0
    alone_s: float | None = None
    spare_s: float = 0.0
    unknown_s: float = 0.0
    at_least: int = 0
    together: int = 1
    now: Callable[[], float] = field(default_factory=lambda: time.monotonic)
    is_late: bool = field(default=False, init=False)
    slices: int = field(default=0, init=False)
    slices_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Begin now."""
        self._took: list[float] = []
        self._latest = self.now()

    def begin(self) -> None:
        """The first tile begins now."""
        self._latest = self.now()

    def count(self) -> float:
        """One more tile is done; return when that was."""
        now = self.now()
        self._took.append(now - self._latest)
        self._latest = now
        return now

    def passed(self, slices: int) -> None:
        """Slices have left the window, since the last tile or the slices before."""
        now = self.now()
        self.slices += slices
        self.slices_s += now - self._latest
        self._latest = now

    def affordable(
        self,
        waiting: int,
        running: int = 0,
        slices: Callable[[int], int] = lambda _: 0,
        *,
        surely: bool = False,
    ) -> int:
        """Return how many of the tiles that wait there is time for.

        Args:
            waiting: tiles that were not begun.
            running: tiles that were begun and are not done.
            slices: gives how many have still to leave the window if so many of the tiles are run.
            surely: where there is not time for all, even if every one takes as long as it may.
        """
        if self.deadline is None:
            return waiting
        wanted = min(waiting, self.at_least - len(self._took) - running)
        in_time = self._in_time(waiting, running, slices, surely=surely)
        self.is_late = self.is_late or wanted > in_time
        return max(wanted, in_time)

    def _in_time(
        self, waiting: int, running: int, slices: Callable[[int], int], *, surely: bool
    ) -> int:
        left_s, usual_s, slower = self._left_s(), self._usual_s(), self._slower()
        if usual_s is None:
            return waiting if left_s > self.unknown_s else 0
        latest = self._steady()[-max(_LONGEST_OF, self.together) :]
        longest_s = max(usual_s, _SURE * max(latest) if latest else self.longest_s)
        starting_s = 0.0 if self._took else self.starting_s
        slice_s, each_s = self.slice_s * slower, usual_s
        if self.slices:
            slice_s = max(slice_s, self.slices_s / self.slices)

        def needed_s(count: int) -> float:
            tiles_s = (count + running - 1) * each_s + longest_s + starting_s
            if self.alone_s is not None and not self._took and count + running == 1:
                tiles_s = min(tiles_s, self.alone_s)
            return tiles_s + slice_s * slices(count)

        if waiting <= 0 or needed_s(waiting) <= left_s + self.spare_s:
            return waiting
        if surely:
            each_s = longest_s
        none, most = 0, waiting  # none are in time, so many are not
        while most - none > 1:
            middle = (none + most) // 2
            none, most = (middle, most) if needed_s(middle) <= left_s else (none, middle)
        return none

    def _left_s(self) -> float:
        assert self.deadline is not None
        return self.deadline - self.now() - self.after_s * self._slower()

    def _slower(self) -> float:
        """Return how many times slower than expected tiles have turned out."""
        if not self.expected_s or not self._steady():
            return 1.0
        return min(max(1.0, self._latest_s() / self.expected_s), _MOST_SLOWER)

    def _usual_s(self) -> float | None:
        """Return how long the next tiles take; the first one alone is not believed too much."""
        if self._steady():
            return self._latest_s()
        if not self._took:
            return self.expected_s
        if self.expected_s is None:
            return self.tiles_s / len(self._took)
        if self.alone_s and len(self._took) == 1:
            return self.expected_s * min(max(1.0, self.tiles_s / self.alone_s), 2.0)
        each_s = max(self.expected_s, (self.tiles_s - self.starting_s) / len(self._took))
        return min(each_s, 2 * self.expected_s) if len(self._took) == 1 else each_s

    def _steady(self) -> list[float]:
        """Return how long tiles took after the first two, or the first two batches of them.

        An engine that begins with the next tile before it hands on the last one gives the first two
        together, and meanwhile takes the memory for what is added up.
        """
        return self._took[self._first :]

    def _latest_s(self) -> float:
        """Return how long the latest tiles took, each; of whole batches, whose first takes all."""
        return statistics.fmean(self._steady()[-max(_LATEST, 2 * self.together) :])

    @property
    def _first(self) -> int:
        return _FIRST * self.together

    @property
    def first_s(self) -> float | None:
        """How long the first tile took; None where none was run."""
        return self._took[0] if self._took else None

    @property
    def tiles(self) -> int:
        """How many were run."""
        return len(self._took)

    @property
    def tiles_s(self) -> float:
        """How long all tiles took."""
        return sum(self._took)

    @property
    def later_s(self) -> float | None:
        """Mean of the tiles after the first two; None before that."""
        steady = self._steady()
        return statistics.fmean(steady) if steady else None

    @property
    def took_longer_s(self) -> float | None:
        """How much longer the first two took than later ones; None where that is not known."""
        later_s = self.later_s
        if later_s is None:
            return None
        return max(0.0, sum(self._took[: self._first]) - self._first * later_s)
