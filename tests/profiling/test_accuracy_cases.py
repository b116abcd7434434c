from __future__ import annotations

import numpy as np
import pytest
from accuracy_cases import (
    held_out_petct,
    held_out_scans,
    oriented,
    unseen_phantoms,
    write_mha,
)

from flarekit import conventions
from flarekit.core.errors import InputError
from flarekit.core.nifti import read_nifti


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_held_out_scans_are_found_as_flare_finds_cases_and_each_has_its_truth(
    tmp_path, make_dataset
):
    trial = held_out_scans(tmp_path, make_dataset(), ["case_b", "case_c"])
    found = conventions.get("flare").find_cases(trial.inputs, 1)
    assert [case.case_id for case in found] == ["case_b", "case_c"]
    assert names(trial.truths) == ["case_b.nii.gz", "case_c.nii.gz"]


def test_a_held_out_case_that_is_not_there_is_named(tmp_path, make_dataset):
    with pytest.raises(InputError, match="case_z_0000.nii.gz: is not there"):
        held_out_scans(tmp_path, make_dataset(), ["case_z"])


def test_petct_reaches_autopet_with_the_values_and_the_grid_of_the_dataset(tmp_path, make_dataset):
    affine = np.diag([-2.0, -2.0, 3.27, 1.0])
    dataset = make_dataset(channels=2, affine=affine)
    trial = held_out_petct(tmp_path, dataset, ["case_c"])
    convention = conventions.get("autopet", labels={"lesion": 1})
    (case,) = convention.find_cases(trial.inputs, 2)
    ct, pet = convention.read_case(case)
    for channel, volume in enumerate((ct, pet)):
        stored = read_nifti(dataset / "imagesTr" / f"case_c_{channel:04d}.nii.gz")
        assert np.array_equal(volume.voxels_ZYX, stored.voxels_ZYX)
        assert np.allclose(volume.geometry.affine, stored.geometry.affine)
    assert np.array_equal(read_nifti(trial.scans / "case_c_0000.nii.gz").voxels_ZYX, pet.voxels_ZYX)


def test_phantoms_that_were_trained_on_are_refused(tmp_path):
    with pytest.raises(InputError, match="phantom 7 was trained on"):
        unseen_phantoms(tmp_path, [7], (5, 9))


def test_what_is_written_oriented_is_read_oriented(tmp_path):
    voxels = np.random.default_rng(1).integers(0, 9, (5, 6, 7)).astype(np.int16)
    write_mha(tmp_path / "deep" / "a.mha", voxels, (3.0, 2.0, 1.5))
    back, spacing_mm = oriented(tmp_path / "deep" / "a.mha")
    assert np.array_equal(back, voxels)
    assert spacing_mm == (3.0, 2.0, 1.5)


def test_a_scan_stored_the_other_way_round_is_turned(tmp_path, write_scan):
    voxels = np.arange(5 * 6 * 7).reshape(5, 6, 7)
    write_scan(tmp_path / "a.nii.gz", voxels, np.diag([2.0, 2.0, -3.0, 1.0]))  # to R, A, I
    turned, spacing_mm = oriented(tmp_path / "a.nii.gz")
    assert np.array_equal(turned, voxels[::-1, ::-1, ::-1])
    assert spacing_mm == (3.0, 2.0, 2.0)
