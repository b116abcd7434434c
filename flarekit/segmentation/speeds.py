"""How fast this machine is: learnt from what was really run, remembered from run to run.

Remembered are the latest times of each step on a machine that does nothing else; what a step is
going to take now is these, times how much slower the machine is just now. Other processes show in
how long the threads of this one wait for a processor, and in how long the locator takes beside its
usual time; either alone may be an odd moment.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from flarekit.core.errors import OutputError
from flarekit.core.files import make_folder, write_atomically

_LOG = logging.getLogger(__name__)
_FILE = "speeds.json"
_MOST = 200  # machines, devices and networks that are remembered
_LATEST = 9  # times of a step that are remembered
_LEAST_SLOWDOWN, _MOST_SLOWDOWN = 0.3, 10.0
_VARIES = 1.35  # what is compared varies so much on a machine that does nothing else
_FASTER, _SLOWER = 0.3, 1.02  # how the usual time follows a shorter and a longer one
_SURE = 1.1  # a step takes at most so many times the longest of its latest times
_SELDOM = 1.4  # the same where fewer than `_SEEN` times are known
_SEEN = 3
_MANY = 5  # times of which the longest alone is an odd one
_ODD = 2.0  # a time that is longer than so many usual ones does not count as it is
_UNKNOWN_LOAD_S = 0.25  # of a network that is compiled, on a processor like that of `_USUAL`
_ENOUGH_NS = 200_000_000  # of computing, that tell how long threads wait for a processor
# seconds per voxel, as far as work is told in voxels, where nothing is known: an old processor
# whose cores others use as well
_USUAL = {
    "place": 15e-9,
    "restore": 5e-9,
    "finish": 3e-9,
    "fill": 9e-9,
    "rules": 6e-9,
    "write": 3e-9,
    "statistics": 12e-9,
    "volumes": 1e-9,
    "draw": 1.5,  # a picture, of whatever size
}


class Speeds:
    """What steps of a case take, in seconds per tile or per voxel of the scan.

    Attributes:
        slowdown: how many times slower this machine is just now than it is remembered.
    """

    def __init__(
        self, folder: Path | None, *facts: str, waiting: Callable[[], float | None] | None = None
    ) -> None:
        """Recall what is known.

        Args:
            folder: where it is remembered; nothing is, where None.
            facts: what tells this machine, device and network from all others.
            waiting: gives how many times longer this process takes because others compute, None
                where nothing tells; measured where None.
        """
        content = json.dumps([os.cpu_count(), *facts])
        self._key = hashlib.sha256(content.encode()).hexdigest()[:16]
        self._folder = folder
        self._rates = _read(folder).get(self._key, {})
        self._before = {what: list(rates) for what, rates in self._rates.items()}
        self._waiting = Waiting() if waiting is None else waiting
        self.slowdown = self._limited(self._waiting() or 1.0)

    def seconds(self, what: str, amount: float = 1.0) -> float | None:
        """Return how long something is expected to take; None where that is not known.

        Args:
            what: `tile`, `first` (the first tile, where it stays alone), `start` (how much longer
                the first two take), `without tiles` (a first case of which no tile is run, from
                when its engines are ready to its mask), `load` (the network itself, where it may be
                put off), `place`, `restore` (what leaves the window), `finish` (what follows
                that), `fill`, `rules`, `write`, `statistics`, `volumes` or `draw` (a picture).
            amount: tiles, or voxels.
        """
        rates = self._rates.get(what)
        rate = statistics.median(rates) if rates else _USUAL.get(what)
        return None if rate is None else rate * amount * self.slowdown

    def at_most(self, what: str, amount: float = 1.0) -> float:
        """Return how long something takes almost never more than; 0 where nothing is known.

        Args:
            what: as above.
            amount: tiles, or voxels.
        """
        rates = self._rates.get(what)
        if not rates:
            return _USUAL.get(what, 0.0) * amount * self.slowdown
        sure = _SURE if len(rates) >= _SEEN else _SELDOM
        longest = sorted(rates)[-2 if len(rates) >= _MANY else -1]
        longest = min(longest, _ODD * statistics.median(rates))
        return longest * sure * amount * self.slowdown

    def all_at_most(self, steps: Mapping[str, float]) -> float:
        """Return how long several steps take together, almost never more.

        They do not all take their longest at once: what each may take beyond what is expected adds
        up as independent errors do.

        Args:
            steps: what -> tiles, or voxels.
        """
        expected = {what: self.seconds(what, amount) or 0.0 for what, amount in steps.items()}
        beyond = (self.at_most(what, steps[what]) - seconds for what, seconds in expected.items())
        return sum(expected.values()) + math.hypot(*beyond)

    def with_one_tile_s(self) -> float:
        """Return how long the first case of a run takes, at least, if one tile of it is run.

        Counted from when the engines are ready; 0 where nothing is known.
        """
        without_s = self.seconds("without tiles")
        return 0.0 if without_s is None else without_s + self.at_most("first")

    def loading_s(self, what: str) -> float:
        """Return how long loading a network takes, at most, whose times are learnt as `what`."""
        return self.at_most(what) or _UNKNOWN_LOAD_S * self.slowdown

    def knows(self, what: str) -> bool:
        """Return whether something was run here before."""
        return what in self._rates

    def learn(self, what: str, seconds: float, amount: float = 1.0) -> None:
        """Remember how long something took, as it would on a machine that does nothing else."""
        if amount <= 0 or seconds < 0 or not math.isfinite(seconds):
            return
        rates = self._rates.setdefault(what, [])
        rates.append(seconds / amount / self.slowdown)
        del rates[:-_LATEST]

    def compare(self, what: str, seconds: float) -> None:
        """Learn from how long something took how slow this machine is just now.

        Its usual time is what it takes on a machine that does nothing else: it follows a shorter
        time at once and longer ones slowly, so that some runs beside other processes do not change
        it. A difference that comes from run to run anyway tells nothing.

        Args:
            what: the same amount of work in every run.
            seconds: that it took now.
        """
        if seconds <= 0 or not math.isfinite(seconds):
            return
        known, waiting = self._rates.get(what), self._waiting()
        if not known:
            self.slowdown = self._limited(waiting or 1.0)
            self._rates[what] = [seconds / self.slowdown]
            return
        usual = known[-1]
        ratio = seconds / usual
        slower = self._limited(ratio if waiting is None else math.sqrt(ratio * waiting))
        self.slowdown = 1.0 if 1 / _VARIES < slower < _VARIES else slower
        follows = usual + _FASTER * (seconds - usual) if ratio < 1 else usual * min(ratio, _SLOWER)
        self._rates[what] = [follows]

    def save(self) -> None:
        """Keep what was learnt; a folder that cannot be written is no matter."""
        if self._folder is None or self._rates == self._before:
            return
        known = {k: v for k, v in _read(self._folder).items() if k != self._key}
        kept = dict(list(known.items())[-_MOST:]) | {self._key: self._rates}
        with contextlib.suppress(OutputError, OSError):
            make_folder(self._folder)
            write_atomically(self._folder / _FILE, (json.dumps(kept, indent=1) + "\n").encode())

    @staticmethod
    def _limited(ratio: float) -> float:
        return min(max(ratio, _LEAST_SLOWDOWN), _MOST_SLOWDOWN)


class Waiting:
    """How much longer this process takes because its threads wait for a processor."""

    def __init__(self, read: Callable[[], tuple[int, int]] | None = None) -> None:
        """Begin with the start of the process.

        Args:
            read: gives how long all threads have computed and waited so far, in nanoseconds; asks
                the kernel where None.
        """
        self._read = _computed_and_waited_ns if read is None else read
        self._before = (0, 0)

    def __call__(self) -> float | None:
        """Return the wall time of computing over its processor time, since the last call.

        Since the one before where too little was computed meanwhile; None where the kernel tells
        nothing.
        """
        computed, waited = self._read()
        new_computed, new_waited = computed - self._before[0], waited - self._before[1]
        if new_computed < _ENOUGH_NS or new_waited < 0:
            new_computed, new_waited = computed, waited
        else:
            self._before = computed, waited
        return None if new_computed <= 0 else 1.0 + new_waited / new_computed


def _computed_and_waited_ns() -> tuple[int, int]:
    """Return how long the threads that there are now have computed, and waited to."""
    computed = waited = 0
    with contextlib.suppress(OSError, ValueError):
        for file in Path("/proc/self/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # a thread that has ended meanwhile
                on, waiting, *_ = map(int, file.read_text(encoding="ascii").split())
                computed, waited = computed + on, waited + waiting
    return computed, waited


def _read(folder: Path | None) -> dict[str, dict[str, list[float]]]:
    """Return what is remembered; what is not a list of seconds is left out."""
    if folder is None:
        return {}
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return {
            str(key): {
                str(what): [float(rate) for rate in rates][-_LATEST:]
                for what, rates in steps.items()
                if _are_times(rates)
            }
            for key, steps in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        _LOG.debug("%s: %s", folder / _FILE, error)
        return {}


def _are_times(rates: object) -> bool:
    return (
        isinstance(rates, list)
        and bool(rates)
        and all(isinstance(rate, int | float) and 0 <= rate < math.inf for rate in rates)
    )
