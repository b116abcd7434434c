from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from flarekit.core.errors import InputError, UnreadableVolumeError
from flarekit.evaluation.masks import (
    case_id_of,
    find_pairs,
    masks_by_case,
    read_mask,
)

VALUES_ZYX = np.random.default_rng(4).integers(0, 4, (3, 4, 5))


def test_files_belong_together_by_name_whatever_their_ending(tmp_path, write_mask):
    write_mask(tmp_path / "truth" / "a.b.nii.gz", VALUES_ZYX)
    write_mask(tmp_path / "truth" / "c.nii", VALUES_ZYX)
    (tmp_path / "truth" / "notes.txt").write_text("")
    (tmp_path / "truth" / "folder.nii.gz").mkdir()
    (tmp_path / "pred").mkdir()
    for name in ("a.b.mha", "d.mha", ".c.nii.gz"):
        (tmp_path / "pred" / name).write_bytes(b"")
    pairs, surplus = find_pairs(tmp_path / "pred", tmp_path / "truth")
    assert [(pair.case_id, pair.predicted) for pair in pairs] == [
        ("a.b", tmp_path / "pred" / "a.b.mha"),
        ("c", None),
    ]
    assert surplus == ["d.mha"]


def test_folders_that_cannot_be_used_are_named(tmp_path, write_mask):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nowhere: is not a folder"):
        find_pairs(tmp_path / "nowhere", tmp_path / "empty")
    with pytest.raises(InputError, match="no mask in it"):
        find_pairs(tmp_path / "empty", tmp_path / "empty")
    write_mask(tmp_path / "two" / "a.nii", VALUES_ZYX)
    write_mask(tmp_path / "two" / "a.nii.gz", VALUES_ZYX)
    with pytest.raises(InputError, match=r"a\.nii and a\.nii\.gz are masks of one case"):
        find_pairs(tmp_path / "two", tmp_path / "two")


def test_case_ids_of_names():
    assert case_id_of(Path("x_0000.nii.gz")) == "x_0000"
    assert case_id_of(Path(".nii.gz")) is None
    assert case_id_of(Path("x.txt")) is None
    assert case_id_of(Path("X.NII.GZ")) == "X"
    assert case_id_of(Path("x.Mha")) == "x"


def test_a_spacing_that_no_scanner_has_is_told(tmp_path):
    affine = np.diag([-1e-6, 0.8, 2, 1])
    nibabel.save(nibabel.Nifti1Image(VALUES_ZYX.T.astype(np.uint8), affine), tmp_path / "a.nii.gz")
    (note,) = read_mask(tmp_path / "a.nii.gz").warnings
    assert "its spacing is 1e-06 x 0.8 x 2 mm, which no scanner gives" in note


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_a_mask_of_any_type_is_read_as_stored(tmp_path, dtype):
    image = nibabel.Nifti1Image(VALUES_ZYX.T.astype(dtype), np.diag([-0.7, 0.8, 2, 1]))
    nibabel.save(image, tmp_path / "a.nii.gz")
    mask = read_mask(tmp_path / "a.nii.gz")
    assert mask.values_ZYX.dtype == np.uint8
    assert (mask.values_ZYX == VALUES_ZYX).all()
    assert mask.spacing_mm_XYZ.dtype == np.float32
    assert tuple(mask.spacing_mm_XYZ) == tuple(
        nibabel.load(tmp_path / "a.nii.gz").header.get_zooms()
    )


def test_a_metaimage_is_read_in_the_same_order_and_place(tmp_path):
    nifti = nibabel.Nifti1Image(VALUES_ZYX.T.astype(np.uint8), np.diag([-0.7, 0.8, 2, 1]))
    nibabel.save(nifti, tmp_path / "a.nii.gz")
    SimpleITK.WriteImage(SimpleITK.ReadImage(tmp_path / "a.nii.gz"), tmp_path / "a.mha")
    one, other = read_mask(tmp_path / "a.nii.gz"), read_mask(tmp_path / "a.mha")
    assert (one.values_ZYX == other.values_ZYX).all()
    np.testing.assert_allclose(one.geometry.affine, other.geometry.affine, atol=1e-6)
    np.testing.assert_allclose(one.spacing_mm_XYZ, other.spacing_mm_XYZ, rtol=1e-6)
    assert one.voxel_ml == pytest.approx(0.7 * 0.8 * 2 / 1000)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.4, 1], "fractions"),
        ([-1, 1], "holds -1 to 1"),
        ([0, 300], "holds 0 to 300"),
        ([0, np.nan], "not finite"),
        ([0, np.inf], "not finite"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path, values, words):
    voxels = np.resize(np.float32(values), (2, 2, 2))
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(UnreadableVolumeError, match=words):
        read_mask(tmp_path / "a.nii.gz")


