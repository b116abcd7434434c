"""The networks of one device: each predictor loaded once, given up when nobody uses it."""

import gc
import threading
import time
from collections.abc import Callable

from flarekit.core.spec import Mode
from flarekit.segmentation.opened import OpenScan
from flarekit.segmentation.segmenter import Segmenter

Load = Callable[[str, Mode, str], Segmenter]  # predictor, mode, device
_MOST_LOADED = 2
_MOST_OPEN = 2


class Segmenters:
    """Loaded predictors of one device; one thread uses them."""

    def __init__(self, load: Load, device: str) -> None:
        self._load, self._device = load, device
        self._loaded: dict[tuple[str, Mode], Segmenter] = {}
        self._used: dict[tuple[str, Mode], float] = {}

    def get(self, predictor: str, mode: Mode) -> Segmenter:
        """Return a predictor, loaded where it is not; the one unused for longest goes for it."""
        key = (predictor, mode)
        if key not in self._loaded:
            while len(self._loaded) >= _MOST_LOADED:
                self._release(min(self._used, key=self._used.__getitem__))
            self._loaded[key] = self._load(predictor, mode, self._device)
        self._used[key] = time.monotonic()
        return self._loaded[key]

    def is_loaded(self, predictor: str, mode: Mode) -> bool:
        """Return whether a predictor needs no loading."""
        return (predictor, mode) in self._loaded

    def release_idle(self, idle_s: float) -> None:
        """Give up what nobody used for so long."""
        now = time.monotonic()
        for key in [key for key, used in self._used.items() if now - used >= idle_s]:
            self._release(key)

    def _release(self, key: tuple[str, Mode]) -> None:
        del self._used[key]
        self._loaded.pop(key).close()
        gc.collect()


class OpenScans:
    """Scans that wait for clicks, with what the network said of them; the last two at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scans: dict[str, tuple[OpenScan, threading.Lock]] = {}
        self._used: dict[str, float] = {}

    def keep(self, case_id: str, scan: OpenScan) -> None:
        """Keep a scan; the one unused for longest goes for it."""
        with self._lock:
            self._drop(case_id)
            while len(self._scans) >= _MOST_OPEN:
                self._drop(min(self._used, key=self._used.__getitem__))
            self._scans[case_id] = (scan, threading.Lock())
            self._used[case_id] = time.monotonic()

    def get(self, case_id: str) -> tuple[OpenScan, threading.Lock] | None:
        """Return a scan and what keeps two corrections of it apart; None where it is not open."""
        with self._lock:
            if case_id in self._used:
                self._used[case_id] = time.monotonic()
            return self._scans.get(case_id)

    def drop(self, case_id: str) -> None:
        """Give a scan up, where it is open."""
        with self._lock:
            self._drop(case_id)

    def release_idle(self, idle_s: float) -> None:
        """Give up what nobody used for so long."""
        now = time.monotonic()
        with self._lock:
            for case_id in [each for each, used in self._used.items() if now - used >= idle_s]:
                self._drop(case_id)

    def _drop(self, case_id: str) -> None:
        self._scans.pop(case_id, None)  # not closed: who corrects it just now goes on to the end
        self._used.pop(case_id, None)
