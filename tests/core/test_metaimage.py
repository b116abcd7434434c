from __future__ import annotations

import zlib

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.metaheader import blank_geometry, geometry_from, read_header
from flarekit.core.metaimage import SliceReader, read_metaimage, write_label_map

KINDS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]


def rotation(seed):
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return matrix


def write(path, voxels_ZYX, compress=False, seed=1, **metadata):
    image = SimpleITK.GetImageFromArray(voxels_ZYX)
    image.SetSpacing((0.7, 1 / 3, 2.123456789012345))
    image.SetOrigin((1e-7, -22.123456789012345, 1234.5))
    image.SetDirection(rotation(seed).ravel().tolist())
    for key, value in metadata.items():
        image.SetMetaData(key, value)
    SimpleITK.WriteImage(image, str(path), compress)
    return image


def edited(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compress", [False, True])
def test_voxels_and_places_are_those_that_itk_reads(tmp_path, kind, compress):
    voxels = (np.random.default_rng(0).normal(size=(5, 7, 6)) * 50).astype(kind)
    image = write(tmp_path / "a.mha", voxels, compress)
    volume = read_metaimage(tmp_path / "a.mha", air=0.0)
    expected = voxels.astype(np.float32) if kind == "float64" else voxels
    np.testing.assert_array_equal(volume.voxels_ZYX, expected)
    assert volume.voxels_ZYX.dtype == expected.dtype
    assert volume.warnings == ()
    for index in ((0, 0, 0), (5, 0, 4), (5, 6, 4)):
        lps = image.TransformIndexToPhysicalPoint(index)
        ras = volume.geometry.affine @ [*index, 1]
        np.testing.assert_allclose(ras[:3], np.array(lps) * [-1, -1, 1], atol=1e-9)


@given(st.integers(0, 2**31), st.tuples(*[st.integers(1, 6)] * 3))
@settings(max_examples=25, deadline=None)
def test_a_mask_has_bit_for_bit_the_geometry_of_its_scan(tmp_path_factory, seed, shape):
    folder = tmp_path_factory.mktemp("masks")
    write(folder / "a.mha", np.zeros(shape, np.int16), seed=seed)
    mask = np.random.default_rng(seed).integers(0, 255, shape, np.uint8)
    write_label_map(folder / "b.mha", mask, read_metaimage(folder / "a.mha", air=0).geometry)
    theirs, ours = (SimpleITK.ReadImage(str(folder / name)) for name in ("a.mha", "b.mha"))
    assert ours.GetPixelID() == SimpleITK.sitkUInt8
    assert ours.GetOrigin() == theirs.GetOrigin()
    assert ours.GetSpacing() == theirs.GetSpacing()
    assert ours.GetDirection() == theirs.GetDirection()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(ours), mask)


