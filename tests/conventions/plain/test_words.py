"""Channels told by words in names, and what lies beside scans and is none of them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from flarekit import conventions
from flarekit.core.errors import InputError
from tests.conventions.dicom.dicom_files import ct_voxels, write_series

PETCT = {"channels": ("CT", "PET"), "air": (-1024.0, 0.0)}


def found(folder, names, settings=PETCT):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    cases = conventions.get("plain", settings).find_in([folder], len(settings["channels"]))
    paths = [[str(path.relative_to(folder)) for path in case.channels] for case in cases]
    return paths, conventions.left_out_of(cases)


@pytest.mark.parametrize(
    "pair",
    [
        ("anna/CTres.nii.gz", "anna/SUV.nii.gz"),
        ("anna_CT.nii", "anna_PET.nii"),
        ("a-ct-1.nrrd", "a-pt-1.nrrd"),
        ("ct.mha", "suv.mha"),
    ],
)
def test_names_that_differ_in_the_channel_s_word_are_one_scan(tmp_path, pair):
    assert found(tmp_path, pair) == ([list(pair)], ())


def test_of_two_files_of_a_channel_suv_and_the_resampled_ct_are_taken(tmp_path):
    names = ["p/CT.nii.gz", "p/CTres.nii.gz", "p/PET.nii.gz", "p/SEG.nii.gz", "p/SUV.nii.gz"]
    cases, left_out = found(tmp_path, names)
    assert cases == [["p/CTres.nii.gz", "p/SUV.nii.gz"]]
    assert sorted(sentence.split(":")[0].rpartition("/")[2] for sentence in left_out) == [
        "CT.nii.gz",
        "PET.nii.gz",
        "SEG.nii.gz",
    ]


def test_the_order_of_files_that_are_named_does_not_turn_channels_round(tmp_path):
    ct, pet = tmp_path / "x_ct.nii", tmp_path / "x_suv.nii"
    ct.touch()
    pet.touch()
    (case,) = conventions.get("plain", PETCT).find_in([pet, ct], 2)
    assert case.channels == (ct, pet)


@pytest.mark.parametrize(
    "names", [("pet_ct_1.nii", "pet_ct_2.nii", "3.nii"), ("a_ct.nii", "b_pet.nii", "c.nii")]
)
def test_names_that_leave_it_open_are_not_guessed(tmp_path, names):
    with pytest.raises(InputError, match="name the channels of a scan"):
        found(tmp_path, names)


def test_a_predictor_of_one_channel_takes_each_by_itself(tmp_path):
    one = {"channels": ("CT",), "air": (-1024.0,)}
    cases, _ = found(tmp_path, ["a_ct.nii", "a_pet.nii"], one)
    assert cases == [["a_ct.nii"], ["a_pet.nii"]]


def test_dicom_and_archives_beside_scans_are_named_and_left_out(tmp_path):
    write_series(tmp_path / "study" / "ct", ct_voxels())
    shutil.make_archive(str(tmp_path / "study" / "more"), "zip", tmp_path / "study" / "ct")
    (tmp_path / "study" / "readme.txt").write_text("exported by hand")
    one = {"channels": ("CT",), "air": (-1024.0,)}
    cases, left_out = found(tmp_path / "study", ["a.nrrd"], one)
    assert cases == [["a.nrrd"]]
    dicom, archive = left_out
    assert "ct/IM0000" in dicom
    assert "and 1 more: DICOM beside scans" in dicom
    assert "more.zip: an archive beside scans" in archive


def test_a_scan_beside_dicom_is_named_and_left_out(tmp_path):
    write_series(tmp_path / "ct", ct_voxels())
    (tmp_path / "mask.nii.gz").write_bytes(np.zeros(8, np.uint8).tobytes())
    (tmp_path / "readme.txt").write_text("exported by hand")
    cases = conventions.get("dicom").find_in([tmp_path], 1)
    assert len(cases) == 1
    (sentence,) = conventions.left_out_of(cases)
    assert "mask.nii.gz: is no DICOM" in sentence
