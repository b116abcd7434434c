"""What a restart leaves of the cases."""

from __future__ import annotations

import time

import pytest

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
        deadline = time.monotonic() + 10
        while not running.loaded[0].closed and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running.loaded[0].closed
        running.finished(running.upload(("scan", "a.nii", nifti_of()))["id"])
        assert len(running.loaded) == 2
