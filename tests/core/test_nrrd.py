from __future__ import annotations

import gzip
from random import Random

import numpy as np
import pytest
import SimpleITK

from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.nrrd import read_nrrd
from flarekit.core.scan_files import read_scan, write_mask
from flarekit.segmentation.memory import reading_mib

VOXELS_XYZ = np.random.default_rng(3).integers(-900, 900, (4, 5, 6)).astype(np.int16)
USUAL = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "4 5 6",
    "space directions": "(0,1.5,0) (0,0,-3.0) (2,0,0)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(5,6,-300.25)",
}


def nrrd_at(path, fields=None, content=None, newline="\n"):
    """Write a file; a field that is None is left out."""
    stated = {**USUAL, **(fields or {})}
    lines = ["NRRD0005", "# a comment", "key:=a: value"]
    lines += [f"{key}: {value}" for key, value in stated.items() if value is not None]
    content = VOXELS_XYZ.tobytes(order="F") if content is None else content
    path.write_bytes(newline.join([*lines, "", ""]).encode() + content)
    return path


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"space": "right-anterior-superior"},
        {"space": "RAS"},
        {"space": "left-anterior-superior"},
        {"space": "LAS"},
        {"space": "scanner-xyz"},
        {"space": "3D-left-handed"},
        {"space": None, "space dimension": "3"},
        {"space": None, "space directions": None, "space origin": None, "spacings": "2 3 0.5"},
        {"space": None, "space directions": None, "space origin": None},
        {"space origin": None},
        {"space directions": "(0.6,0.8,0) (-0.8,0.6,0) (0,0,2)"},
        {"type": "int16", "kinds": "space space space", "space units": '"mm" "mm" "mm"'},
        {"endian": "big"},
    ],
    ids=str,
)
def test_voxels_and_places_are_those_that_itk_reads(tmp_path, fields):
    order = ["space dimension", "space"]  # which NRRD wants before the directions
    first = {key: fields[key] for key in order if fields.get(key)}
    stated = {**first, **{key: USUAL[key] for key in USUAL if key not in first}, **fields}
    content = VOXELS_XYZ.astype(">i2" if fields.get("endian") == "big" else "<i2")
    lines = [f"{key}: {value}" for key, value in stated.items() if value is not None]
    path = tmp_path / "a.nrrd"
    text = "\n".join(["NRRD0005", *lines, "", ""]).encode()
    path.write_bytes(text + content.tobytes(order="F"))
    image = SimpleITK.ReadImage(str(path))
    volume = read_scan(path, air=0.0)
    assert volume.voxels_ZYX.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels_ZYX, SimpleITK.GetArrayFromImage(image))
    for index in ((0, 0, 0), (3, 0, 5), (3, 4, 5)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        ras = volume.geometry.affine @ [*index, 1]
        np.testing.assert_allclose(ras[:3], lps * [-1, -1, 1], atol=1e-9)
    told = fields.get("space", USUAL["space"]) in (None, "scanner-xyz", "3D-left-handed")
    assert any("as ITK does" in note for note in volume.warnings) == told
    write_mask(tmp_path / "m.nrrd", (volume.voxels_ZYX > 0).astype(np.uint8), volume.geometry)
    mask = SimpleITK.ReadImage(str(tmp_path / "m.nrrd"))
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-9)
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin())


def test_voxels_may_be_gzip_and_an_axis_of_one_is_left_out(tmp_path):
    content = gzip.compress(VOXELS_XYZ.tobytes(order="F"))
    whole = read_nrrd(nrrd_at(tmp_path / "a.nrrd"), air=0.0)
    for fields in (
        {"encoding": "gzip"},
        {"encoding": "GZ"},
        {"encoding": "gzip", "dimension": "4", "sizes": "1 4 5 6",
         "kinds": "list domain domain domain",
         "space directions": f"none {USUAL['space directions']}"},
        {"encoding": "gzip", "dimension": "4", "sizes": "4 5 6 1",
         "kinds": "domain domain domain list",
         "space directions": f"{USUAL['space directions']} none"},
        {"encoding": "gzip", "dimension": "4", "sizes": "4 5 6 1", "kinds": None},
    ):  # fmt: skip
        for newline in ("\n", "\r\n"):
            volume = read_nrrd(nrrd_at(tmp_path / "b.nrrd", fields, content, newline), air=0.0)
            np.testing.assert_array_equal(volume.voxels_ZYX, VOXELS_XYZ.T)
            np.testing.assert_array_equal(volume.geometry.affine, whole.geometry.affine)


