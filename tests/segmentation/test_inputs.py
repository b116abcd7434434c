"""What odd inputs come to in a run: in its record, on the console, in the exit code."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flarekit.cli.console import Console
from flarekit.cli.predict import close_run
from flarekit.core.errors import BudgetError, UsageError
from flarekit.segmentation import folder
from flarekit.segmentation.folder import Options, Report, segment_folder
from tests.conventions.dicom_files import ct_voxels, slice_of

OPTIONS = Options(device="cpu", precision="fp32")


@pytest.fixture
def inputs(tmp_path):
    made = tmp_path / "inputs"
    made.mkdir()
    return made


def wide_body():
    """A CT of 300 x 300 x 40 mm."""
    voxels = np.full((4, 30, 30), -1000)
    voxels[:, 8:22, 6:24] = 40
    return voxels


def test_a_ct_that_is_not_in_hu_is_named_in_the_record_and_on_the_console(
    toy, inputs, tmp_path, write_scan, caplog
):
    ten_mm = np.diag([10.0, 10.0, 10.0, 1.0])
    write_scan(inputs / "hu_0000.nii.gz", wide_body(), ten_mm)
    write_scan(inputs / "shifted_0000.nii.gz", wide_body() + 1024, ten_mm)
    report = Report(tmp_path / "report", pictures=False)
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS, report=report)
    assert not record.failed
    assert record.cases[0].warnings == ()
    (warning,) = record.cases[1].warnings
    assert "shifted_0000.nii.gz: no voxel is below -200 HU" in warning
    assert warning in caplog.text
    lines = (tmp_path / "report" / "ledger.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["warnings"] == [warning]


def test_a_case_that_fails_later_keeps_what_was_suspect_about_it(
    toy, inputs, tmp_path, write_scan, monkeypatch
):
    write_scan(inputs / "wide_0000.nii.gz", wide_body(), np.diag([50.0, 50.0, 10.0, 1.0]))

    def fail(*_args):
        raise BudgetError("too large", fix="crop it")

    monkeypatch.setattr(folder, "compute_case", fail)
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    (case,) = record.failed
    assert case.error == "too large"
    assert "its field of view is 1500 x 1500 x 40 mm" in case.warnings[0]


def test_a_field_of_view_beyond_all_scanners_is_refused(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "wide_0000.nii.gz", wide_body(), np.diag([250.0, 250.0, 10.0, 1.0]))
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    (case,) = record.failed
    assert "its field of view is 7500 x 7500 x 40 mm" in case.error


def test_files_that_are_left_out_are_in_the_record_and_make_the_exit_code_1(
    toy, inputs, tmp_path, capfd
):
    for k in range(6):
        image = slice_of(ct_voxels()[k], (0, 0, 4 * k), "1.2.3", k)
        image.save_as(inputs / f"IM{k}.dcm", enforce_file_format=True)
    whole = (inputs / "IM5.dcm").read_bytes()
    (inputs / "IM5.dcm").write_bytes(whole[:-20])
    options = Options(device="cpu", precision="fp32", convention="dicom")
    record = segment_folder(toy, inputs, tmp_path / "out", options)
    assert not record.failed
    (sentence,) = record.left_out
    assert "IM5.dcm: is cut off" in sentence
    assert record.as_dict()["left_out"] == record.left_out
    assert close_run(record, Console()) == 1
    said = capfd.readouterr().err
    assert "1 of the inputs left out" in said
    assert "IM5.dcm" in said


def test_no_output_and_no_report_goes_where_the_inputs_are(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    write_scan(inputs / "a.nii.gz")
    before = {path: path.read_bytes() for path in inputs.iterdir()}
    with pytest.raises(UsageError, match="is the input folder"):
        segment_folder(toy, inputs, inputs, OPTIONS)
    report = Report(inputs, pictures=False)
    with pytest.raises(UsageError, match="is the input folder"):
        segment_folder(toy, inputs, tmp_path / "out", OPTIONS, report=report)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii.gz").symlink_to(inputs / "a.nii.gz")
    with pytest.raises(UsageError, match=r"a.nii.gz: is a file of the input folder"):
        segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    assert {path: path.read_bytes() for path in inputs.iterdir()} == before


def test_two_cases_of_one_name_are_told_apart(toy, inputs, tmp_path):
    for k in range(8):
        image = slice_of(ct_voxels(8)[k], (0, 0, 4 * k), "1.2.3", k)
        if k > 3:
            image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
            image.ImagePositionPatient = [0, 4 * k, 0]
        image.save_as(inputs / f"IM{k}.dcm", enforce_file_format=True)
    options = Options(device="cpu", precision="fp32", convention="dicom")
    record = segment_folder(toy, inputs, tmp_path / "out", options)
    assert not record.failed
    assert len({case.mask for case in record.cases}) == 2
    assert len(list((tmp_path / "out").iterdir())) == 2