def test_a_geometry_made_from_an_affine_is_read_back_by_itk(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = rotation(4) * [0.5, 1.25, 3.0]
    affine[:3, 3] = (10, -20, 30)
    write_label_map(
        tmp_path / "a.mha", np.zeros((2, 3, 4), np.uint8), geometry_from((2, 3, 4), affine)
    )
    image = SimpleITK.ReadImage(str(tmp_path / "a.mha"))
    np.testing.assert_allclose(image.GetSpacing(), (0.5, 1.25, 3.0))
    point = np.array(image.TransformIndexToPhysicalPoint((3, 2, 1))) * [-1, -1, 1]
    np.testing.assert_allclose(point, (affine @ [3, 2, 1, 1])[:3])
    assert read_header(tmp_path / "a.mha").geometry.shape_ZYX == (2, 3, 4)
    write_label_map(tmp_path / "b.mha", np.zeros((1, 1, 1), np.uint8), blank_geometry())
    assert SimpleITK.ReadImage(str(tmp_path / "b.mha")).GetSize() == (1, 1, 1)


def test_what_else_a_header_says_stays_out_of_the_mask(tmp_path):
    write(tmp_path / "a.mha", np.zeros((2, 2, 2), np.int16), qform_code="1", PatientName="x")
    write_label_map(
        tmp_path / "b.mha", np.zeros((2, 2, 2), np.uint8), read_header(tmp_path / "a.mha").geometry
    )
    assert b"qform" not in (tmp_path / "b.mha").read_bytes()
    assert b"PatientName" not in (tmp_path / "b.mha").read_bytes()


@pytest.mark.parametrize("compress", [False, True])
def test_slices_may_be_read_in_any_order(tmp_path, compress):
    voxels = np.random.default_rng(0).integers(-999, 999, (40, 300, 200)).astype(np.int16)
    write(tmp_path / "a.mha", voxels, compress)
    header = read_header(tmp_path / "a.mha")
    with SliceReader(tmp_path / "a.mha", header) as reader:
        for start, count in ((0, 3), (3, 1), (20, 20), (5, 2), (0, 40)):
            np.testing.assert_array_equal(reader.read(start, count), voxels[start : start + count])


def test_big_endian_voxels_and_older_names_of_fields_are_understood(tmp_path):
    voxels = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    text = (
        "NDims = 3\nBinaryData = True\nElementByteOrderMSB = True\nPosition = 1 2 3\n"
        "DimSize = 4 3 2\nElementSize = 1 1 5\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "a.mha").write_bytes(text.encode() + voxels.tobytes())
    volume = read_metaimage(tmp_path / "a.mha", air=0)
    np.testing.assert_array_equal(volume.voxels_ZYX, voxels)
    assert volume.voxels_ZYX.dtype == np.dtype("int16")
    assert volume.geometry.spacing_mm_ZYX == (5, 1, 1)
    np.testing.assert_array_equal(volume.geometry.affine[:3, 3], (-1, -2, 3))


@pytest.mark.parametrize("key", ["ElementSpacing", "TransformMatrix"])
def test_a_line_that_places_the_voxels_and_is_missing_is_told(tmp_path, key):
    write(tmp_path / "a.mha", np.ones((2, 3, 4), np.int16))
    head, _, rest = (tmp_path / "a.mha").read_bytes().partition(f"{key} = ".encode())
    (tmp_path / "a.mha").write_bytes(head + rest.partition(b"\n")[2])
    (note,) = read_metaimage(tmp_path / "a.mha", air=0).warnings
    assert f"its header has no {key}" in note


def test_spacings_below_0_place_nothing(tmp_path):
    write(tmp_path / "a.mha", np.ones((2, 3, 4), np.int16))
    edited(tmp_path / "a.mha", b"ElementSpacing = ", b"ElementSpacing = -")
    with pytest.raises(UnreadableVolumeError, match="ElementSpacing place its voxels nowhere"):
        read_metaimage(tmp_path / "a.mha", air=0)


def test_a_fourth_axis_of_one_is_left_out(tmp_path):
    image = SimpleITK.JoinSeries([write(tmp_path / "b.mha", np.ones((2, 3, 4), np.int16))])
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    volume = read_metaimage(tmp_path / "a.mha", air=0)
    flat = read_metaimage(tmp_path / "b.mha", air=0)
    np.testing.assert_array_equal(volume.voxels_ZYX, flat.voxels_ZYX)
    np.testing.assert_allclose(volume.geometry.affine, flat.geometry.affine)
    write_label_map(tmp_path / "c.mha", np.zeros((2, 3, 4), np.uint8), volume.geometry)
    assert SimpleITK.ReadImage(str(tmp_path / "c.mha")).GetDimension() == 3


def test_voxels_that_are_not_finite_become_air_and_are_counted(tmp_path):
    voxels = np.zeros((2, 3, 4), np.float32)
    voxels[0, 0, 0], voxels[1, 2, 3] = np.nan, -np.inf
    write(tmp_path / "a.mha", voxels)
    volume = read_metaimage(tmp_path / "a.mha", air=-1024)
    assert (volume.voxels_ZYX == -1024).sum() == 2
    assert "2 voxels are not finite" in volume.warnings[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"ElementDataFile = LOCAL", b"ElementDataFile = a.raw", "elsewhere"),
        (b"MET_SHORT", b"MET_OTHER", "MET_OTHER voxels"),
        (b"ElementType = ", b"ElementNumberOfChannels = 3\nElementType = ", "several numbers"),
        (b"BinaryData = True", b"BinaryData = False", "unusual"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3 3", "ends before slice 3"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3", "is 2D"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3 2 2", "is 4D"),
        (b"DimSize = 4 3 2", b"DimSize = 4 3 0", "has no voxels"),
        (b"DimSize = 4 3 2", b"DimSize = 4 a 2", "DimSize is damaged"),
        (b"DimSize", b"Dimsize", "has no DimSize"),
        (b"ElementSpacing = ", b"ElementSpacing = 0 ", "nowhere"),
        (b"TransformMatrix = ", b"TransformMatrix = 1 ", "nowhere"),
    ],
)
def test_a_damaged_header_is_named(tmp_path, old, new, words):
    write(tmp_path / "a.mha", np.zeros((2, 3, 4), np.int16))
    edited(tmp_path / "a.mha", old, new)
    with pytest.raises(UnreadableVolumeError, match=f"a.mha: .*{words}"):
        read_metaimage(tmp_path / "a.mha", air=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\0" * 128 + b"DICM", "DICOM"),
        (b"\0" * 344 + b"n+1\0", "NIfTI"),
        (b"hello", "not a MetaImage"),
        (b"ObjectType = Image\nNDims = 3\nDimSi", "ends within its header"),
    ],
)
def test_what_is_no_metaimage_is_named(tmp_path, content, words):
    (tmp_path / "a.mha").write_bytes(content)
    with pytest.raises(UnreadableVolumeError, match=words):
        read_header(tmp_path / "a.mha")


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    for path in (tmp_path / "none.mha", tmp_path):
        with pytest.raises(UnreadableVolumeError, match="cannot be opened"):
            read_header(path)


