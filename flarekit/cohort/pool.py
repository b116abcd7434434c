"""Workers on Ray: one actor each, with a network that is loaded once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flarekit.cohort.jobs import Job, Outcome
from flarekit.core.errors import DeviceError, FlarekitError, UsageError
from flarekit.core.records import CaseRecord
from flarekit.engine import EngineFacts

if TYPE_CHECKING:
    from flarekit.cohort.worker import Segmenting

_LOG = logging.getLogger(__name__)
_MIB = 2**20
_MOST_STARTS = 3  # of each worker's place, that fail one after the other
_SAY_EVERY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class WorkerNeeds:
    """What one worker takes of its node.

    Attributes:
        cpus: cores, and so threads.
        gpus: GPUs, or a part of one.
        memory_mib: what it may take at most; Ray starts no more workers on a node than fit.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_mib: float = 0.0


@dataclass(kw_only=True)
class _Worker:
    """One actor.

    Attributes:
        future: of what it does; None where it waits for a job.
        job: that it runs; None while it starts.
        since: when that began, of `time.monotonic`.
    """

    actor: Any
    future: Any
    job: Job | None = None
    since: float = 0.0


class _Actor:
    """What runs in a worker's process."""

    def __init__(self, make: Callable[[], Segmenting]) -> None:
        self._runner = make()

    def start(self) -> EngineFacts | None:
        return self._runner.start()

    def run(self, job: Job) -> list[CaseRecord]:
        return self._runner.run(job)


