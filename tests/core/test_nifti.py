"""Broken files say what is wrong, odd files are read, masks overlay their scan bit by bit."""

from __future__ import annotations

import contextlib
import gzip
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flarekit.core.errors import OutputError, UnreadableVolumeError
from flarekit.core.nifti import blank_geometry, read_geometry, read_nifti, write_label_map
from flarekit.core.volume import Geometry
from tests.core.broken import (
    AFFINE,
    BROKEN_NAMES,
    ODD_NAMES,
    SHAPE_ZYX,
    VOXELS_ZYX,
    BrokenFile,
    OddFile,
    broken_files,
    nifti_bytes,
    odd_files,
)

# what a mask has to share with its scan: [first, last) bytes of the header by its size
GEOMETRY_BYTES = {
    348: ((39, 40), (76, 108), (123, 124), (252, 328)),
    540: ((104, 168), (344, 496), (500, 504), (524, 525)),
}
# NIfTI-2, axes that are not orthogonal and no qform, a qform that is not a rotation
SIMPLEITK_REFUSES = ("nifti2", "big_endian_nifti2", "gantry_tilt", "off_by_rounding")
LABELS_ZYX = (np.arange(VOXELS_ZYX.size).reshape(SHAPE_ZYX) % 14).astype(np.uint8)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BrokenFile]:
    return broken_files(tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OddFile]:
    return odd_files(tmp_path_factory.mktemp("odd"))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes()))
    return path


def decompressed(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def labels_for(geometry: Geometry) -> NDArray[np.uint8]:
    return np.resize(LABELS_ZYX, geometry.shape_ZYX)


@pytest.mark.parametrize("name", BROKEN_NAMES)
def test_a_broken_file_is_refused_with_its_name_the_fault_and_the_remedy(name, broken):
    file = broken[name]
    with pytest.raises(UnreadableVolumeError) as caught:
        read_nifti(file.path)
    assert caught.value.path == file.path
    assert caught.value.fix
    for words in (str(file.path), *file.words):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", BROKEN_NAMES)
def test_the_geometry_of_a_broken_file_is_recovered_where_its_header_is_there(name, broken):
    file = broken[name]
    if not file.geometry_known:
        with pytest.raises(UnreadableVolumeError, match=file.path.name):
            read_geometry(file.path)
        return
    geometry = read_geometry(file.path)
    assert geometry.shape_ZYX == file.shape_ZYX
    np.testing.assert_allclose(geometry.affine, file.affine, atol=1e-4)


@pytest.mark.parametrize("name", BROKEN_NAMES)
def test_a_mask_can_be_written_for_every_broken_file(name, broken, tmp_path):
    file = broken[name]
    geometry = read_geometry(file.path) if file.geometry_known else blank_geometry()
    write_label_map(tmp_path / "mask.nii.gz", labels_for(geometry), geometry)
    mask = nibabel.Nifti1Image.from_bytes(decompressed(tmp_path / "mask.nii.gz"))
    assert mask.shape == geometry.shape_ZYX[::-1]
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, labels_for(geometry))


@pytest.mark.parametrize("name", ["missing.nii.gz", "."])
def test_a_path_that_cannot_be_opened_is_refused(name, tmp_path):
    for read in (read_nifti, read_geometry):
        with pytest.raises(UnreadableVolumeError, match="cannot be opened.*check path"):
            read(tmp_path / name)


def test_a_header_that_promises_terabytes_is_refused_before_memory_is_asked_for(tmp_path):
    content = bytearray(nifti_bytes())
    content[40:48] = np.array([3, 32767, 32767, 32767], "<i2").tobytes()
    path = tmp_path / "scan.nii"
    path.write_bytes(content)
    with pytest.raises(UnreadableVolumeError, match="header says 35181150961663"):
        read_nifti(path)


