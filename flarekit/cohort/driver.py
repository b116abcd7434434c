"""Gives jobs to workers, the largest first, and sees that each ends once: done, or recorded."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flarekit.cohort.jobs import Job, Outcome
from flarekit.core.records import CaseRecord

if TYPE_CHECKING:
    from flarekit.cohort.pool import RayPool

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0  # how long workers are waited for at once


@dataclass(kw_only=True)
class Driver:
    """Runs jobs to their end.

    Attributes:
        pool: of workers.
        retries: how often a job is run again whose worker was lost.
        stand_in: gives the records of a job that is given up, and what is wrong with it.
        ended: told of every case.
        stops: whether a failure ends the run.
    """

    pool: RayPool
    retries: int
    stand_in: Callable[[Job, str], list[CaseRecord]]
    ended: Callable[[CaseRecord], None]
    stops: bool = False
    _faults: dict[Job, list[str]] = field(default_factory=dict)
    _stopped: bool = False

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all jobs; a job whose worker is lost again and again becomes a failure."""
        waiting = deque(jobs)
        while (waiting and not self._stopped) or self.pool.busy():
            while waiting and not self._stopped and self.pool.free():
                self.pool.give(waiting.popleft())
            for outcome in self.pool.take(_LOOK_S):
                if not self._end(outcome):
                    waiting.append(outcome.job)

    def _end(self, outcome: Outcome) -> bool:
        """Return whether a job has ended for good."""
        job, records = outcome.job, outcome.records
        if records is None:
            faults = self._faults.setdefault(job, [])
            faults.append(outcome.fault)
            if len(faults) <= self.retries:
                _LOG.warning("%s: %s; it is run again", job.name, outcome.fault)
                return False
            times = "once" if len(faults) == 1 else f"{len(faults)} times"
            records = self.stand_in(job, f"its worker was lost {times} ({_counted(faults)})")
        faults = self._faults.pop(job, [])
        for record in records:
            if faults and record.error is None:
                note = f"run {len(faults) + 1} times: {_counted(faults)}"
                record = replace(record, warnings=(*record.warnings, note))
            self._stopped |= self.stops and record.error is not None
            self.ended(record)
        return True


def _counted(faults: Sequence[str]) -> str:
    counts = Counter(faults)
    return "; ".join(text if n == 1 else f"{n} times {text}" for text, n in counts.items())
