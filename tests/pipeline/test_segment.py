from __future__ import annotations

import itertools
import os

import nibabel
import numpy as np
import pytest

from flarekit.core.errors import DeviceError, InputError, OutputError, WeightsHashError
from flarekit.pipeline.segment import Options, segment_folder
from tests.core.broken import broken_files

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
EXACT = Options(device="cpu", precision="fp32")


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    return folder


def mask_of(path):
    return np.asarray(nibabel.load(path).dataobj)


@pytest.mark.parametrize("device", DEVICES)
def test_every_scan_becomes_a_mask_and_nothing_else_is_written(
    toy, inputs, tmp_path, write_scan, device
):
    for name in ("a", "b c", "d_0000"):
        write_scan(inputs / f"{name}_0000.nii.gz")
    (inputs / "notes.txt").write_text("not a scan")
    record = segment_folder(toy, inputs, tmp_path / "out", Options(device=device))
    assert not record.failed
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz", "b c.nii.gz", "d_0000.nii.gz"]
    assert sorted(os.listdir(inputs)) == [
        "a_0000.nii.gz",
        "b c_0000.nii.gz",
        "d_0000_0000.nii.gz",
        "notes.txt",
    ]
    mask = mask_of(tmp_path / "out" / "a.nii.gz")
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1, 4}
    assert mask.any()