@settings(deadline=None)
@given(content=st.binary(max_size=700))
def test_random_bytes_never_raise_anything_else(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "random.nii.gz"
    for beginning in (b"", (348).to_bytes(4, "little"), (540).to_bytes(4, "big"), b"\x1f\x8b\x08"):
        path.write_bytes(beginning + content)
        for read in (read_nifti, read_geometry):
            with contextlib.suppress(UnreadableVolumeError):
                read(path)


@pytest.mark.long
@settings(deadline=None)
@given(position=st.integers(4, 347), value=st.integers(0, 255))
def test_one_wrong_header_byte_never_raises_anything_else(position, value, tmp_path_factory):
    content = bytearray(nifti_bytes())
    content[position] = value
    path = tmp_path_factory.getbasetemp() / "one_byte.nii"
    path.write_bytes(content)
    for read in (read_nifti, read_geometry):
        with contextlib.suppress(UnreadableVolumeError):
            read(path)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_file_is_read_to_the_right_voxels_geometry_and_warnings(name, odd):
    file = odd[name]
    volume = read_nifti(file.path)
    assert volume.path == file.path
    assert volume.voxels_ZYX.dtype == np.float32 or volume.voxels_ZYX.dtype.kind in "iu"
    assert volume.voxels_ZYX.dtype.isnative
    assert volume.voxels_ZYX.flags.c_contiguous
    assert volume.voxels_ZYX.flags.writeable
    np.testing.assert_array_equal(volume.voxels_ZYX, file.voxels_ZYX)
    assert volume.geometry.shape_ZYX == file.voxels_ZYX.shape
    np.testing.assert_allclose(volume.geometry.affine, file.affine, atol=1e-4)
    assert len(volume.warnings) == len(file.warnings)
    for warning, words in zip(volume.warnings, file.warnings, strict=True):
        assert words in warning


@pytest.mark.parametrize("name", ODD_NAMES)
def test_read_geometry_agrees_with_read_nifti(name, odd):
    geometry, whole = read_geometry(odd[name].path), read_nifti(odd[name].path).geometry
    assert geometry.shape_ZYX == whole.shape_ZYX
    np.testing.assert_array_equal(geometry.affine, whole.affine)
    assert geometry.header.binaryblock == whole.header.binaryblock


@pytest.mark.parametrize("name", sorted(set(ODD_NAMES) - {"metres", "no_voxel_offset"}))
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_nibabel_reads_the_same_voxels_and_affine(name, odd):
    content = decompressed(odd[name].path)
    big = content[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    image = (nibabel.Nifti2Image if big else nibabel.Nifti1Image).from_bytes(content)
    volume = read_nifti(odd[name].path)
    theirs = np.asarray(image.dataobj, np.float32).T.reshape(volume.voxels_ZYX.shape)
    theirs = np.where(np.isfinite(theirs), theirs, -1024)
    np.testing.assert_allclose(volume.voxels_ZYX, theirs, rtol=1e-6)
    np.testing.assert_array_equal(volume.geometry.affine, image.affine)


def test_reading_an_odd_file_says_nothing_behind_the_warnings_back(odd, capfd):
    for file in odd.values():
        read_nifti(file.path)
    assert capfd.readouterr() == ("", "")


def test_the_value_of_air_can_be_chosen(odd):
    assert read_nifti(odd["not_finite"].path, air=0.0).voxels_ZYX[0, 0, 0] == 0


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_mask_shares_its_scans_header_geometry_bit_by_bit(name, odd, tmp_path):
    scan, path = odd[name].path, tmp_path / "mask.nii.gz"
    geometry = read_nifti(scan).geometry
    labels = labels_for(geometry)
    write_label_map(path, labels, geometry)
    before, after = decompressed(scan), decompressed(path)
    size = 540 if b"n+2" in after[:540] else 348
    assert after[:4] == before[:4]
    for first, last in GEOMETRY_BYTES[size]:
        assert after[first:last] == before[first:last]
    assert after[size : size + 4] == bytes(4)
    assert after[size + 4 :] == labels.tobytes()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_mask_is_plain_uint8_with_three_dimensions_and_no_scaling(name, odd, tmp_path):
    path = tmp_path / "mask.nii.gz"
    geometry = read_nifti(odd[name].path).geometry
    write_label_map(path, labels_for(geometry), geometry)
    mask: Any = nibabel.load(path)
    assert mask.get_data_dtype() == np.uint8
    assert mask.shape == geometry.shape_ZYX[::-1]
    assert (mask.dataobj.slope, mask.dataobj.inter) == (1, 0)
    assert (float(mask.header["cal_min"]), float(mask.header["cal_max"])) == (0, 0)
    assert int(mask.header["bitpix"]) == 8
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, labels_for(geometry))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_simpleitk_lays_the_mask_over_every_scan_it_reads_itself(name, odd, tmp_path):
    path, copy = tmp_path / "mask.nii.gz", tmp_path / "scan.nii"
    copy.write_bytes(decompressed(odd[name].path))
    geometry = read_nifti(copy).geometry
    labels = labels_for(geometry)
    write_label_map(path, labels, geometry)
    try:
        scan = SimpleITK.ReadImage(str(copy))
    except RuntimeError:
        assert name in SIMPLEITK_REFUSES
        return
    mask = SimpleITK.ReadImage(str(path))
    assert mask.GetPixelID() == SimpleITK.sitkUInt8
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), labels)
    for ours, theirs in zip(
        (mask.GetOrigin(), mask.GetSpacing()), (scan.GetOrigin(), scan.GetSpacing()), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs[:3])
    if scan.GetDimension() == 3:
        assert mask.GetDirection() == scan.GetDirection()


def test_a_written_mask_reads_back_as_it_was(scan, tmp_path):
    geometry = read_nifti(scan).geometry
    for name in ("mask.nii.gz", "mask.nii"):
        write_label_map(tmp_path / name, LABELS_ZYX, geometry)
        again = read_nifti(tmp_path / name)
        np.testing.assert_array_equal(again.voxels_ZYX, LABELS_ZYX)
        np.testing.assert_array_equal(again.geometry.affine, geometry.affine)
        assert again.warnings == ()