class RayPool:
    """Workers on the cluster that `ray.init` connected to; lost ones are replaced."""

    def __init__(
        self,
        make: Callable[[], Segmenting],
        *,
        workers: int,
        needs: WorkerNeeds,
        case_timeout_s: float | None = None,
    ) -> None:
        """Start the workers; they are waited for by `take`.

        Args:
            make: makes what a worker runs, in the worker; it goes to each node once.
            workers: how many.
            needs: of each.
            case_timeout_s: a case that takes longer has its worker killed; None for no limit.
        """
        import ray

        self._ray = ray
        self._make = ray.put(make)
        self._needs, self._case_timeout_s = needs, case_timeout_s
        self._actor_class: Any = ray.remote(_Actor)
        self._workers: list[_Worker] = []
        self._failed_starts, self._said = 0, time.monotonic()
        self._target = workers
        self.facts: list[EngineFacts] = []  # of the workers, what is the same once
        for _ in range(workers):
            self._add()

    def _add(self) -> None:
        needs = self._needs
        actor = self._actor_class.options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            memory=int(needs.memory_mib * _MIB) or None,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        ).remote(self._make)
        future = actor.start.options(name="load the predictor").remote()
        self._workers.append(_Worker(actor=actor, future=future, since=time.monotonic()))

    def free(self) -> int:
        """Return how many workers wait for a job."""
        return sum(worker.future is None for worker in self._workers)

    def busy(self) -> int:
        """Return how many jobs are being run."""
        return sum(worker.job is not None for worker in self._workers)

    def give(self, job: Job) -> None:
        """Give a job to a worker that waits for one."""
        worker = next(each for each in self._workers if each.future is None)
        worker.future = worker.actor.run.options(name=f"case {job.name}").remote(job)
        worker.job, worker.since = job, time.monotonic()

    def take(self, timeout_s: float) -> list[Outcome]:
        """Return the jobs that have ended, after this time at the latest.

        Raises:
            FlarekitError: no worker can start.
        """
        by_future = {each.future: each for each in self._workers if each.future is not None}
        ready, _ = self._ray.wait(
            list(by_future), num_returns=1, timeout=timeout_s, fetch_local=False
        )
        if ready:  # whatever else has ended meanwhile
            ready, _ = self._ray.wait(
                list(by_future), num_returns=len(by_future), timeout=0, fetch_local=False
            )
        outcomes = [
            outcome for future in ready if (outcome := self._ended(by_future[future])) is not None
        ]
        outcomes += self._timed_out()
        self._say_if_none_starts()
        return outcomes

    def _ended(self, worker: _Worker) -> Outcome | None:
        job = worker.job
        try:
            found = self._ray.get(worker.future)
        except self._ray.exceptions.RayTaskError as error:
            # the worker lives: something was raised that is not a failure of a case
            cause = error.cause if isinstance(error.cause, BaseException) else error
            if job is None:
                self._drop(worker)
                raise _as_expected(cause) from error
            fault = f"{type(cause).__name__}: {cause}".strip()
            self._replace(worker)
            return Outcome(job=job, fault=fault)
        except self._ray.exceptions.RayError as error:
            return self._lost(worker, _reason(error))
        worker.future, worker.job = None, None
        if job is None:
            self._failed_starts = 0
            self._note(found)
            return None
        return Outcome(job=job, records=found)

    def _note(self, facts: EngineFacts | None) -> None:
        """Keep what computes in a worker, and say where it is not what computes in the others."""
        if facts is None or facts in self.facts:
            return
        if self._needs.gpus and facts.device == "cpu":
            _LOG.warning(
                "a worker that has %g GPUs computes on the CPU; see `flarekit doctor` on its node",
                self._needs.gpus,
            )
        words = _words(facts)
        if self.facts and words not in map(_words, self.facts):
            _LOG.warning(
                "a worker computes with %s, others with %s; masks may differ a little",
                words,
                _words(self.facts[0]),
            )
        self.facts.append(facts)

    def _lost(self, worker: _Worker, reason: str) -> Outcome | None:
        job = worker.job
        if job is None:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_STARTS * self._target:
                raise DeviceError(
                    f"no worker can start: {reason}",
                    fix="check the memory of the nodes, or give less with --memory-per-worker",
                )
        self._replace(worker)
        return None if job is None else Outcome(job=job, fault=reason)

    def _timed_out(self) -> list[Outcome]:
        limit_s = self._case_timeout_s
        if limit_s is None:
            return []
        late = [
            worker
            for worker in self._workers
            if worker.job is not None
            and time.monotonic() - worker.since > limit_s * len(worker.job.case_ids)
            and not self._has_ended(worker)  # we may be late, not it
        ]
        outcomes = []
        for worker in late:
            assert worker.job is not None
            outcomes.append(Outcome(job=worker.job, fault=f"took longer than {limit_s:g} s"))
            self._replace(worker)
        return outcomes

    def _has_ended(self, worker: _Worker) -> bool:
        ready, _ = self._ray.wait([worker.future], num_returns=1, timeout=0, fetch_local=False)
        return bool(ready)

    def _replace(self, worker: _Worker) -> None:
        self._drop(worker)
        self._add()

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._ray.kill(worker.actor, no_restart=True)

    def _say_if_none_starts(self) -> None:
        idle = not self.busy() and not self.free()
        if idle and time.monotonic() - self._said > _SAY_EVERY_S:
            self._said = time.monotonic()
            _LOG.warning(
                "no worker has a place: each takes %g CPUs, %g GPUs and %.0f MiB",
                self._needs.cpus,
                self._needs.gpus,
                self._needs.memory_mib,
            )

    def stop(self) -> None:
        """End all workers."""
        for worker in list(self._workers):
            self._drop(worker)


def _words(facts: EngineFacts) -> str:
    """Return what masks may depend on, of what computes."""
    scan = "" if facts.scan is None else f", scans by {facts.scan}"
    return f"{facts.engine} on {facts.device} in {facts.precision}{scan}"


def _as_expected(cause: BaseException) -> FlarekitError:
    if isinstance(cause, FlarekitError):
        return cause
    return UsageError(
        f"a worker cannot start: {type(cause).__name__}: {cause}",
        fix="install the same version of flarekit on every node",
    )


def _reason(error: Exception) -> str:
    """Return in a few words why a worker is gone."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or "low on memory" in text:
        return "the worker was killed because its node ran out of memory"
    if "its node has died" in text or type(error).__name__ == "NodeDiedError":
        return "the worker's node is gone"
    return "the worker's process died"
