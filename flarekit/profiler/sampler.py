"""Reads probes ten times a second in a thread of its own, and watches how well it does that."""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from flarekit.core.readings import Reading, Unsupported
from flarekit.profiler.readings import Probe, Sample

INTERVAL_S = 0.1  # the organisers' own
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SamplerQuality:
    """How well the samples were taken.

    Attributes:
        samples: how many that were due; one more is taken at the end.
        interval_s: nominal.
        mean_interval_s: between samples as taken.
        jitter_s: standard deviation of that.
        longest_gap_s: the longest of them.
        skipped: moments at which a sample was due and none was taken.
        cpu_s: processor time of the sampling thread.
        core_percent: that, of one core over the time sampled.
    """

    samples: int
    interval_s: float
    mean_interval_s: float
    jitter_s: float
    longest_gap_s: float
    skipped: int
    cpu_s: float
    core_percent: float


class Sampler:
    """Samples from `__enter__`, which returns with the first one taken, to `__exit__`.

    Moments are due at multiples of the interval; late ones are skipped, not caught up with.

    Args:
        probes: read in this order.
        write: gets every sample as it comes, in the sampling thread.
        interval_s: between samples, nominally.
        clock: monotonic, in seconds.
        wait: sleeps so long and returns True when it is to stop; None for a real one.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        write: Callable[[Sample], None],
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._probes = probes
        self._write = write
        self._interval_s = interval_s
        self._clock = clock
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._origin: float | None = None
        self._moments: list[float] = []
        self._samples: list[Sample] = []
        self._skipped = 0
        self._cpu_s = 0.0
        self._error: Exception | None = None

    def __enter__(self) -> Sampler:
        self._thread.start()
        self._first.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        for probe in self._probes:
            probe.close()
        if self._error is not None and error is None:
            raise self._error

    def start_clock(self) -> None:
        """Count the time of samples from here on; those before it are at 0."""
        self._origin = self._clock()

    @property
    def samples(self) -> list[Sample]:
        """What was taken so far."""
        return list(self._samples)

    def quality(self) -> SamplerQuality:
        """Return how well it went; after `__exit__`."""
        gaps = [late - early for early, late in zip(self._moments, self._moments[1:], strict=False)]
        spent_s = self._moments[-1] - self._moments[0] if gaps else 0.0
        return SamplerQuality(
            samples=len(self._moments),
            interval_s=self._interval_s,
            mean_interval_s=round(statistics.fmean(gaps), 6) if gaps else 0.0,
            jitter_s=round(statistics.pstdev(gaps), 6) if gaps else 0.0,
            longest_gap_s=round(max(gaps, default=0.0), 6),
            skipped=self._skipped,
            cpu_s=round(self._cpu_s, 6),
            core_percent=round(100 * self._cpu_s / spent_s, 4) if spent_s else 0.0,
        )

    def _run(self) -> None:
        try:
            self._moments.append(self._take())
            began_cpu_s = time.thread_time()  # opening the driver is not sampling
            self._first.set()
            due = self._clock() + self._interval_s
            while not self._wait(max(0.0, due - self._clock())):
                self._moments.append(self._take())
                due += self._interval_s
                behind_s = self._clock() - due
                missed = math.floor(behind_s / self._interval_s) + 1 if behind_s >= 0 else 0
                self._skipped += missed
                due += missed * self._interval_s
            self._take()  # the end, at no moment of its own
            self._cpu_s = time.thread_time() - began_cpu_s
        except Exception as error:  # noqa: BLE001 - raised again by __exit__, where it is seen
            self._error = error
        finally:
            self._first.set()

    def _take(self) -> float:
        moment = self._clock()
        readings: dict[str, Reading] = {}
        for probe in self._probes:
            readings |= _read(probe)
        t_s = 0.0 if self._origin is None else max(0.0, moment - self._origin)
        sample = Sample(t_s=t_s, readings=readings)
        self._samples.append(sample)
        self._write(sample)
        return moment


def _read(probe: Probe) -> dict[str, Reading]:
    try:
        return probe.read()
    except Exception as error:  # noqa: BLE001 - one probe's bug must not end the measurement
        _LOG.debug("%s", type(probe).__name__, exc_info=True)
        absent = Unsupported(not_supported=f"the probe failed: {type(error).__name__}: {error}")
        return dict.fromkeys(probe.columns, absent)
