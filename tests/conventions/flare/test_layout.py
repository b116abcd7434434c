from __future__ import annotations

import logging

import nibabel
import numpy as np
import pytest

from flarekit.conventions.flare import layout as flare
from flarekit.core.errors import InputError
from flarekit.core.files import printable_name


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"x")


def test_every_case_of_the_folder_is_found_sorted(tmp_path):
    touch(tmp_path, "b_0000.nii.gz", "a_0000.nii.gz")
    assert [case.case_id for case in flare.find_cases(tmp_path, 1)] == ["a", "b"]


@pytest.mark.parametrize(
    "stem",
    [
        "a_0000",
        "a.b.c",
        "a b",
        "FLARE23Ts_0001",
        "_",
        "ü",
        "a_0000_0000",
        "x.nii.gz",
        "-rf",
        "a\nb",
        "%s{}",
    ],
)
def test_odd_names_keep_everything_but_the_last_suffix(tmp_path, stem):
    touch(tmp_path, f"{stem}_0000.nii.gz")
    (case,) = flare.find_cases(tmp_path, 1)
    assert case.case_id == printable_name(stem)
    assert case.mask.name == f"{stem}.nii.gz"
    assert case.channels == (tmp_path / f"{stem}_0000.nii.gz",)


def test_foreign_files_are_left_alone_and_named_in_the_log(tmp_path, caplog):
    touch(
        tmp_path,
        "a_0000.nii.gz",
        "readme.txt",
        "._a_0000.nii.gz",
        "b.nii.gz",
        "c_0000.nii",
        "_0000.nii.gz",
    )
    (tmp_path / "d_0000.nii.gz").mkdir()
    with caplog.at_level(logging.INFO, logger="flarekit"):
        assert [case.case_id for case in flare.find_cases(tmp_path, 1)] == ["a"]
    for name in ("readme.txt", "b.nii.gz", "c_0000.nii", "d_0000.nii.gz"):
        assert name in caplog.text


def test_further_channels_belong_to_their_case(tmp_path, caplog):
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "arranged.json")
    with caplog.at_level(logging.INFO, logger="flarekit"):
        (case,) = flare.find_cases(tmp_path, 2)
    assert [path.name for path in case.channels] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert not caplog.records


def test_channels_beyond_those_of_the_predictor_are_said_to_be_left_out(tmp_path, caplog):
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz")
    with caplog.at_level(logging.INFO, logger="flarekit"):
        flare.find_cases(tmp_path, 1)
    beyond, foreign = caplog.messages
    assert "channels that the predictor does not take, left out: a_0001.nii.gz" in beyond
    assert foreign.endswith("not scans, left out: b_0001.nii.gz")


def test_a_missing_channel_is_named(tmp_path, write_scan):
    write_scan(tmp_path / "a_0000.nii.gz")
    (case,) = flare.find_cases(tmp_path, 2)
    with pytest.raises(InputError, match="a_0001.nii.gz"):
        flare.read_case(case)


def test_a_scan_without_the_suffix_gets_a_hint_how_to_rename_it(tmp_path):
    touch(tmp_path, "liver.nii.gz")
    with pytest.raises(InputError, match="rename liver.nii.gz to liver_0000.nii.gz"):
        flare.find_cases(tmp_path, 1)


def test_an_empty_folder_and_no_folder_are_errors(tmp_path):
    with pytest.raises(InputError, match="no file named"):
        flare.find_cases(tmp_path, 1)
    with pytest.raises(InputError, match="not a folder"):
        flare.find_cases(tmp_path / "none", 1)


def test_a_mask_has_the_scan_s_geometry_and_uint8_voxels(tmp_path, write_scan):
    affine = np.array([[-0.7, 0, 0, 12], [0, 0.8, 0.1, -3], [0, -0.1, 5, 8], [0, 0, 0, 1.0]])
    write_scan(tmp_path / "a_0000.nii.gz", affine=affine)
    (case,) = flare.find_cases(tmp_path, 1)
    volumes = flare.read_case(case)
    label_map = (volumes[0].voxels_ZYX > 0).astype(np.uint8) * 13
    (tmp_path / "out").mkdir()
    path = flare.write_mask(case, label_map, volumes[0].geometry, tmp_path / "out")
    scan, mask = nibabel.load(case.channels[0]), nibabel.load(path)
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, scan.affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), 13 * (scan.get_fdata() > 0))


def test_an_empty_mask_has_the_geometry_that_a_truncated_scan_still_tells(tmp_path, write_scan):
    voxels = np.random.default_rng(0).integers(-1000, 1000, (30, 40, 50))
    path = write_scan(tmp_path / "a_0000.nii.gz", voxels)
    path.write_bytes(path.read_bytes()[:20000])
    (tmp_path / "out").mkdir()
    mask = flare.write_empty_mask(flare.find_cases(tmp_path, 1)[0], tmp_path / "out")
    assert nibabel.load(mask).shape == (50, 40, 30)
    assert not np.asarray(nibabel.load(mask).dataobj).any()


def test_a_header_that_claims_absurd_sizes_gives_a_one_voxel_mask(tmp_path, write_scan):
    path = write_scan(tmp_path / "a_0000.nii.gz")
    header = nibabel.load(path).header
    header.set_data_shape((30000, 30000, 30000))
    path.write_bytes(header.binaryblock + b"\0" * 4)
    (tmp_path / "out").mkdir()
    mask = flare.write_empty_mask(flare.find_cases(tmp_path, 1)[0], tmp_path / "out")
    assert nibabel.load(mask).shape == (1, 1, 1)
