"""Real scans through the service: masks are the command line's, bit for bit."""

from __future__ import annotations

import pytest

from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import find_predictor
from tests.service.serving import serving, settings_in

pytestmark = [pytest.mark.data, pytest.mark.usefixtures("openvino_by_default")]


def test_the_mask_of_a_real_ct_is_the_command_lines_bit_for_bit(shared, tmp_path):
    scan = shared / "data" / "cases" / "CRLM1004_0000.nii.gz"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / scan.name).symlink_to(scan)
    predictor = find_predictor("abdomen_ct")
    segment_folder(predictor, tmp_path / "in", tmp_path / "out", Options(device="cpu"))
    with serving(settings_in(tmp_path), fake=False) as running:
        case_id = running.upload(("scan", scan.name, scan.read_bytes()))["id"]
        done = running.finished(case_id)
        assert done["state"] == "done", done["error"]
        mask = running.client.get(f"/v1/cases/{case_id}/mask").content
    assert mask == (tmp_path / "out" / "CRLM1004.nii.gz").read_bytes()


def test_a_click_corrects_a_real_petct_and_a_cancelled_case_leaves_the_network_whole(
    shared, tmp_path
):
    folder = shared / "data" / "Dataset002_PETCT" / "imagesTr"
    files = [
        ("scan", f"x_{number:04d}.nii.gz", (folder / f"STS_001_{number:04d}.nii.gz").read_bytes())
        for number in (0, 1)
    ]
    with serving(settings_in(tmp_path), fake=False) as running:
        first = running.upload(*files, predictor="att_umamba_petct")["id"]
        before = running.finished(first)["result"]["volumes_ml"]["lesion"]
        second = running.upload(*files, predictor="att_umamba_petct")["id"]
        running.until(second, lambda case: case["step"] not in (None, "loading"))
        running.client.post(f"/v1/cases/{second}/cancel")
        assert running.finished(second)["state"] in ("cancelled", "done")
        clicks = {"tumor": [[10, 10, 10]], "background": []}
        answer = running.client.post(f"/v1/cases/{first}/clicks", json=clicks)
        assert answer.status_code == 200
        assert answer.json()["result"]["volumes_ml"]["lesion"] > before
        assert answer.json()["result"]["refined_s"] < 2
        third = running.upload(*files, predictor="att_umamba_petct")["id"]
        assert running.finished(third)["result"]["volumes_ml"]["lesion"] == before