def test_axes_that_are_sheared_are_told(tmp_path):
    sheared = {"space directions": "(2,0,0) (0,2,0) (0,0.9,3)"}
    (note,) = read_nrrd(nrrd_at(tmp_path / "a.nrrd", sheared), air=0.0).warnings
    assert "not orthogonal" in note


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encoding": "ascii"}, "encoding 'ascii'"),  # ITK ends the process
        ({"encoding": "bzip2"}, "encoding 'bzip2'"),
        ({"encoding": None}, "encoding ''"),
        ({"data file": "a.raw"}, "not hold its own voxels"),
        ({"datafile": "/etc/passwd"}, "not hold its own voxels"),
        ({"Data File": "LIST"}, "not hold its own voxels"),
        ({"byte skip": "-1"}, "byte skip"),
        ({"type": "block"}, "holds block voxels"),
        ({"type": None}, "holds no voxels"),
        ({"endian": None}, "which byte"),
        ({"sizes": "4 5"}, "2 sizes"),
        ({"sizes": "4 5 -6"}, "sizes are damaged"),
        ({"sizes": "4 5 0"}, "cannot have sizes"),
        ({"sizes": "4 5 99999999999999999999"}, "cannot have sizes"),
        ({"sizes": "4 5 7"}, "fewer voxels than 140"),
        ({"sizes": "60000 50000 40000"}, "fewer voxels"),
        ({"dimension": "4", "sizes": "3 4 5 6", "kinds": "vector domain domain domain"}, "4D"),
        ({"dimension": "2", "sizes": "4 5"}, "2D"),
        ({"space directions": "(0,0,0) (0,2,0) (0,0,3)"}, "nowhere"),
        ({"space directions": "(nan,0,0) (0,2,0) (0,0,3)"}, "nowhere"),
        ({"space directions": "(1,0,0) (1,0,0) (0,0,3)"}, "nowhere"),
        ({"space directions": "(1,0) (0,1) (0,0)"}, "not a 3D vector"),
        ({"space origin": "(a,b,c)"}, "space origin is damaged"),
        ({"space directions": None, "spacings": "1 2"}, "spacings is damaged"),
        ({"space units": '"m" "m" "m"'}, "lengths are in m "),
        ({"space units": '"um" "um" "um"'}, "lengths are in um"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused_naming_file_and_field(tmp_path, fields, words):
    with pytest.raises(UnreadableVolumeError, match=words) as refused:
        read_nrrd(nrrd_at(tmp_path / "scan.nrrd", fields), air=0.0)
    assert "scan.nrrd" in str(refused.value)
    assert refused.value.fix


@pytest.mark.parametrize("content", [b"", b"NRRD0005\ntype: short\n", b"nonsense", b"\x1f\x8b"])
def test_what_is_no_whole_header_is_refused(tmp_path, content):
    (tmp_path / "a.nrrd").write_bytes(content)
    with pytest.raises(UnreadableVolumeError, match=r"a\.nrrd"):
        read_nrrd(tmp_path / "a.nrrd", air=0.0)
    with pytest.raises(UnreadableVolumeError, match="cannot be opened"):
        read_nrrd(tmp_path / "b.nrrd", air=0.0)


def test_one_wrong_byte_never_raises_anything_else(tmp_path):
    random = Random(11)
    whole = bytearray(nrrd_at(tmp_path / "a.nrrd").read_bytes())
    for _ in range(300):
        wrong = bytearray(whole)
        wrong[random.randrange(len(wrong) - VOXELS_XYZ.nbytes)] = random.randrange(256)
        (tmp_path / "b.nrrd").write_bytes(wrong)
        try:
            volume = read_nrrd(tmp_path / "b.nrrd", air=0.0)
        except UnreadableVolumeError:
            continue
        assert volume.voxels_ZYX.size <= VOXELS_XYZ.size


def test_memory_is_estimated_from_the_header(tmp_path):
    """A gzip stream of zeros is a thousandth of what it holds."""
    size = 200
    path = nrrd_at(
        tmp_path / "a.nrrd",
        {"sizes": f"{size} {size} {size}", "encoding": "gzip"},
        gzip.compress(bytes(2 * size**3)),
    )
    assert path.stat().st_size < 1 << 20
    assert reading_mib([path]) > 2 * size**3 / 2**20
