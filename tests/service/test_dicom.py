"""DICOM series as uploads, and that what names a patient is seen nowhere."""

from __future__ import annotations

import io
import logging
import zipfile

import pydicom

from tests.conventions.dicom.dicom_files import ct_voxels, write_series
from tests.service.serving import labels_in

SECRETS = ("DOE", "JANE", "4711", "ACC99", "SECRETHOSPITAL")
IDENTITY = {
    "PatientName": "DOE^JANE",
    "PatientID": "4711",
    "AccessionNumber": "ACC99",
    "SeriesDescription": "DOE JANE <script>alert(1)</script>",
    "InstitutionName": "SECRETHOSPITAL",
}


def files_of(folder, **elements):
    write_series(folder, ct_voxels(), **{**IDENTITY, **elements})
    return [
        ("scan", f"DOE_JANE/{path.name}", path.read_bytes()) for path in sorted(folder.iterdir())
    ]


def seen_of(running, case_id) -> str:
    """Return everything that the API says of a case, headers included."""
    said = []
    for what in ("", "/events", "/statistics", "/statistics.csv", "/run", "/mask", "/picture"):
        answer = running.client.get(f"/v1/cases/{case_id}{what}")
        said.append(str(answer.headers) + answer.content.decode("latin-1"))
    said.append(running.client.get("/v1/cases").text)
    return "".join(said)


def test_a_series_becomes_a_mask_and_a_segmentation(running, tmp_path):
    files = files_of(tmp_path / "series")
    case_id = running.upload(*files)["id"]
    done = running.finished(case_id)
    assert (done["state"], done["is_dicom"]) == ("done", True)
    mask = labels_in(running.client.get(f"/v1/cases/{case_id}/mask").content)
    scan = labels_in(running.client.get(f"/v1/cases/{case_id}/scan").content)
    assert mask.shape == scan.shape == (10, 8, 6)
    assert ((scan > 100) == (mask == 1)).all()
    answer = running.client.get(f"/v1/cases/{case_id}/segmentation.dcm")
    segmentation = pydicom.dcmread(io.BytesIO(answer.content))
    assert segmentation.Modality == "SEG"
    assert segmentation.SegmentSequence[0].SegmentLabel.lower() == "liver"


def test_a_zipped_series_is_the_same_as_its_files(running, tmp_path):
    files = files_of(tmp_path / "series")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for _, name, content in files:
            archive.writestr(f"study/{name}", content)
    masks = []
    for upload in (files, [("scan", "DOE JANE.zip", packed.getvalue())]):
        case_id = running.upload(*upload)["id"]
        assert running.finished(case_id)["state"] == "done"
        masks.append(running.client.get(f"/v1/cases/{case_id}/mask").content)
    assert masks[0] == masks[1]


def test_what_names_a_patient_is_in_no_answer_no_log_and_no_list(running, tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO, "flarekit.service")
    whole = running.upload(*files_of(tmp_path / "whole"))["id"]
    gap = files_of(tmp_path / "gap")
    del gap[2]
    broken = running.upload(*gap)["id"]
    other = running.upload(*files_of(tmp_path / "other", Modality="US", SOPClassUID="1.2.3"))["id"]
    for case_id in (whole, broken, other):
        running.finished(case_id)
        seen = seen_of(running, case_id)
        assert not [secret for secret in SECRETS if secret in seen]
    assert running.client.get(f"/v1/cases/{other}").json()["state"] == "failed"
    own_log = "".join(record.getMessage() for record in caplog.records if "service" in record.name)
    stored = (running.service.settings.data / "cases.sqlite").read_bytes()
    stored += (running.service.settings.data / "cases.sqlite-wal").read_bytes()
    for place in (own_log, stored.decode("latin-1"), *capfd.readouterr()):
        assert not [secret for secret in SECRETS if secret in place]


def test_files_that_are_no_images_fail_with_a_reason(running):
    files = [("scan", f"{number}.dcm", b"junk" * 100) for number in range(3)]
    case = running.finished(running.upload(*files)["id"])
    assert case["state"] == "failed"
    assert case["error"]["message"].startswith("dicom: no CT to segment")