def test_broken_and_missing_metaimages_are_named(tmp_path):
    (tmp_path / "a.mha").write_bytes(b"nonsense")
    with pytest.raises(UnreadableVolumeError, match=r"a\.mha: is not a MetaImage file"):
        read_mask(tmp_path / "a.mha")
    with pytest.raises(UnreadableVolumeError, match="does not exist"):
        read_mask(tmp_path / "b.mha")
    SimpleITK.WriteImage(SimpleITK.Image(3, 3, SimpleITK.sitkUInt8), tmp_path / "c.mha")
    with pytest.raises(UnreadableVolumeError, match="is 2D"):
        read_mask(tmp_path / "c.mha")


@pytest.mark.parametrize("more", [{}, {"direction": np.eye(3).ravel(), "origin": np.zeros(3)}])
@pytest.mark.parametrize("name", ["segs", "gts"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_mask_in_an_npz_is_read_as_stored(tmp_path, name, more, save):
    save(tmp_path / "a.npz", **{name: VALUES_ZYX, "spacing": (0.7, 0.8, 2), **more})
    mask = read_mask(tmp_path / "a.npz")
    assert mask.values_ZYX.dtype == np.uint8
    assert (mask.values_ZYX == VALUES_ZYX).all()
    assert mask.spacing_mm_XYZ.tolist() == [0.7, 0.8, 2]
    assert mask.warnings == ()


@pytest.mark.parametrize("one", [np.array(1.5), np.array([1.5]), np.float32(1.5)])
def test_a_single_spacing_of_an_npz_is_that_of_every_axis(tmp_path, one):
    np.savez(tmp_path / "a.npz", segs=VALUES_ZYX, spacing=one)
    mask = read_mask(tmp_path / "a.npz")
    assert mask.spacing_mm_XYZ.tolist() == [1.5, 1.5, 1.5]
    assert not mask.warnings


@pytest.mark.parametrize(
    "spacing",
    [
        np.array(["1", "1", "3"]),
        np.array([1 + 0j, 1, 3]),
        np.array([(1.0, 1.0, 3.0)], [("x", float), ("y", float), ("z", float)]),
        np.array([1, 1, 3], "m8[s]"),
        np.array([1e300, 1, 3]),
    ],
)
def test_a_spacing_of_an_npz_that_is_no_number_of_mm_is_told(tmp_path, spacing):
    np.savez(tmp_path / "a.npz", segs=VALUES_ZYX, spacing=spacing)
    mask = read_mask(tmp_path / "a.npz")
    assert mask.spacing_mm_XYZ.tolist() == [1.0, 1.0, 1.0]
    assert "no usable spacing" in mask.warnings[0]


@pytest.mark.parametrize("spacing", [{}, {"spacing": (1.0, 0.0, 1.0)}, {"spacing": (1.0, 2.0)}])
def test_an_npz_without_a_spacing_is_taken_for_cubes_and_says_so(tmp_path, spacing):
    np.savez(tmp_path / "a.npz", segs=VALUES_ZYX, **spacing)
    mask = read_mask(tmp_path / "a.npz")
    assert mask.spacing_mm_XYZ.tolist() == [1, 1, 1]
    assert "cubes of 1 mm" in mask.warnings[0]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"imgs": VALUES_ZYX}, "no mask of three axes; its arrays: imgs"),
        ({"segs": VALUES_ZYX[0]}, "no mask of three axes"),
        ({"segs": VALUES_ZYX[:0]}, "no mask of three axes"),
        ({"segs": VALUES_ZYX.astype(str)}, "no mask of three axes"),
        ({"segs": np.array([[[None]]])}, "not a whole .npz file of numbers"),
        ({"segs": VALUES_ZYX + 0.5}, "fractions"),
    ],
)
def test_an_npz_that_holds_no_mask_is_named(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UnreadableVolumeError, match=rf"a\.npz: .*{words}"):
        read_mask(tmp_path / "a.npz")


def test_probabilities_beside_a_mask_are_not_a_second_mask(tmp_path):
    for name in ("a.npz", "a.nii.gz", "b.npz"):
        (tmp_path / name).touch()
    assert {key: path.name for key, path in masks_by_case(tmp_path).items()} == {
        "a": "a.nii.gz",
        "b": "b.npz",
    }
