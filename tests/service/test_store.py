"""What a restart leaves of the cases."""

from __future__ import annotations

import sqlite3
import threading
import time
from dataclasses import replace

import pytest

from flarekit.core.errors import OutputError
from flarekit.service.housekeeping import sweep
from flarekit.service.service import Service
from flarekit.service.store import Store, StoredCase
from tests.service.serving import nifti_of


def test_a_restart_keeps_finished_results_and_runs_waiting_cases(serve, settings):
    with serve(settings()) as running:
        done = running.finished(running.upload(("scan", "a.nii", nifti_of(1)))["id"])["id"]
        mask = running.client.get(f"/v1/cases/{done}/mask").content
        running.gate.clear()
        waiting = [running.upload(("scan", "a.nii", nifti_of(2)))["id"] for _ in range(2)]
        running.until(waiting[0], lambda case: case["state"] == "running")
    with serve(settings()) as running:
        assert running.client.get(f"/v1/cases/{done}/mask").content == mask
        results = [running.finished(each)["result"]["volumes_ml"]["liver"] for each in waiting]
    assert results == [0.002, 0.002]


def test_a_case_that_was_running_when_the_service_was_killed_waits_again_but_not_for_ever(tmp_path):
    path = tmp_path / "cases.sqlite"
    store = Store(path)
    store.add(StoredCase(id="a", owner="", predictor="abdomen_ct"))
    for attempt in (1, 2):
        assert store.take().attempts == attempt
        store.close()  # nothing is told to it: the file is as a kill leaves it
        store = Store(path)
    assert store.get("a").state == "failed"
    assert "ended twice" in store.get("a").error["message"]


def test_uploads_that_never_became_cases_are_removed(settings):
    stranger = settings().data / "cases" / "half"
    stranger.mkdir(parents=True)
    (stranger / "000001.nii").write_bytes(b"x")
    Service(settings()).stop()
    assert not stranger.exists()


def test_cases_are_deleted_when_their_time_is_up(running):
    case_id = running.finished(running.upload(("scan", "a.nii", nifti_of()))["id"])["id"]
    folder = running.service.folder_of(case_id)
    sweep(running.service)
    assert folder.exists()
    old = time.time() - 25 * 3600
    running.service.store._connection.execute("UPDATE cases SET changed = ?", (old,))
    sweep(running.service)
    assert not folder.exists()
    assert running.client.get("/v1/cases").json() == []


@pytest.mark.long
def test_a_predictor_that_nobody_uses_is_released(serve, settings, monkeypatch):
    monkeypatch.setattr("flarekit.service.worker._LOOK_S", 0.02)
    with serve(settings(idle_minutes=0.001)) as running:
        running.finished(running.upload(("scan", "a.nii", nifti_of()))["id"])
        deadline = time.monotonic() + 60
        while not running.loaded[0].closed and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running.loaded[0].closed
        running.finished(running.upload(("scan", "a.nii", nifti_of()))["id"])
        assert len(running.loaded) == 2


@pytest.mark.parametrize(
    ("unwritten", "content", "ends"),
    [("running", nifti_of(), "done"), ("done", nifti_of(), "done"), ("failed", b"torn", "failed")],
)
def test_a_full_disk_costs_neither_the_worker_nor_how_a_case_ended(
    serve, settings, monkeypatch, unwritten, content, ends
):
    monkeypatch.setattr("flarekit.service.worker._LOOK_S", 0.02)
    change, faults = Store.change, []

    def full(self, case_id, **changes):
        if changes.get("state") == unwritten and len(faults) < 3:
            faults.append(changes)
            raise sqlite3.OperationalError("database or disk is full")
        return change(self, case_id, **changes)

    monkeypatch.setattr(Store, "change", full)
    with serve(settings()) as running:
        case = running.upload(("scan", "a.nii", content))
        assert running.finished(case["id"])["state"] == ends
        assert len(faults) == 3
        again = running.upload(("scan", "a.nii", nifti_of()))
        assert running.finished(again["id"])["state"] == "done"


def test_a_record_names_the_weights_that_made_the_mask_not_those_that_came_later(
    serve, settings, monkeypatch
):
    with serve(settings()) as running:
        case_id = running.finished(running.upload(("scan", "a.nii", nifti_of()))["id"])["id"]
        before = running.client.get(f"/v1/cases/{case_id}/run").json()
        spec = running.service.predictors["abdomen_ct"].spec
    assert before["weights_sha256"] == spec.weights.sha256
    newer = spec.weights.model_copy(update={"sha256": "0" * 64})
    monkeypatch.setattr("flarekit.service.outputs.VERSION", "99.0")
    with serve(settings()) as running:
        offered = running.service.predictors
        other = spec.model_copy(update={"weights": newer})
        offered["abdomen_ct"] = replace(offered["abdomen_ct"], spec=other)
        assert running.client.get(f"/v1/cases/{case_id}/run").json() == before


@pytest.mark.long
def test_what_is_left_of_a_predictor_that_is_no_longer_offered(serve, settings):
    """Mask and record stay; what needs the predictor's facts is refused."""
    with serve(settings()) as running:
        case_id = running.finished(running.upload(("scan", "a.nii", nifti_of()))["id"])["id"]
    with serve(settings(predictors=("mpu_net_liver",))) as running:
        place = f"/v1/cases/{case_id}"
        for what in ("", "/mask", "/run"):
            assert running.client.get(place + what).status_code == 200, what
        for what in ("/scan", "/picture", "/statistics", "/segmentation.dcm"):
            answer = running.client.get(place + what)
            assert answer.status_code == 422, what
            assert answer.json()["detail"] == "no such predictor is offered"
        clicks = {"tumor": [(0, 0, 0)], "background": []}
        assert running.client.post(f"{place}/clicks", json=clicks).status_code == 422


def test_a_sweep_that_fails_is_tried_again(settings, monkeypatch):
    sweeps = threading.Event()

    def failing(_):
        if not failing.done:
            failing.done = True
            raise OSError("the disk is full")
        sweeps.set()

    failing.done = False
    monkeypatch.setattr("flarekit.service.housekeeping.sweep", failing)
    monkeypatch.setattr("flarekit.service.housekeeping._SWEEP_S", 0.01)
    service = Service(settings())
    service.start()
    assert sweeps.wait(60)
    service.stop()


def test_a_list_that_is_damaged_or_of_another_version_is_one_sentence_and_stays(tmp_path):
    rubbish, newer, folder = (tmp_path / name for name in ("rubbish", "newer", "folder"))
    rubbish.write_bytes(b"not a list of cases " * 100)
    with sqlite3.connect(newer) as other:
        other.execute("CREATE TABLE cases (id TEXT, something TEXT)")
    other.close()
    folder.mkdir()
    before = rubbish.read_bytes()
    for path, words in ((rubbish, "not a database"), (newer, "another version"), (folder, "open")):
        with pytest.raises(OutputError, match=rf"{path.name}: .*{words}") as refusal:
            Store(path)
        assert "--data" in refusal.value.fix
    assert rubbish.read_bytes() == before
