"""What becomes of jobs whose workers are lost, with workers that are not there."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from flarekit.cohort.driver import Driver
from flarekit.cohort.jobs import Job, Outcome
from flarekit.core.records import CaseRecord


class FakePool:
    """Workers that end their jobs in the order that chance wants, and are lost by chance."""

    def __init__(self, workers, loses, seed=0):
        self._workers, self._loses, self._random = workers, loses, random.Random(seed)
        self._running = []
        self.given = []

    def free(self):
        return self._workers - len(self._running)

    def busy(self):
        return len(self._running)

    def give(self, job):
        assert self.free()
        self.given.append(job)
        self._running.append(job)

    def take(self, timeout_s):  # noqa: ARG002 - nothing is waited for
        job = self._running.pop(self._random.randrange(len(self._running)))
        if self._loses(job, self.given.count(job)):
            return [Outcome(job=job, fault="the worker's process died")]
        return [Outcome(job=job, records=[CaseRecord(case_id=c, mask=None) for c in job.case_ids])]


def stand_in(job, fault):
    return [CaseRecord(case_id=case_id, mask=None, error=fault) for case_id in job.case_ids]


def driven(jobs, loses=lambda *_: False, *, workers=3, retries=2, stops=False, seed=0):
    ended = []
    pool = FakePool(workers, loses, seed)
    driver = Driver(pool=pool, retries=retries, stand_in=stand_in, ended=ended.append, stops=stops)
    driver.run(jobs)
    assert not pool.busy()
    return ended, pool


def jobs_named(names):
    return [Job((name,)) for name in names]


def test_jobs_are_given_in_their_order_and_each_ends_once():
    ended, pool = driven(jobs_named("abcdefgh"))
    assert [job.name for job in pool.given] == list("abcdefgh")
    assert sorted(record.case_id for record in ended) == list("abcdefgh")


def test_a_case_whose_worker_was_lost_is_run_again_and_that_is_in_its_record():
    ended, _ = driven(jobs_named("abc"), lambda job, times: job.name == "b" and times == 1)
    by_id = {record.case_id: record for record in ended}
    assert by_id["b"].error is None
    assert by_id["b"].warnings == ("run 2 times: the worker's process died",)
    assert by_id["a"].warnings == ()


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_case_that_loses_every_worker_becomes_a_failure(retries):
    ended, pool = driven(jobs_named("abc"), lambda job, _: job.name == "b", retries=retries)
    (failed,) = (record for record in ended if record.error)
    assert failed.case_id == "b"
    assert "its worker was lost" in failed.error
    assert [job.name for job in pool.given].count("b") == retries + 1
    assert len(ended) == 3


def test_the_parts_of_one_mask_end_together():
    ended, _ = driven([Job(("a-0", "a-1")), Job(("b-0", "b-1"))], lambda job, _: "a-0" in job.name)
    assert Counter(record.error is None for record in ended) == {True: 2, False: 2}


def test_a_failure_ends_the_run_where_that_is_wanted():
    ended, pool = driven(
        jobs_named("abcdefgh"), lambda job, _: job.name == "a", workers=1, retries=0, stops=True
    )
    assert [record.case_id for record in ended] == ["a"]
    assert len(pool.given) == 1


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3))]
)
def test_of_a_thousand_cases_with_faults_by_chance_none_is_lost_or_done_twice(seed):
    chance = random.Random(seed)
    names = [f"c{index:04d}" for index in range(1000)]
    hopeless = set(chance.sample(names, 20))
    ended, _ = driven(
        jobs_named(names),
        lambda job, _: job.name in hopeless or chance.random() < 0.05,
        workers=7,
        retries=9,
        seed=seed,
    )
    assert sorted(record.case_id for record in ended) == names
    assert {record.case_id for record in ended if record.error} == hopeless