def test_only_a_name_that_ends_in_gz_is_compressed(scan, tmp_path):
    geometry = read_nifti(scan).geometry
    write_label_map(tmp_path / "a.nii", LABELS_ZYX, geometry)
    write_label_map(tmp_path / "a.nii.gz", LABELS_ZYX, geometry)
    assert (
        gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == (tmp_path / "a.nii").read_bytes()
    )


def test_two_writes_are_the_same_to_the_byte(scan, tmp_path):
    geometry = read_nifti(scan).geometry
    write_label_map(tmp_path / "one.nii.gz", LABELS_ZYX, geometry)
    write_label_map(tmp_path / "two.nii.gz", LABELS_ZYX, geometry)
    content = (tmp_path / "one.nii.gz").read_bytes()
    assert content == (tmp_path / "two.nii.gz").read_bytes()
    assert content[4:8] == bytes(4)  # where gzip keeps the time


def test_writing_a_mask_leaves_the_scans_header_as_it_was(odd, tmp_path):
    for file in odd.values():
        geometry = read_nifti(file.path).geometry
        before = geometry.header.binaryblock
        write_label_map(tmp_path / "mask.nii.gz", labels_for(geometry), geometry)
        assert geometry.header.binaryblock == before


def test_a_mask_in_another_memory_order_is_written_in_array_order(scan, tmp_path):
    geometry = read_nifti(scan).geometry
    backwards = np.asfortranarray(LABELS_ZYX[::-1])[::-1]
    write_label_map(tmp_path / "mask.nii.gz", backwards, geometry)
    np.testing.assert_array_equal(read_nifti(tmp_path / "mask.nii.gz").voxels_ZYX, LABELS_ZYX)


def test_a_mask_of_another_shape_or_type_is_a_mistake_of_the_caller(scan, tmp_path):
    geometry = read_nifti(scan).geometry
    for labels in (LABELS_ZYX[1:], LABELS_ZYX.T, LABELS_ZYX.astype(np.int16)):
        with pytest.raises(ValueError, match=r"uint8 \(9, 11, 13\) expected, got "):
            write_label_map(tmp_path / "mask.nii.gz", labels, geometry)
    assert os.listdir(tmp_path) == ["scan.nii.gz"]


def test_a_failed_write_keeps_the_old_mask_and_leaves_nothing_else(scan, tmp_path, monkeypatch):
    geometry = read_nifti(scan).geometry
    target = tmp_path / "out" / "mask.nii.gz"
    target.parent.mkdir()
    target.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_label_map(target, LABELS_ZYX, geometry)
    assert os.listdir(target.parent) == ["mask.nii.gz"]
    assert target.read_bytes() == b"old"


def test_an_output_folder_that_is_not_there_is_an_output_error(scan, tmp_path):
    geometry = read_nifti(scan).geometry
    with pytest.raises(OutputError, match=r"mask\.nii\.gz: cannot be written.*check that"):
        write_label_map(tmp_path / "missing" / "mask.nii.gz", LABELS_ZYX, geometry)


def test_a_folder_in_the_place_of_the_mask_is_an_output_error(scan, tmp_path):
    geometry = read_nifti(scan).geometry
    (tmp_path / "mask.nii.gz").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_label_map(tmp_path / "mask.nii.gz", LABELS_ZYX, geometry)
    assert sorted(os.listdir(tmp_path)) == ["mask.nii.gz", "scan.nii.gz"]


def test_the_geometry_of_nothing_is_one_voxel_of_a_millimetre(tmp_path):
    geometry = blank_geometry()
    path = tmp_path / "mask.nii.gz"
    write_label_map(path, np.ones((1, 1, 1), np.uint8), geometry)
    volume = read_nifti(path)
    assert geometry.shape_ZYX == volume.voxels_ZYX.shape == (1, 1, 1)
    np.testing.assert_array_equal(volume.geometry.affine, np.eye(4))
    assert volume.warnings == ()
    assert SimpleITK.ReadImage(str(path)).GetSpacing() == (1, 1, 1)


def test_a_disagreement_far_from_the_first_voxel_is_noticed(tmp_path):
    turned = AFFINE.copy()
    turned[1, 0] = 0.02  # 0.02 mm a voxel, 0.24 mm at the far end
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti_bytes(sform=turned))
    assert [warning[:24] for warning in read_nifti(path).warnings][0] == "sform and qform disagree"


def test_a_negative_slope_is_told(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(scl_slope=-1, scl_inter=0))
    volume = read_nifti(tmp_path / "a.nii", air=0.0)
    np.testing.assert_array_equal(volume.voxels_ZYX, -VOXELS_ZYX.astype(np.float32))
    assert volume.warnings == (
        "its scl_slope is negative: are its values what they are said to be?",
    )
