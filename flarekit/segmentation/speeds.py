"""How fast this machine is: learnt from what was really run, remembered from run to run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
from pathlib import Path

from flarekit.core.errors import OutputError
from flarekit.core.files import make_folder, write_atomically

_LOG = logging.getLogger(__name__)
_FILE = "speeds.json"
_MOST = 200  # machines, devices and networks that are remembered
_LEAST_SLOWDOWN, _MOST_SLOWDOWN = 0.3, 3.0
# seconds per voxel, where nothing is known: an old processor whose cores others use as well
_USUAL = {
    "place": 15e-9,
    "settle": 15e-9,
    "fill": 9e-9,
    "rules": 6e-9,
    "write": 3e-9,
    "statistics": 12e-9,
    "volumes": 1e-9,
}


class Speeds:
    """What steps of a case take, in seconds per tile or per voxel of the scan.

    Attributes:
        slowdown: how much slower this machine is just now than it is remembered.
    """

    def __init__(self, folder: Path | None, *facts: str) -> None:
        """Recall what is known.

        Args:
            folder: where it is remembered; nothing is, where None.
            facts: what tells this machine, device and network from all others.
        """
        content = json.dumps([os.cpu_count(), *facts])
        self._key = hashlib.sha256(content.encode()).hexdigest()[:16]
        self._folder = folder
        self._rates = _read(folder).get(self._key, {})
        self._before = dict(self._rates)
        self.slowdown = 1.0

    def seconds(self, what: str, amount: float = 1.0) -> float | None:
        """Return how long something is going to take; None where that is not known.

        Args:
            what: `tile`, `start` (how much longer the first tile takes), `place`, `settle` (what
                follows the last tile), `fill`, `rules`, `write`, `statistics` or `volumes`.
            amount: tiles, or voxels.
        """
        rate = self._rates.get(what, _USUAL.get(what))
        return None if rate is None else rate * amount * self.slowdown

    def knows(self, what: str) -> bool:
        """Return whether something was run here before."""
        return what in self._rates

    def learn(self, what: str, seconds: float, amount: float = 1.0) -> None:
        """Remember how long something took; half of what was known stays."""
        if amount <= 0 or seconds < 0 or not math.isfinite(seconds):
            return
        rate, known = seconds / amount, self._rates.get(what)
        self._rates[what] = rate if known is None else (rate + known) / 2

    def compare(self, what: str, seconds: float, amount: float = 1.0) -> None:
        """Learn how long something took, and from that how busy this machine is just now."""
        known = self._before.get(what)
        if known and amount > 0:
            ratio = seconds / amount / known
            self.slowdown = min(max(ratio, _LEAST_SLOWDOWN), _MOST_SLOWDOWN)
        self.learn(what, seconds, amount)

    def save(self) -> None:
        """Keep what was learnt; a folder that cannot be written is no matter."""
        if self._folder is None or self._rates == self._before:
            return
        known = {k: v for k, v in _read(self._folder).items() if k != self._key}
        kept = dict(list(known.items())[-_MOST:]) | {self._key: self._rates}
        with contextlib.suppress(OutputError, OSError):
            make_folder(self._folder)
            write_atomically(self._folder / _FILE, (json.dumps(kept, indent=1) + "\n").encode())


def _read(folder: Path | None) -> dict[str, dict[str, float]]:
    """Return what is remembered; what is no number of seconds is left out."""
    if folder is None:
        return {}
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return {
            str(key): {
                str(what): float(rate)
                for what, rate in rates.items()
                if isinstance(rate, int | float) and 0 <= rate < math.inf
            }
            for key, rates in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        _LOG.debug("%s: %s", folder / _FILE, error)
        return {}