def test_times_of_every_stage_and_what_computed_are_recorded(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert (record.device, record.precision, record.engine) == ("cpu", "fp32", "torch")
    assert list(record.cases[0].seconds) == [
        "read",
        "prepare",
        "plan",
        "tiles",
        "restore",
        "rules",
        "write",
    ]
    assert record.seconds["load"] > 0


def test_two_runs_give_the_same_bytes(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    masks = []
    for name in ("one", "two"):
        segment_folder(toy, inputs, tmp_path / name, EXACT)
        masks.append((tmp_path / name / "a.nii.gz").read_bytes())
    assert masks[0] == masks[1]


def test_an_old_mask_is_replaced(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii.gz").write_bytes(b"stale")
    segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert mask_of(tmp_path / "out" / "a.nii.gz").shape == (14, 20, 9)


def test_the_mask_stays_index_aligned_in_all_48_axis_orientations(toy, inputs, tmp_path):
    """One patient stored in 48 ways: the masks, brought back to one way, are all the same."""
    rng = np.random.default_rng(5)
    scan = nibabel.Nifti1Image(
        rng.integers(-200, 300, (14, 20, 9)).astype(np.int16), np.diag([-2.0, -2.0, 2.5, 1])
    )
    stored_as = {}
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            orientation = np.array(list(zip(axes, signs, strict=True)))
            case_id = f"{''.join(map(str, axes))}_{''.join('+' if s > 0 else '-' for s in signs)}"
            stored_as[case_id] = orientation
            nibabel.save(scan.as_reoriented(orientation), inputs / f"{case_id}_0000.nii.gz")
    assert not segment_folder(toy, inputs, tmp_path / "out", EXACT).failed
    masks = []
    for case_id, orientation in stored_as.items():
        back = np.empty((3, 2))
        back[orientation[:, 0]] = np.stack([np.arange(3), orientation[:, 1]], axis=1)
        mask = nibabel.load(tmp_path / "out" / f"{case_id}.nii.gz")
        assert mask.shape == nibabel.load(inputs / f"{case_id}_0000.nii.gz").shape
        masks.append(nibabel.orientations.apply_orientation(np.asarray(mask.dataobj), back))
    assert len(masks) == 48
    assert len(np.unique(masks[0])) > 1
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


@pytest.fixture
def one_bad(inputs, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    write_scan(inputs / "c_0000.nii.gz")
    bad = write_scan(
        inputs / "b_0000.nii.gz", np.random.default_rng(1).integers(0, 999, (30, 40, 50))
    )
    bad.write_bytes(bad.read_bytes()[:9000])
    return inputs


def test_a_bad_case_leaves_an_empty_mask_and_a_clear_error_and_the_others_go_on(
    toy, one_bad, tmp_path
):
    record = segment_folder(toy, one_bad, tmp_path / "out", EXACT)
    assert [case.case_id for case in record.failed] == ["b"]
    assert "b_0000.nii.gz" in record.failed[0].error
    assert record.failed[0].fix
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    empty = mask_of(tmp_path / "out" / "b.nii.gz")
    assert empty.shape == (50, 40, 30)
    assert not empty.any()
    assert mask_of(tmp_path / "out" / "c.nii.gz").any()


def test_on_error_skip_leaves_no_mask(toy, one_bad, tmp_path):
    options = Options(device="cpu", on_error="skip")
    record = segment_folder(toy, one_bad, tmp_path / "out", options)
    assert len(record.failed) == 1
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz", "c.nii.gz"]


def test_on_error_stop_ends_the_run_and_says_what_was_not_run(toy, one_bad, tmp_path):
    options = Options(device="cpu", on_error="stop")
    record = segment_folder(toy, one_bad, tmp_path / "out", options)
    assert record.not_run == ("c",)
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz"]


def test_a_bug_in_one_case_does_not_take_the_others_along(
    toy, inputs, tmp_path, write_scan, monkeypatch
):
    from flarekit.pipeline import case

    def prepare(volumes, spec):
        if volumes[0].path.name.startswith("a"):
            raise KeyError("a bug")
        return genuine(volumes, spec)

    genuine = case.prepare
    monkeypatch.setattr(case, "prepare", prepare)
    write_scan(inputs / "a_0000.nii.gz")
    write_scan(inputs / "b_0000.nii.gz")
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert [case.case_id for case in record.failed] == ["a"]
    assert "KeyError" in record.failed[0].error
    assert not mask_of(tmp_path / "out" / "a.nii.gz").any()
    assert mask_of(tmp_path / "out" / "b.nii.gz").any()


def test_two_channels_are_read_in_order(make_toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    write_scan(inputs / "a_0001.nii.gz")
    write_scan(inputs / "b_0000.nii.gz")
    record = segment_folder(make_toy(channels=2), inputs, tmp_path / "out", EXACT)
    assert [case.case_id for case in record.failed] == ["b"]
    assert "b_0001.nii.gz" in record.failed[0].error


def test_channels_on_two_grids_are_an_error(make_toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    write_scan(inputs / "a_0001.nii.gz", np.zeros((9, 20, 15)))
    record = segment_folder(make_toy(channels=2), inputs, tmp_path / "out", EXACT)
    assert "another grid" in record.failed[0].error


def test_no_cases_is_an_error_before_anything_is_loaded(toy, inputs, tmp_path):
    with pytest.raises(InputError):
        segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_right_stop_the_run(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    toy.weights.write_bytes(b"something else")
    with pytest.raises(WeightsHashError):
        segment_folder(toy, inputs, tmp_path / "out", EXACT)


def test_a_device_that_is_not_there_stops_the_run(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    with pytest.raises(DeviceError):
        segment_folder(toy, inputs, tmp_path / "out", Options(device="cuda:99"))


def test_an_output_folder_that_is_a_file_is_an_error(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OutputError):
        segment_folder(toy, inputs, tmp_path / "out", EXACT)


def test_every_kind_of_broken_file_gets_its_own_error_and_the_other_masks_are_all_there(
    toy, inputs, tmp_path, write_scan
):
    broken = broken_files(inputs)
    write_scan(inputs / "good_0000.nii.gz")
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert sorted(case.case_id for case in record.failed) == sorted(broken)
    for case in record.failed:
        file = broken[case.case_id]
        said = f"{case.error} {case.fix}"
        assert str(file.path) in said
        assert all(words in said for words in file.words)
        mask = nibabel.load(case.mask)
        assert mask.get_data_dtype() == np.uint8
        assert not np.asarray(mask.dataobj).any()
        assert mask.shape == (file.shape_ZYX[::-1] if file.geometry_known else (1, 1, 1))
    assert mask_of(tmp_path / "out" / "good.nii.gz").any()
    assert len(os.listdir(tmp_path / "out")) == len(broken) + 1
