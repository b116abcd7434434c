"""Workers whose cases take too long, with a Ray that plays its answers."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from flarekit.cohort.jobs import Job
from flarekit.cohort.pool import RayPool, WorkerNeeds


class FakeRay:
    """Actors that do nothing; `ready` says which of their calls have ended."""

    def __init__(self):
        self.exceptions = SimpleNamespace(RayTaskError=KeyError, RayError=OSError)
        self.ready, self.killed = set(), []

    def put(self, value):
        return value

    def remote(self, _class):
        def call(_job=None):
            return object()

        method = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=call))
        actor = SimpleNamespace(start=method, run=method)
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda _make: actor))

    def wait(self, futures, *, num_returns, timeout, fetch_local):
        del num_returns, timeout, fetch_local
        return [each for each in futures if each in self.ready], []

    def get(self, _future):
        return None

    def kill(self, actor, *, no_restart):
        assert no_restart
        self.killed.append(actor)


@pytest.fixture
def fake(monkeypatch):
    made = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", made)
    return made


@pytest.mark.parametrize("ended", [True, False])
def test_a_case_that_ended_in_time_is_not_too_late_however_late_we_look(fake, monkeypatch, ended):
    now = [0.0]
    monkeypatch.setattr("flarekit.cohort.pool.time", SimpleNamespace(monotonic=lambda: now[0]))
    pool = RayPool(lambda: None, workers=1, needs=WorkerNeeds(), case_timeout_s=8.0)
    fake.ready.add(pool._workers[0].future)
    pool.take(1.0)
    pool.give(Job(("a",)))
    (worker,) = pool._workers
    monkeypatch.setattr(pool, "_say_if_none_starts", lambda: None)
    ask = pool._timed_out

    def ask_late():
        now[0] += 1000.0
        if ended:
            fake.ready.add(worker.future)
        return ask()

    monkeypatch.setattr(pool, "_timed_out", ask_late)
    faults = [outcome.fault for outcome in pool.take(1.0)]
    assert faults == ([] if ended else ["took longer than 8 s"])
    assert len(fake.killed) == (0 if ended else 1)
    if ended:
        (outcome,) = pool.take(1.0)
        assert outcome.fault == ""
