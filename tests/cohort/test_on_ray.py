"""Cohorts on a real Ray: workers that die, hang, and nodes that leave."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from flarekit.cohort.driver import Driver
from flarekit.cohort.jobs import Job
from flarekit.core.errors import DeviceError
from flarekit.core.records import CaseRecord
from tests.cohort.runners import FakeWork
from tests.command import COMMAND, run, run_process

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster():
    """Run a cluster of three nodes on this machine; workers find room on the last two."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    memory = {"object_store_memory": 80 * 2**20}
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory}
    )
    made.add_node(num_cpus=2, **memory)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def only_hanging_takes_time(monkeypatch):
    """Let time stand still for the pool as long as a job runs that is going to end."""
    from flarekit.cohort import pool as module

    now, timed_out = [0.0], module.RayPool._timed_out

    def looked(pool):
        jobs = [worker.job for worker in pool._workers if worker.job is not None]
        if jobs and all("hang" in job.name for job in jobs):
            now[0] += 1000.0
        return timed_out(pool)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(module.RayPool, "_timed_out", looked)


def drive(work, ids, *, workers=2, retries=1, case_timeout_s=None, during=lambda _: None):
    from flarekit.cohort.pool import RayPool, WorkerNeeds

    ended = []

    def end(record):
        ended.append(record)
        during(len(ended))

    def stand_in(job, fault):
        return [CaseRecord(case_id=case_id, mask=None, error=fault) for case_id in job.case_ids]

    pool = RayPool(work, workers=workers, needs=WorkerNeeds(cpus=1), case_timeout_s=case_timeout_s)
    try:
        driver = Driver(pool=pool, retries=retries, stand_in=stand_in, ended=end)
        driver.run([Job((case_id,)) for case_id in ids])
    finally:
        pool.stop()
    return {record.case_id: record for record in ended}


@pytest.mark.usefixtures("cluster", "only_hanging_takes_time")
def test_whatever_happens_to_workers_every_case_ends_once(tmp_path):
    ids = ["a", "crash", "b", "hang", "c", "raise", "d", "flaky", "e"]
    records = drive(FakeWork(tmp_path), ids, case_timeout_s=3.0)
    assert sorted(records) == sorted(ids)
    faults = {name: record.error for name, record in records.items() if record.error}
    assert set(faults) == {"crash", "hang", "raise"}
    assert "the worker's process died" in faults["crash"]
    assert "took longer than 3 s" in faults["hang"]
    assert "RuntimeError: something nobody thought of" in faults["raise"]
    assert records["flaky"].warnings
    masks = sorted(path.stem for path in tmp_path.glob("*.mask"))
    assert masks == ["a", "b", "c", "d", "e", "flaky"]


@pytest.mark.usefixtures("cluster")
def test_a_worker_loads_once_and_takes_case_after_case(tmp_path):
    ids = [f"c{index}" for index in range(12)]
    drive(FakeWork(tmp_path, seconds=0.05), ids)
    workers = {path.read_text() for path in tmp_path.glob("*.starts")}
    assert len(workers) <= 2  # one may be through before the other has started
    assert {len(text.splitlines()) for text in workers} == {1}


@pytest.mark.usefixtures("cluster")
def test_workers_that_cannot_start_end_the_run_with_their_reason(tmp_path):
    with pytest.raises(DeviceError, match="no device 'abacus'"):
        drive(FakeWork(tmp_path, broken=True), ["a"])


@pytest.mark.usefixtures("cluster")
def test_what_computes_in_every_worker_is_kept_and_workers_that_differ_are_told(tmp_path, caplog):
    from flarekit.cohort.pool import RayPool, WorkerNeeds

    work = FakeWork(tmp_path, precisions=("bf16", "fp32"))
    pool = RayPool(work, workers=2, needs=WorkerNeeds(cpus=1))
    try:
        while pool.free() < 2:
            pool.take(1.0)
    finally:
        pool.stop()
    assert sorted(each.precision for each in pool.facts) == ["bf16", "fp32"]
    assert "a worker computes with fake on cpu in" in caplog.text


def test_a_node_that_leaves_costs_no_case(cluster, tmp_path):
    node = cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    ids = [f"c{index:02d}" for index in range(24)]

    def leave(count):
        if count == 6:
            cluster.remove_node(node, allow_graceful=False)

    records = drive(FakeWork(tmp_path, seconds=0.3), ids, workers=4, retries=2, during=leave)
    assert sorted(records) == ids
    assert not [record for record in records.values() if record.error]
    notes = {note for record in records.values() for note in record.warnings}
    lost = ("the worker's node is gone", "the worker's process died")  # whichever is seen first
    assert notes <= {f"run 2 times: {fault}" for fault in lost}
    assert len(list(tmp_path.glob("*.mask"))) == 24


