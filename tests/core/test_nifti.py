from __future__ import annotations

import gzip
import os

import nibabel
import numpy as np
import pytest
import SimpleITK

from flarekit.core.errors import OutputError, UnreadableVolumeError
from flarekit.core.nifti import blank_geometry, read_geometry, read_nifti, write_label_map
from tests.core.broken import BROKEN_NAMES, ODD_NAMES, broken_files, odd_files

GEOMETRY_FIELDS = (
    "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
    "qoffset_y", "qoffset_z", "sform_code", "qform_code", "xyzt_units",
)  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    return broken_files(tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return odd_files(tmp_path_factory.mktemp("odd"))


@pytest.mark.parametrize("name", BROKEN_NAMES)
def test_a_broken_file_gets_an_error_with_file_fault_and_remedy(broken, name):
    file = broken[name]
    with pytest.raises(UnreadableVolumeError) as caught:
        read_nifti(file.path)
    message = str(caught.value)
    assert str(file.path) in message
    for words in file.words:
        assert words in message
    assert caught.value.fix


@pytest.mark.parametrize("name", BROKEN_NAMES)
def test_the_geometry_of_a_broken_file_is_saved_where_the_header_is_whole(broken, name):
    file = broken[name]
    if not file.geometry_known:
        with pytest.raises(UnreadableVolumeError):
            read_geometry(file.path)
        return
    geometry = read_geometry(file.path)
    assert geometry.shape_ZYX == file.shape_ZYX
    if file.affine is not None:
        np.testing.assert_allclose(geometry.affine, file.affine, atol=1e-4)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_file_is_read_right_and_what_is_odd_is_said(odd, name):
    file = odd[name]
    volume = read_nifti(file.path)
    np.testing.assert_array_equal(volume.voxels_ZYX, file.voxels_ZYX)
    assert volume.voxels_ZYX.dtype == np.float32
    np.testing.assert_allclose(volume.geometry.affine, file.affine, atol=1e-4)
    assert len(volume.warnings) == len(file.warnings)
    for ours, words in zip(volume.warnings, file.warnings, strict=True):
        assert words in ours


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_mask_of_an_odd_file_overlays_it(odd, name, tmp_path):
    file = odd[name]
    volume = read_nifti(file.path)
    label_map = np.random.default_rng(1).integers(0, 14, volume.geometry.shape_ZYX).astype(np.uint8)
    path = tmp_path / "mask.nii.gz"
    write_label_map(path, label_map, volume.geometry)
    mask = nibabel.load(path)
    assert mask.get_data_dtype() == np.uint8
    assert mask.shape == volume.geometry.shape_ZYX[::-1]
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, label_map)
    header = volume.geometry.header
    raw = gzip.decompress(path.read_bytes())[: header.sizeof_hdr]
    written = type(header)(raw, endianness=header.endianness, check=False)
    for field in GEOMETRY_FIELDS:
        ours, theirs = written[field], header[field]
        np.testing.assert_array_equal(ours, theirs, err_msg=field)
    again = read_nifti(path)
    np.testing.assert_array_equal(again.voxels_ZYX, label_map)
    np.testing.assert_allclose(again.geometry.affine, volume.geometry.affine, atol=1e-4)


@pytest.mark.parametrize("name", ["plain", "big_endian", "trailing_singleton", "scaled"])
def test_simpleitk_reads_what_we_write(odd, name, tmp_path):
    volume = read_nifti(odd[name].path)
    label_map = np.random.default_rng(1).integers(0, 14, volume.geometry.shape_ZYX).astype(np.uint8)
    write_label_map(tmp_path / "mask.nii.gz", label_map, volume.geometry)
    image = SimpleITK.ReadImage(tmp_path / "mask.nii.gz")
    assert image.GetPixelID() == SimpleITK.sitkUInt8
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), label_map)


def test_two_writes_are_the_same_bytes(tmp_path):
    geometry = blank_geometry()
    for name in ("a.nii.gz", "b.nii.gz"):
        write_label_map(tmp_path / name, np.ones((1, 1, 1), np.uint8), geometry)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_mask_of_another_shape_or_type_is_refused(tmp_path):
    for bad in (np.zeros((1, 1, 2), np.uint8), np.zeros((1, 1, 1), np.int16)):
        with pytest.raises(ValueError, match="uint8"):
            write_label_map(tmp_path / "m.nii.gz", bad, blank_geometry())
    assert os.listdir(tmp_path) == []


def test_a_mask_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_label_map(
            tmp_path / "no" / "m.nii.gz", np.zeros((1, 1, 1), np.uint8), blank_geometry()
        )
    (tmp_path / "taken.nii.gz").mkdir()
    with pytest.raises(OutputError):
        write_label_map(tmp_path / "taken.nii.gz", np.zeros((1, 1, 1), np.uint8), blank_geometry())
    assert os.listdir(tmp_path) == ["taken.nii.gz"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableVolumeError, match=r"gone\.nii\.gz"):
        read_nifti(tmp_path / "gone.nii.gz")
