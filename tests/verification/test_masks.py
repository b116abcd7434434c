"""What the verifier reads of masks: geometry of both formats, and in what it differs."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK

from flarekit.core.errors import UnreadableVolumeError
from flarekit.verification.masks import (
    Mask,
    geometry_faults,
    read_mask,
    same_content,
)

SPACING, ORIGIN = (0.5, 2.0, 3.0), (10.0, -20.0, 30.0)
TURN = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))  # of the axes x and y


def mha(path, *, spacing=SPACING, origin=ORIGIN, direction=TURN, voxels=None):
    image = SimpleITK.GetImageFromArray(
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4) if voxels is None else voxels
    )
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(np.ravel(direction).tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


def nifti(path, affine, voxels=None, *, slope=None):
    voxels = np.arange(24, dtype=np.uint8).reshape(4, 3, 2) if voxels is None else voxels
    image = nibabel.Nifti1Image(voxels, affine)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return path


def test_an_mha_s_affine_is_direction_times_spacing_in_the_nifti_s_world(tmp_path):
    mask = read_mask(mha(tmp_path / "a.mha"))
    expected = [[0, 2, 0, -10], [-0.5, 0, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]
    assert mask.affine.tolist() == expected
    assert mask.voxels_ZYX.shape == (2, 3, 4)
    assert (mask.components, mask.scaled) == (1, False)
    plain = Mask(voxels_ZYX=mask.voxels_ZYX, affine=mask.affine)
    assert (plain.components, plain.scaled) == (1, False)


def test_both_formats_of_one_mask_have_one_geometry(tmp_path):
    one = read_mask(mha(tmp_path / "a.mha"))
    voxels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).T
    other = read_mask(nifti(tmp_path / "a.nii.gz", one.affine, voxels))
    assert geometry_faults(other, one) == []
    assert np.array_equal(one.voxels_ZYX, other.voxels_ZYX)


def a_mask(affine=None, shape=(2, 3, 4)):
    return Mask(
        voxels_ZYX=np.zeros(shape, np.uint8),
        affine=np.diag([-0.5, -2.0, 3.0, 1.0]) if affine is None else affine,
    )


def test_the_same_geometry_has_no_fault():
    assert geometry_faults(a_mask(), a_mask()) == []
    zero = np.diag([0.0, 0.0, 0.0, 1.0])
    assert geometry_faults(a_mask(zero), a_mask(zero)) == []


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 3), (0, 3)])
@pytest.mark.parametrize(("off", "named"), [(0.0009, False), (0.0011, True), (-0.25, True)])
def test_any_part_of_the_geometry_that_is_off_is_named_with_by_how_much(place, off, named):
    affine = a_mask().affine.copy()
    affine[place] += off
    faults = geometry_faults(a_mask(affine), a_mask())
    assert bool(faults) == named
    if off == -0.25:
        assert "up to 0.25 mm off" in faults[0]


def test_a_mirrored_axis_is_as_far_off_as_twice_its_spacing():
    mirrored = np.diag([0.5, -2.0, 3.0, 1.0])
    (fault,) = geometry_faults(a_mask(mirrored), a_mask())
    assert "up to 1 mm off" in fault


def test_other_shapes_are_named_x_first():
    (fault,) = geometry_faults(a_mask(shape=(2, 3, 5)), a_mask())
    assert fault == "5 x 3 x 2 voxels for 4 x 3 x 2"


def test_the_same_content_is_the_same_however_it_is_stored(tmp_path):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    one = nifti(tmp_path / "a.nii.gz", affine)
    plain = nifti(tmp_path / "b.nii", affine)
    assert same_content(one, plain)
    assert not same_content(one, nifti(tmp_path / "c.nii.gz", affine * 2))
    changed = np.zeros((4, 3, 2), np.uint8)
    assert not same_content(one, nifti(tmp_path / "d.nii.gz", affine, changed))
    wider = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    assert not same_content(one, nifti(tmp_path / "e.nii.gz", affine, wider))


def test_arrays_of_an_npz_are_compared_by_name_type_and_value(tmp_path):
    mask = np.arange(4, dtype=np.uint8)
    np.savez(tmp_path / "a.npz", segs=mask)
    np.savez_compressed(tmp_path / "same.npz", segs=mask)
    assert same_content(tmp_path / "a.npz", tmp_path / "same.npz")
    for name, arrays in (
        ("value", {"segs": mask + 1}),
        ("type", {"segs": mask.astype(np.int16)}),
        ("name", {"mask": mask}),
        ("more", {"segs": mask, "further": mask}),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert not same_content(tmp_path / "a.npz", tmp_path / f"{name}.npz")
        assert not same_content(tmp_path / f"{name}.npz", tmp_path / "a.npz")


def test_json_is_compared_as_values_and_other_files_as_bytes(tmp_path):
    for name, text in (("a.json", '{"a": 1, "b": [2]}'), ("b.json", '{ "b": [2], "a": 1 }')):
        (tmp_path / name).write_text(text)
    (tmp_path / "c.json").write_text('{"a": 1, "b": [3]}')
    assert same_content(tmp_path / "a.json", tmp_path / "b.json")
    assert not same_content(tmp_path / "a.json", tmp_path / "c.json")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("x ")
    assert same_content(tmp_path / "a.txt", tmp_path / "a.txt")
    assert not same_content(tmp_path / "a.txt", tmp_path / "b.txt")


def test_slope_and_intercept_are_seen_and_not_applied(tmp_path):
    affine = np.eye(4)
    voxels = np.ones((2, 2, 2), np.int16)
    path = nifti(tmp_path / "a.nii.gz", affine, voxels)
    assert not read_mask(path).scaled
    content = bytearray(nibabel.Nifti1Image(voxels, affine).to_bytes())
    content[112:116] = np.float32(2).tobytes()  # scl_slope
    (tmp_path / "b.nii").write_bytes(content)
    scaled = read_mask(tmp_path / "b.nii")
    assert scaled.scaled
    assert scaled.voxels_ZYX.max() == 1


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha"])
@pytest.mark.parametrize("content", [None, b"", b"nothing"])
def test_a_file_that_cannot_be_read_is_named_once(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableVolumeError) as caught:
        read_mask(tmp_path / name)
    assert "cannot be read" in caught.value.fault
    assert str(tmp_path) not in caught.value.fault


def test_a_mask_of_several_numbers_per_voxel_says_so(tmp_path):
    image = SimpleITK.GetImageFromArray(np.zeros((2, 3, 4, 2), np.uint8), isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    assert read_mask(tmp_path / "a.mha").components == 2


def test_a_mask_is_what_it_was_made_of():
    assert replace(a_mask(), scaled=True).scaled