def test_truncated_and_damaged_streams_are_errors(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 999, (9, 50, 50)).astype(np.int16)
    write(tmp_path / "a.mha", voxels, compress=True)
    whole = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(whole[:-5000])
    with pytest.raises(UnreadableVolumeError, match="ends before slice 9"):
        read_metaimage(tmp_path / "a.mha", air=0)
    (tmp_path / "a.mha").write_bytes(whole[:-5000] + b"\xff" * 5000)
    with pytest.raises(UnreadableVolumeError, match="zlib stream is damaged"):
        read_metaimage(tmp_path / "a.mha", air=0)


def test_a_mask_of_another_shape_or_kind_is_refused(tmp_path):
    for wrong in (np.zeros((2, 2, 2), np.uint8), np.zeros((1, 1, 1), np.int16)):
        with pytest.raises(ValueError, match="expected"):
            write_label_map(tmp_path / "a.mha", wrong, blank_geometry())


def mhd_at(tmp_path, data_file, content, **lines):
    stated = {
        "ObjectType": "Image",
        "NDims": "3",
        "TransformMatrix": "0 1 0 1 0 0 0 0 -1",
        "Offset": "5 6 -300",
        "ElementSpacing": "2 1.5 3",
        "DimSize": "4 5 6",
        "ElementType": "MET_SHORT",
        **lines,
        "ElementDataFile": data_file,
    }
    path = tmp_path / "in" / "a.mhd"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{key} = {value}\n" for key, value in stated.items()))
    if content is not None:
        target = path.parent / data_file
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
    return path


def test_voxels_beside_a_header_are_those_that_itk_reads(tmp_path):
    voxels = np.random.default_rng(0).integers(-900, 900, (6, 5, 4)).astype(np.int16)
    raw = voxels.tobytes()
    for name, content, lines in (
        ("a.raw", raw, {}),
        ("deeper/a.raw", raw, {}),
        ("a.zraw", zlib.compress(raw), {"CompressedData": "True"}),
        ("b.raw", b"before" + raw, {"HeaderSize": "-1"}),
    ):
        path = mhd_at(tmp_path, name, content, **lines)
        image = SimpleITK.ReadImage(str(path))
        volume = read_metaimage(path, air=0.0)
        np.testing.assert_array_equal(volume.voxels_ZYX, SimpleITK.GetArrayFromImage(image))
        np.testing.assert_array_equal(volume.voxels_ZYX, voxels)
        point = np.array(image.TransformIndexToPhysicalPoint((3, 4, 5))) * [-1, -1, 1]
        np.testing.assert_allclose((volume.geometry.affine @ [3, 4, 5, 1])[:3], point)
        write_label_map(tmp_path / "m.mha", (voxels > 0).astype(np.uint8), volume.geometry)
        mask = SimpleITK.ReadImage(str(tmp_path / "m.mha"))
        assert (mask.GetOrigin(), mask.GetDirection()) == (image.GetOrigin(), image.GetDirection())


@pytest.mark.parametrize(
    ("data_file", "content", "words"),
    [
        ("a.raw", None, r"a\.raw is not beside it"),
        ("a.raw", b"short", "ends before slice"),
        ("LIST", None, "elsewhere"),  # ITK: whatever was in memory
        ("s%02d.raw 1 6 1", None, "elsewhere"),
        ("/etc/passwd", None, "elsewhere"),
        ("../a.raw", bytes(240), "elsewhere"),
        ("", None, "elsewhere"),
    ],
)
def test_voxels_that_are_elsewhere_or_missing_are_refused(tmp_path, data_file, content, words):
    path = mhd_at(tmp_path, data_file, content)
    with pytest.raises(UnreadableVolumeError, match=words) as refused:
        read_metaimage(path, air=0.0)
    assert "a.mhd" in str(refused.value)


def test_the_link_of_a_file_beside_a_header_is_followed(tmp_path):
    path = mhd_at(tmp_path, "a.raw", None)
    (tmp_path / "real").write_bytes(bytes(240))
    (path.parent / "a.raw").symlink_to(tmp_path / "real")
    assert not read_metaimage(path, air=0.0).voxels_ZYX.any()


def test_axes_that_are_sheared_are_told(tmp_path):
    path = mhd_at(tmp_path, "a.raw", bytes(240), TransformMatrix="1 0 0 0 0.95 0.31 0 0 1")
    (note,) = read_metaimage(path, air=0.0).warnings
    assert "not orthogonal" in note
