"""What two do at the same time, forced into the order that would hurt."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import replace

import pytest

from flarekit.core.errors import UsageError
from flarekit.report.picture import write_picture
from flarekit.service.cases import remove_folder
from flarekit.service.housekeeping import sweep
from flarekit.service.problems import Problem
from flarekit.service.service import Service
from flarekit.service.store import Store, StoredCase
from flarekit.service.turns import Turns
from flarekit.service.uploads import Upload
from flarekit.service.wishes import Wish
from flarekit.service.worker import write_result
from tests.service.serving import FakeOpenScan, FakeSegmenter, labels_in, nifti_of

OLD = time.time() - 25 * 3600
PETCT = [("CT", "a.nii", nifti_of()), ("PET", "b.nii", nifti_of())]


@pytest.fixture
def idle(settings):
    """Return a service whose workers have not been started."""
    service = Service(settings())
    yield service
    service.stop()


@pytest.fixture
def turns(tmp_path):
    """Return turns with one case that waits."""
    store = Store(tmp_path / "cases.sqlite")
    store.add(StoredCase(id="a", owner="", predictor="abdomen_ct"))
    yield Turns(store)
    store.close()


@pytest.mark.parametrize(
    ("stop", "unwanted"),
    [
        (lambda turns: turns.cancel("a"), True),
        (lambda turns: turns.remove("a"), True),
        (lambda turns: turns.end(), False),
    ],
    ids=["cancelled", "deleted", "the_service_ends"],
)
def test_a_case_that_was_just_taken_is_stopped(turns, monkeypatch, stop, unwanted):
    take, stopping = turns._store.take, []

    def stopped_meanwhile():
        case = take()
        stopping.append(threading.Thread(target=stop, args=(turns,)))
        stopping[0].start()
        stopping[0].join(0.2)  # it may do all that it can before the case is known to run
        return case

    monkeypatch.setattr(turns._store, "take", stopped_meanwhile)
    _, progress = turns.next(0)
    stopping[0].join()
    assert (progress.cancel.is_set(), progress.unwanted) == (True, unwanted)


def test_no_case_is_taken_once_the_service_ends(turns):
    turns.end()
    assert turns.next(60) is None
    assert turns._store.get("a").state == "waiting"


def test_a_case_that_was_cancelled_is_not_run_again_though_the_service_ends_then(
    serve, settings, nifti
):
    with serve(settings()) as running:
        running.gate.clear()
        case_id = running.upload(("scan", "a.nii", nifti))["id"]
        running.until(case_id, lambda case: case["state"] == "running")
        turns = running.service.turns
        with turns._wake:  # the worker cannot leave the case before both have come
            progress = turns.progress_of(case_id)
            progress.unwanted = True
            turns._over.set()
            progress.cancel.set()
    store = Store(settings().data / "cases.sqlite")
    assert store.get(case_id).state == "cancelled"
    store.close()


def test_an_upload_that_was_given_up_becomes_no_case_and_leaves_nothing(idle, monkeypatch):
    case_id = idle.reserve()

    def arranged_late(_files, folder, *_):
        idle.give_up(case_id)
        folder.mkdir()
        (folder / "CT.nii").write_bytes(b"x")
        return {"CT": "CT.nii"}

    monkeypatch.setattr("flarekit.service.service.arrange", arranged_late)
    with pytest.raises(Problem, match="the service is shutting down"):
        idle.submit(case_id, Upload(), Wish(predictor="abdomen_ct"), "")
    assert idle.store.all() == []
    assert list((idle.settings.data / "cases").iterdir()) == []


def test_a_place_in_the_queue_is_counted_once(serve, settings, nifti, monkeypatch):
    with serve(settings(queue=2)) as running:
        running.gate.clear()
        first = running.upload(("scan", "a.nii", nifti))["id"]
        running.until(first, lambda case: case["state"] == "running")
        add, reserved = running.service.store.add, []

        def another_meanwhile(case):
            added = add(case)
            running.service.turns.wake()
            reserved.append(len(running.service.store.waiting()))
            return added

        monkeypatch.setattr(running.service.store, "add", another_meanwhile)
        running.upload(("scan", "a.nii", nifti))
        assert (reserved, running.service.uploads) == ([1], set())
        running.upload(("scan", "a.nii", nifti))


def test_nothing_can_be_put_into_a_folder_that_is_being_removed(tmp_path, monkeypatch):
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "CT.nii").write_bytes(b"x")
    remove = shutil.rmtree

    def written_meanwhile(*arguments, **how):
        with pytest.raises(FileNotFoundError):
            (folder / "mask.nii.gz").write_bytes(b"late")
        remove(*arguments, **how)

    monkeypatch.setattr(shutil, "rmtree", written_meanwhile)
    remove_folder(folder)
    remove_folder(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_case_that_is_deleted_as_its_mask_is_written_leaves_nothing(running, nifti, monkeypatch):
    def written_late(folder, result):
        if not deleted:
            deleted.append(folder)
            running.client.delete(f"/v1/cases/{folder.name}")
            folder.mkdir()
        write_result(folder, result)

    deleted = []
    monkeypatch.setattr("flarekit.service.worker.write_result", written_late)
    running.upload(("scan", "a.nii", nifti))
    following = running.upload(("scan", "a.nii", nifti))["id"]
    assert running.finished(following)["state"] == "done"
    left = [path.name for path in (running.service.settings.data / "cases").iterdir()]
    assert left == [following]


@pytest.mark.long
def test_a_case_that_is_deleted_as_its_picture_is_drawn_is_no_such_case(
    running, nifti, monkeypatch
):
    case_id = running.finished(running.upload(("scan", "a.nii", nifti))["id"])["id"]

    def drawn_late(*arguments):
        running.service.delete(case_id, "")
        write_picture(*arguments)

    monkeypatch.setattr("flarekit.service.outputs.write_picture", drawn_late)
    assert running.client.get(f"/v1/cases/{case_id}/picture").status_code == 404
    assert list((running.service.settings.data / "cases").iterdir()) == []


def test_a_mask_that_a_click_replaces_as_it_is_fetched_comes_whole(running, monkeypatch):
    case_id = running.upload(*PETCT, predictor="att_umamba_petct")["id"]
    running.finished(case_id)
    look, mask = os.stat, running.service.folder_of(case_id) / "mask.nii.gz"

    def replaced_after(path, *arguments, **how):
        found = look(path, *arguments, **how)
        if str(path) == str(mask):
            longer = mask.with_name("longer")
            longer.write_bytes(mask.read_bytes() + b"\0" * 1000)
            longer.replace(mask)
        return found

    monkeypatch.setattr(os, "stat", replaced_after)
    answer = running.client.get(f"/v1/cases/{case_id}/mask")
    assert answer.headers["content-disposition"] == 'attachment; filename="mask.nii.gz"'
    assert labels_in(answer.content).sum() == 1


def test_a_scan_that_gives_way_to_another_while_it_is_corrected_is_corrected(running, monkeypatch):
    case_id = running.upload(*PETCT, predictor="att_umamba_petct")["id"]
    running.finished(case_id)
    refine = FakeOpenScan.refine

    def dropped_meanwhile(self, clicks):
        running.service.opened.drop(case_id)
        return refine(self, clicks)

    monkeypatch.setattr(FakeOpenScan, "refine", dropped_meanwhile)
    answer = running.client.post(f"/v1/cases/{case_id}/clicks", json={"tumor": [[5, 4, 3]]})
    assert answer.status_code == 200
    assert answer.json()["result"]["volumes_ml"] == {"lesion": 0.002}


def test_a_case_that_another_s_clicks_have_let_run_does_not_wait_once_more(running, monkeypatch):
    case_id = running.upload(*PETCT, predictor="att_umamba_petct")["id"]
    running.finished(case_id)
    running.service.opened.drop(case_id)
    seen = running.service.finished(case_id, "")
    running.gate.clear()
    clicks = {"tumor": [[5, 4, 3]], "background": []}
    assert running.client.post(f"/v1/cases/{case_id}/clicks", json=clicks).status_code == 202
    running.until(case_id, lambda case: case["state"] == "running")
    monkeypatch.setattr(running.service, "finished", lambda *_: seen)  # as it was before
    refused = running.client.post(f"/v1/cases/{case_id}/clicks", json={"tumor": []})
    assert (refused.status_code, refused.json()["detail"]) == (409, "the case is running")
    running.gate.set()
    assert running.finished(case_id)["clicks"] == clicks


def test_a_case_that_waits_again_as_its_time_is_up_is_not_deleted(idle, monkeypatch):
    stale = StoredCase(id="a", owner="", predictor="abdomen_ct", state="done")
    idle.store.add(stale)
    idle.store._connection.execute("UPDATE cases SET changed = ?", (OLD,))
    listed = idle.store.all

    def clicked_meanwhile(*states):
        found = listed(*states)
        idle.store.wait_again("a")
        return found

    monkeypatch.setattr(idle.store, "all", clicked_meanwhile)
    idle.folder_of("a").mkdir()
    sweep(idle)
    assert idle.store.get("a").state == "waiting"
    assert idle.folder_of("a").is_dir()


def test_a_sweep_removes_what_nobody_knows_and_no_upload(idle, monkeypatch):
    coming, other = idle.reserve(), idle.folder_of("stranger")
    other.mkdir()
    listed = idle.store.all

    def becomes_a_case_meanwhile(*states):
        if not states and coming in idle.uploads:
            idle.submit_phantom(coming, Wish(predictor="abdomen_ct"), "", 1)
        return listed(*states)

    monkeypatch.setattr(idle.store, "all", becomes_a_case_meanwhile)
    for _ in range(2):
        sweep(idle)
        assert (idle.folder_of(coming).is_dir(), other.exists()) == (True, False)


def test_a_worker_that_does_not_end_in_time_keeps_other_services_off_its_folder(
    settings, monkeypatch
):
    monkeypatch.setattr("flarekit.service.service._END_S", 0.05)
    begun, gate, made = threading.Event(), threading.Event(), settings()

    class Deaf(FakeSegmenter):
        def segment(self, scan, **_):
            begun.set()
            gate.wait()
            return self.result(scan.read(), [])

    service = Service(made, lambda name, *_: Deaf(name, gate))
    service.start()
    case_id = service.reserve()
    (service.folder_of(case_id) / "CT.nii").write_bytes(nifti_of())
    service._enqueue(case_id, Wish(predictor="abdomen_ct"), "", {"CT": "CT.nii"})
    assert begun.wait(60)
    service.stop()
    with pytest.raises(UsageError, match="another service uses this folder"):
        Service(made)
    gate.set()
    service.workers[0].join()
    service._kept.close()  # as the end of the process does
    again = Service(replace(made))
    assert again.store.get(case_id).state == "waiting"
    again.stop()
