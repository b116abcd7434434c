"""What odd inputs come to in a run: in its record, on the console, in the exit code."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

from flarekit.cli.console import Console
from flarekit.cli.predict import close_run
from flarekit.core.errors import BudgetError, DeviceError, InputError, UsageError
from flarekit.core.nifti import read_nifti
from flarekit.core.spec import read_spec
from flarekit.segmentation import case_loop
from flarekit.segmentation.folder import Options, Report, segment_folder
from flarekit.segmentation.inputs import convention_of
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source
from tests.conventions.dicom.dicom_files import ct_voxels, slice_of

OPTIONS = Options(device="cpu", precision="fp32")


@pytest.fixture
def inputs(tmp_path):
    made = tmp_path / "inputs"
    made.mkdir()
    return made


@pytest.fixture
def coarse(toy):
    """The toy predictor at 10 mm, which is quick on a wide scan."""
    facts = toy.folder / "predictor.toml"
    facts.write_text(facts.read_text().replace("[2.0, 2.0, 2.0]", "[10.0, 10.0, 10.0]"))
    return read_spec(toy.folder)


def wide_body():
    """A CT of 300 x 300 x 40 mm."""
    voxels = np.full((4, 30, 30), -1000)
    voxels[:, 8:22, 6:24] = 40
    return voxels


def test_a_ct_that_is_not_in_hu_is_named_in_the_record_and_on_the_console(
    coarse, inputs, tmp_path, write_scan, caplog
):
    ten_mm = np.diag([10.0, 10.0, 10.0, 1.0])
    write_scan(inputs / "hu_0000.nii.gz", wide_body(), ten_mm)
    write_scan(inputs / "shifted_0000.nii.gz", wide_body() + 1024, ten_mm)
    report = Report(tmp_path / "report", pictures=False)
    record = segment_folder(coarse, inputs, tmp_path / "out", OPTIONS, report=report)
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

    monkeypatch.setattr(case_loop, "compute_case", fail)
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    (case,) = record.failed
    assert case.error == f"{inputs / 'wide_0000.nii.gz'}: too large"
    assert "its field of view is 1500 x 1500 x 40 mm" in case.warnings[0]


def test_a_field_of_view_beyond_all_scanners_is_refused(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "wide_0000.nii.gz", wide_body(), np.diag([250.0, 250.0, 10.0, 1.0]))
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    (case,) = record.failed
    assert "its field of view is 7500 x 7500 x 40 mm" in case.error


@pytest.fixture
def z_scored(toy):
    """The toy predictor, whose intensities are not clipped."""
    facts = toy.folder / "predictor.toml"
    clipped = '{ kind = "window", low_hu = -200, high_hu = 300, mean = 0, std = 100 }'
    facts.write_text(facts.read_text().replace(clipped, '{ kind = "z_score" }'))
    return read_spec(toy.folder)


@pytest.mark.parametrize("voxel", [1e30, -3.4e38, 1e11])
def test_a_value_that_no_scan_can_hold_is_refused_with_its_file(z_scored, inputs, tmp_path, voxel):
    voxels = wide_body().astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.eye(4)), inputs / "good_0000.nii.gz")
    voxels[2, 3, 4] = voxel
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.eye(4)), inputs / "huge_0000.nii.gz")
    record = segment_folder(z_scored, inputs, tmp_path / "out", OPTIONS)
    (case,) = record.failed
    assert case.error.startswith(f"{inputs / 'huge_0000.nii.gz'}: its values reach")
    assert "(1 of its 3600 voxels)" in case.error
    with (
        Segmenter(Source.of_folder(z_scored), OPTIONS) as segmenter,
        pytest.raises(InputError, match="the array: its values reach .* beyond the 1e"),
    ):
        segmenter.segment(voxels, spacing_mm=(1, 1, 1))


def test_a_huge_value_does_no_harm_where_values_are_clipped_and_is_told(coarse, inputs, tmp_path):
    voxels = wide_body().astype(np.float32)
    voxels[2, 10, 10] = 3000
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.diag([10, 10, 10, 1])), inputs / "a_0000.nii.gz")
    voxels[2, 10, 10] = 1e30
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.diag([10, 10, 10, 1])), inputs / "b_0000.nii.gz")
    record = segment_folder(coarse, inputs, tmp_path / "out", OPTIONS)
    assert not record.failed
    masks = [read_nifti(tmp_path / "out" / f"{name}.nii.gz").voxels_ZYX for name in "ab"]
    np.testing.assert_array_equal(*masks)
    assert "b_0000.nii.gz: its values reach -1000 and 1e+30" in record.cases[1].warnings[0]


def test_whatever_a_case_fails_of_its_file_is_named(toy, inputs, tmp_path, write_scan, monkeypatch):
    path = write_scan(inputs / "a_0000.nii.gz")

    def fail(*_args):
        raise DeviceError("the network's output is not finite", fix="use --precision fp32")

    monkeypatch.setattr(case_loop, "compute_case", fail)
    monkeypatch.setattr("flarekit.segmentation.segmenter.compute_case", fail)
    (case,) = segment_folder(toy, inputs, tmp_path / "out", OPTIONS).failed
    assert case.error == f"{path}: the network's output is not finite"
    with Segmenter(Source.of_folder(toy), OPTIONS) as segmenter:
        with pytest.raises(DeviceError) as caught:
            segmenter.segment(path)
        assert str(caught.value) == f"{case.error} (use --precision fp32)"
        with pytest.raises(DeviceError, match="^the network's output"):
            segmenter.segment(np.zeros((9, 9, 9)), spacing_mm=(1, 1, 1))


@pytest.mark.long
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


@pytest.mark.long
def test_two_cases_of_one_name_are_told_apart(toy, inputs, tmp_path):
    for k in range(8):
        image = slice_of(ct_voxels(8)[k], (0, 0, 4 * k), "1.2.3", k)
        if k > 3:
            image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
            image.ImagePositionPatient = [0, 4 * k, 0]
        image.save_as(inputs / f"IM{k}.dcm", enforce_file_format=True)
    options = Options(device="cpu", precision="fp32", convention="dicom")
    record = segment_folder(toy, inputs, tmp_path / "out", options)
    assert not record.failed, [case.error for case in record.failed]
    assert len({case.mask for case in record.cases}) == 2
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("form", ["zip", "gztar"])
def test_an_archive_of_the_folder_gives_the_masks_of_the_folder(
    toy, inputs, tmp_path, write_scan, monkeypatch, form
):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    write_scan(inputs / "a_0000.nii.gz")
    segment_folder(toy, inputs, tmp_path / "plain", OPTIONS)
    packed = shutil.make_archive(tmp_path / "scans", form, tmp_path, "inputs")
    record = segment_folder(toy, Path(packed), tmp_path / "out", OPTIONS)
    assert not record.failed
    masks = [(tmp_path / name / "a.nii.gz").read_bytes() for name in ("plain", "out")]
    assert masks[0] == masks[1]
    assert not list((tmp_path / "temporary").iterdir())


def test_an_archive_in_a_folder_without_scans_is_named_with_what_to_do(
    toy, inputs, tmp_path, write_scan
):
    (tmp_path / "x").mkdir()
    write_scan(tmp_path / "x" / "a_0000.nii.gz")
    shutil.make_archive(inputs / "scans", "zip", tmp_path / "x")
    with pytest.raises(InputError, match="there are archives: scans.zip .name the archive itself"):
        segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    bad = inputs / "cut.tar.gz"
    bad.write_bytes((inputs / "scans.zip").read_bytes()[:-50])
    with pytest.raises(InputError, match=r"cut.tar.gz"):
        segment_folder(toy, bad, tmp_path / "out", OPTIONS)
    write_scan(inputs / "b_0000.nii.gz")
    assert not segment_folder(toy, inputs, tmp_path / "out", OPTIONS).failed


def test_a_zip_of_dicom_beside_others_is_segmented_and_removed_again(
    toy, inputs, tmp_path, monkeypatch
):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for k in range(6):
        image = slice_of(ct_voxels()[k], (0, 0, 4 * k), "1.2.3", k)
        image.save_as(inputs / f"IM{k}.dcm", enforce_file_format=True)
    packed = tmp_path / "patients"
    packed.mkdir()
    shutil.make_archive(packed / "one", "zip", inputs)
    options = Options(device="cpu", precision="fp32", convention="dicom")
    for given in (packed, packed / "one.zip"):
        record = segment_folder(toy, given, tmp_path / "out", options)
        assert not record.failed, record.failed[0].error
        assert record.left_out == ()
        assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".dcm"]
        assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    ("channel", "modality"),
    [
        ("T1", "MR"),
        ("flair", "MR"),
        ("T2w", "MR"),
        ("SUV", "PT"),
        ("ct", "CT"),
        ("ultrasound", "CT"),
    ],
)
def test_a_predictor_s_channel_tells_which_dicom_series_it_takes(toy, channel, modality):
    (own,) = toy.spec.channels
    spec = toy.spec.model_copy(update={"channels": (own.model_copy(update={"name": channel}),)})
    assert (convention_of("dicom", spec).modalities or ("CT",)) == (modality,)


def test_channels_in_another_order_are_series_in_that_order(toy):
    (own,) = toy.spec.channels
    turned = tuple(own.model_copy(update={"name": name}) for name in ("PET", "CT"))
    spec = toy.spec.model_copy(update={"channels": turned})
    assert convention_of("dicom", spec).modalities == ("PT", "CT")
