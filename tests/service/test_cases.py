"""Cases over the API: from upload to deletion."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import nibabel
import numpy as np

from tests.service.serving import TILES, labels_in, nifti_of


def test_an_uploaded_scan_is_segmented_and_its_mask_has_the_scans_geometry(running, nifti):
    case = running.upload(("scan", "anything.nii", nifti))
    done = running.finished(case["id"])
    assert done["state"] == "done"
    assert done["result"]["volumes_ml"]["liver"] == 0.001
    content = running.client.get(f"/v1/cases/{case['id']}/mask").content
    assert labels_in(content).sum() == 1
    scan, mask = (
        nibabel.Nifti1Image.from_bytes(data) for data in (nifti, gzip.decompress(content))
    )
    assert np.array_equal(scan.affine, mask.affine)


def test_every_file_of_a_case_can_be_fetched(running, nifti):
    case_id = running.finished(running.upload(("scan", "a.nii", nifti))["id"])["id"]
    get = lambda what: running.client.get(f"/v1/cases/{case_id}/{what}")  # noqa: E731
    assert get("scan").content == nifti
    assert get("scan?channel=CT").content == nifti
    assert get("picture").content.startswith(b"\x89PNG")
    liver = get("statistics").json()[0]
    assert (liver["label"], liver["voxels"], liver["components"]) == ("liver", 1, 1)
    assert get("statistics.csv").text.startswith("case,label,value,volume_ml")
    record = get("run").json()
    assert record["engine"] == "fake"
    assert record["memory"][0][1] > 10
    missing = get("segmentation.dcm")
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        "the scan did not come as DICOM",
    )


def test_ids_cannot_be_guessed(running, nifti):
    ids = {running.upload(("scan", "a.nii", nifti))["id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(len(each) >= 22 for each in ids)


def test_events_tell_of_the_place_the_tiles_and_the_end(running, nifti):
    running.gate.clear()
    first = running.upload(("scan", "a.nii", nifti))["id"]
    running.until(first, lambda case: case["tiles"] is not None)
    second = running.upload(("scan", "a.nii", nifti))["id"]
    lines = []
    with running.client.stream("GET", f"/v1/cases/{second}/events") as stream:
        assert stream.headers["content-type"].startswith("application/x-ndjson")
        for line in stream.iter_lines():
            lines.append(json.loads(line))
            running.gate.set()
    assert (lines[0]["state"], lines[0]["place"]) == ("waiting", 0)
    assert lines[-1]["state"] == "done"


def test_a_case_that_runs_tells_how_many_tiles_are_done(running, nifti):
    running.gate.clear()
    case = running.upload(("scan", "a.nii", nifti))
    found = running.until(case["id"], lambda case: case["tiles"] is not None)
    assert found["step"] == "tiles"
    assert found["tiles"] == {"done": 1, "total": TILES}


def test_one_case_runs_at_a_time_and_its_predictor_is_loaded_once(running, nifti):
    running.gate.clear()
    cases = [running.upload(("scan", "a.nii", nifti))["id"] for _ in range(3)]
    running.until(cases[0], lambda case: case["state"] == "running")
    states = [running.client.get(f"/v1/cases/{each}").json() for each in cases[1:]]
    assert [(each["state"], each["place"]) for each in states] == [("waiting", 0), ("waiting", 1)]
    running.gate.set()
    assert [running.finished(each)["state"] for each in cases] == ["done"] * 3
    assert len(running.loaded) == 1


def test_a_full_queue_answers_429_and_when_to_come_again(serve, settings, nifti):
    with serve(settings(queue=2)) as running:
        running.gate.clear()
        first = running.upload(("scan", "a.nii", nifti))["id"]
        running.until(first, lambda case: case["state"] == "running")
        accepted = [running.upload(("scan", "a.nii", nifti))["id"] for _ in range(2)]
        refused = running.post(("scan", "a.nii", nifti))
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        demo = running.client.post("/v1/demo", json={})
        assert demo.status_code == 429
        running.gate.set()
        assert [running.finished(each)["state"] for each in accepted] == ["done"] * 2
        assert running.post(("scan", "a.nii", nifti)).status_code == 202


def test_a_case_that_waits_is_cancelled_at_once_and_one_that_runs_at_its_next_tile(running, nifti):
    running.gate.clear()
    first, second = (running.upload(("scan", "a.nii", nifti))["id"] for _ in range(2))
    running.until(first, lambda case: case["tiles"] is not None)
    for case_id in (second, first):
        assert running.client.post(f"/v1/cases/{case_id}/cancel").status_code == 200
        assert running.finished(case_id)["state"] == "cancelled"
    mask = running.client.get(f"/v1/cases/{first}/mask")
    assert (mask.status_code, mask.json()["detail"]) == (409, "the case is cancelled")
    running.gate.set()
    third = running.upload(("scan", "a.nii", nifti))["id"]
    assert running.finished(third)["state"] == "done"


def test_a_deleted_case_leaves_no_file(running, nifti):
    case_id = running.finished(running.upload(("scan", "a.nii", nifti))["id"])["id"]
    folder = running.service.folder_of(case_id)
    assert folder.is_dir()
    assert running.client.delete(f"/v1/cases/{case_id}").status_code == 204
    assert not folder.exists()
    assert running.client.get(f"/v1/cases/{case_id}").status_code == 404


def test_a_case_that_is_deleted_while_it_runs_leaves_no_file(running, nifti):
    running.gate.clear()
    case_id = running.upload(("scan", "a.nii", nifti))["id"]
    running.until(case_id, lambda case: case["tiles"] is not None)
    assert running.client.delete(f"/v1/cases/{case_id}").status_code == 204
    running.gate.set()
    next_id = running.upload(("scan", "a.nii", nifti))["id"]
    assert running.finished(next_id)["state"] == "done"
    assert not running.service.folder_of(case_id).exists()


def test_channels_are_told_apart_by_field_number_or_name(running):
    ct, pet = nifti_of(3), nifti_of(7)
    for names in (
        [("PET", "x.nii", pet), ("ct", "y.nii", ct)],
        [("scan", "p_0001.nii", pet), ("scan", "p_0000.nii", ct)],
        [("scan", "my pet.nii", pet), ("scan", "CT-thorax.nii", ct)],
    ):
        case_id = running.upload(*names, predictor="att_umamba_petct")["id"]
        assert running.finished(case_id)["state"] == "done"
        for channel, content in (("CT", ct), ("PET", pet)):
            found = running.client.get(f"/v1/cases/{case_id}/scan?channel={channel}")
            assert found.content == content


def test_channels_that_cannot_be_told_apart_are_refused_and_leave_nothing(running):
    files = [("scan", name, nifti_of()) for name in ("a.nii", "b.nii")]
    refused = running.post(*files, predictor="att_umamba_petct")
    assert refused.status_code == 422
    assert "which volume is which channel (CT, PET)" in refused.json()["detail"]
    one = running.post(files[0], predictor="att_umamba_petct")
    assert "takes 2 (CT, PET)" in one.json()["detail"]
    assert list((running.service.settings.data / "cases").iterdir()) == []


def test_a_zip_of_one_scan_is_taken(running, nifti):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("some/folder/scan.nii", nifti)
    case_id = running.upload(("scan", "scan.zip", packed.getvalue()))["id"]
    assert running.finished(case_id)["state"] == "done"
    assert running.client.get(f"/v1/cases/{case_id}/scan").content == nifti


def test_clicks_change_the_mask_at_once_while_the_scan_is_open(running):
    files = [("CT", "a.nii", nifti_of()), ("PET", "b.nii", nifti_of())]
    case_id = running.upload(*files, predictor="att_umamba_petct")["id"]
    before = running.finished(case_id)
    answer = running.client.post(f"/v1/cases/{case_id}/clicks", json={"tumor": [[5, 4, 3]]})
    assert answer.status_code == 200
    after = answer.json()
    assert after["revision"] == before["revision"] + 1
    assert after["result"]["volumes_ml"] == {"lesion": 0.002}
    assert labels_in(running.client.get(f"/v1/cases/{case_id}/mask").content)[5, 4, 3] == 1


def test_clicks_on_a_scan_that_is_no_longer_open_let_the_network_run_again(running):
    files = [("CT", "a.nii", nifti_of()), ("PET", "b.nii", nifti_of())]
    case_id = running.upload(*files, predictor="att_umamba_petct")["id"]
    running.finished(case_id)
    running.service.opened.drop(case_id)
    answer = running.client.post(f"/v1/cases/{case_id}/clicks", json={"tumor": [[5, 4, 3]]})
    assert answer.status_code == 202
    assert running.finished(case_id)["result"]["volumes_ml"] == {"lesion": 0.002}


def test_clicks_that_make_no_sense_are_refused(running, nifti):
    organs = running.finished(running.upload(("scan", "a.nii", nifti))["id"])["id"]
    files = [("CT", "a.nii", nifti_of()), ("PET", "b.nii", nifti_of())]
    lesions = running.finished(running.upload(*files, predictor="att_umamba_petct")["id"])["id"]
    for case_id, clicks, said in (
        (organs, {"tumor": [[0, 0, 0]]}, "has no rule that clicks change"),
        (lesions, {"tumor": [[99, 0, 0]]}, "lies outside the scan"),
        (lesions, {"tumor": [[0, 0]]}, ""),
        (lesions, {"organ": [[0, 0, 0]]}, ""),
        (lesions, {"tumor": [[0, 0, 0]] * 501}, "more than 500 clicks"),
    ):
        refused = running.client.post(f"/v1/cases/{case_id}/clicks", json=clicks)
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert said in refused.json()["detail"]


def test_the_demo_segments_a_generated_scan(running, monkeypatch):
    def quick(seed, *, scan, labels):
        scan.write_bytes(gzip.compress(nifti_of(seed)))
        labels.write_bytes(b"truth")

    monkeypatch.setattr("flarekit.service.worker.save_phantom", quick)
    case_id = running.client.post("/v1/demo", json={"seed": 3}).json()["id"]
    assert running.finished(case_id)["state"] == "done"
    assert running.finished(case_id)["result"]["volumes_ml"]["liver"] == 0.003
    kept = [path.name for path in running.service.folder_of(case_id).iterdir()]
    assert sorted(kept) == ["CT.nii.gz", "mask.nii.gz"]


def test_predictors_come_with_labels_colours_and_card(running):
    first, second = running.client.get("/v1/predictors").json()
    assert (first["name"], first["channels"]) == ("abdomen_ct", ["CT"])
    assert first["labels"][0] == {
        "name": "liver",
        "value": 1,
        "colour": first["labels"][0]["colour"],
    }
    assert (first["takes_clicks"], second["takes_clicks"]) == (False, True)
    assert "Dice" in running.client.get(first["card"]).text


def test_a_predictor_that_is_not_offered_and_options_that_are_not_known_are_refused(running, nifti):
    for fields in (
        {"predictor": "/etc"},
        {"mode": "slow"},
        {"time_budget_s": "-1"},
        {"time_budget_s": "nan"},
        {"device": "cuda"},
    ):
        refused = running.post(("scan", "a.nii", nifti), **fields)
        assert refused.status_code == 422, fields
        assert refused.json()["fix"]


def test_a_scan_that_cannot_be_read_fails_with_the_command_lines_words(running):
    case = running.finished(running.upload(("scan", "DOE_JOHN.nii.gz", b"junk"))["id"])
    assert case["state"] == "failed"
    assert case["error"] == {
        "message": "CT.nii.gz: is not a NIfTI file",
        "fix": "convert it to NIfTI",
    }
    assert running.client.get(f"/v1/cases/{case['id']}/mask").status_code == 409