@pytest.mark.slow
@pytest.mark.usefixtures("only_hanging_takes_time")
def test_a_thousand_cases_with_faults_by_chance_end_once_each(cluster, tmp_path):
    """Workers crash, hang and raise, and a node leaves; what ends well has one whole mask."""
    rng = random.Random(20261126)
    names = [f"c{index:04d}" for index in range(1000)]
    kinds = ("crash", "flaky", "flaky", "raise", "hang")
    ids = [f"{name}-{rng.choice(kinds)}" if rng.random() < 0.02 else name for name in names]
    node = cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)

    def leave(count):
        if count == 400:
            cluster.remove_node(node, allow_graceful=False)

    work = FakeWork(tmp_path, seconds=0.01)
    records = drive(work, ids, workers=4, retries=2, case_timeout_s=8.0, during=leave)
    assert sorted(records) == sorted(ids)
    failed = {case_id for case_id, record in records.items() if record.error}
    hopeless = ("crash", "raise", "hang")
    assert failed == {case_id for case_id in ids if case_id.endswith(hopeless)}
    masks = {path.stem: path.read_text() for path in tmp_path.glob("*.mask")}
    assert masks == {case_id: case_id for case_id in ids if case_id not in failed}
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def inputs(tmp_path, write_scan):
    folder = tmp_path / "inputs"
    folder.mkdir()
    for index in range(5):
        voxels = np.random.default_rng(index).integers(-200, 300, (9, 20 + 4 * index, 14))
        write_scan(folder / f"c{index}_0000.nii.gz", voxels)
    (folder / "bad_0000.nii.gz").write_bytes(b"torn")
    return folder


def test_masks_are_those_of_a_plain_run_and_what_is_done_is_skipped(toy, inputs, tmp_path):
    """On a Ray that the command starts itself."""
    common = ["-i", inputs, "-p", toy.folder, "--device", "cpu"]
    report = ["--report", tmp_path / "report", "--no-pictures"]
    threads = {"OMP_NUM_THREADS": "1"}
    on_ray = ["cohort", "run", *common, "-o", tmp_path / "ray", *report, "--workers", "2"]
    done = run_process(*on_ray, **threads)
    assert done.returncode == 1, done.stderr
    assert "1 of 6 cases failed: bad" in done.stderr.splitlines()[-1]
    run(*["predict", *common, "-o", tmp_path / "plain"], **threads)
    for name in sorted(os.listdir(tmp_path / "plain")):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    lines = (tmp_path / "report" / "ledger.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["case_id"] for line in lines) == [
        "bad",
        *(f"c{i}" for i in range(5)),
    ]
    rows = (tmp_path / "report" / "statistics.csv").read_text().splitlines()
    assert len(rows) == 1 + 5 * 2
    assert "Cohort of 6 cases" in (tmp_path / "report" / "report.html").read_text()
    record = json.loads((tmp_path / "report" / "run.json").read_text())
    assert (record["engine"], record["device"]) == ("torch", "cpu")
    again = run_process(*on_ray, "--resume", **threads)
    assert "1 of 6 cases failed in an earlier run: bad" in again.stderr
    assert "5 of 6 cases segmented (5 in an earlier run)" in again.stderr
    assert sorted(os.listdir(tmp_path / "ray")) == sorted(os.listdir(tmp_path / "plain"))


@pytest.mark.slow
def test_a_driver_that_is_killed_loses_no_case_that_was_done(toy, inputs, tmp_path, write_scan):
    for index in range(20):
        write_scan(inputs / f"d{index}_0000.nii.gz", np.full((60, 90, 90), index))
    command = ["cohort", "run", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    command += ["--device", "cpu", "--report", tmp_path / "report", "--no-pictures"]
    ledger = tmp_path / "report" / "ledger.jsonl"
    with subprocess.Popen([*COMMAND, *map(str, command)], stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 600
        while time.monotonic() < until:
            if ledger.is_file() and len(ledger.read_bytes().splitlines()) >= 4:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = len(ledger.read_bytes().splitlines())
    again = run_process(*command, "--resume")
    skipped = int(re.search(r"resumed: (\d+) of 26 cases are done", again.stderr)[1])
    assert skipped in (before, before - 1)  # one of them may be the damaged scan
    ids = [json.loads(line)["case_id"] for line in ledger.read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 26
    for path in (tmp_path / "out").iterdir():
        assert np.asarray(nibabel.load(path).dataobj).dtype == np.uint8
    assert not list(Path(tmp_path / "out").glob(".*"))
