"""Files as they arrive in reality: broken ones, and odd ones that must be read all the same."""

from __future__ import annotations

import gzip
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

AIR_HU = -1024
SHAPE_ZYX = (9, 11, 13)
SPACING_MM_XYZ = (0.75, 1.25, 2.5)
# left, posterior, superior: index order is the oriented order
AFFINE = np.array(
    [[-0.75, 0, 0, 90], [0, -1.25, 0, 70], [0, 0, 2.5, -300], [0, 0, 0, 1]], np.float64
)
VOXELS_ZYX = np.random.default_rng(7).integers(-1000, 1500, SHAPE_ZYX).astype(np.int16)
_FIELDS = {  # offset and type in a little-endian NIfTI-1 header
    "dim": (40, "<i2"),
    "datatype": (70, "<i2"),
    "pixdim": (76, "<f4"),
    "vox_offset": (108, "<f4"),
    "scl_slope": (112, "<f4"),
    "scl_inter": (116, "<f4"),
    "xyzt_units": (123, "u1"),
    "sform_code": (254, "<i2"),
    "quatern_b": (256, "<f4"),
    "qoffset_x": (268, "<u4"),  # bits of a float
    "magic": (344, "S4"),
}


@dataclass(frozen=True, kw_only=True)
class BrokenFile:
    """A file that is not a usable scan.

    Attributes:
        path: `NAME_0000.nii.gz`.
        words: what the message has to say, apart from the file's name.
        geometry_known: whether `read_geometry` still finds a geometry.
        shape_ZYX: which one, then.
        affine: likewise.
    """

    path: Path
    words: tuple[str, ...]
    geometry_known: bool
    shape_ZYX: tuple[int, int, int] = SHAPE_ZYX
    affine: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class OddFile:
    """A file that has to be read, and what has to come of it.

    Attributes:
        path: `NAME_0000.nii.gz`; the gzip stream under a `.nii` name ends in `_0000.nii`.
        voxels_ZYX: the right voxels.
        affine: the right affine, in mm.
        warnings: a few words of each warning, in order.
    """

    path: Path
    voxels_ZYX: NDArray[np.float32]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...]


def broken_files(folder: Path) -> dict[str, BrokenFile]:
    """Write one broken file of each kind into a folder."""
    files = {}
    for name, (content, words, geometry) in _broken().items():
        path = folder / f"{name}_0000.nii.gz"
        path.write_bytes(content)
        shape_ZYX, affine = geometry or (SHAPE_ZYX, None)
        files[name] = BrokenFile(
            path=path,
            words=words,
            geometry_known=geometry is not None,
            shape_ZYX=shape_ZYX,
            affine=affine,
        )
    return files


def odd_files(folder: Path) -> dict[str, OddFile]:
    """Write one odd file of each kind into a folder."""
    files = {}
    for name, (content, voxels_ZYX, affine, warnings) in _odd().items():
        path = folder / f"{name}_0000.nii{'' if name == 'gzip_under_nii' else '.gz'}"
        path.write_bytes(content)
        files[name] = OddFile(
            path=path,
            voxels_ZYX=np.asarray(voxels_ZYX, np.float32),
            affine=affine,
            warnings=warnings,
        )
    return files


def nifti_bytes(
    voxels_ZYX: NDArray[Any] = VOXELS_ZYX,
    *,
    sform: NDArray[np.float64] | None = AFFINE,
    qform: NDArray[np.float64] | None = AFFINE,
    header_class: Any = nibabel.Nifti1Header,
    endianness: str = "<",
    extension: bytes = b"",
    **fields: Any,
) -> bytes:
    """Return a NIfTI file.

    Args:
        voxels_ZYX: stored as they are, in their own type; more axes come first.
        sform: None for code 0.
        qform: None for code 0.
        header_class: nibabel's, NIfTI-1 or NIfTI-2.
        endianness: of header and voxels.
        extension: one header extension.
        fields: header fields to overwrite afterwards, unchecked (little-endian NIfTI-1 only).
            A tuple is (index, value) in a field of several values.
    """
    header = header_class(endianness=endianness)
    header.set_data_dtype(voxels_ZYX.dtype)
    header.set_data_shape(voxels_ZYX.shape[::-1])
    header.set_zooms([*SPACING_MM_XYZ, 1, 1, 1][: voxels_ZYX.ndim])
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm")
    header.set_qform(qform, code=0 if qform is None else 1)
    header.set_sform(sform, code=0 if sform is None else 1)
    if extension:
        header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", extension))
    stream = io.BytesIO()
    header.write_to(stream)
    start = int(header["vox_offset"])  # written with the header
    stored = voxels_ZYX.astype(voxels_ZYX.dtype.newbyteorder(endianness))
    content = bytearray(stream.getvalue().ljust(start, b"\0") + stored.tobytes())
    for field, value in fields.items():
        offset, kind = _FIELDS[field]
        index, value = value if isinstance(value, tuple) else (0, value)
        raw = np.array(value, kind).tobytes()
        offset += index * len(raw)
        content[offset : offset + len(raw)] = raw
    return bytes(content)


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@cache
def _broken() -> dict[str, tuple[bytes, tuple[str, ...], Any]]:
    """Return name -> content, words, (shape, affine) where these can be recovered."""
    again = "again"
    known, no_affine = (SHAPE_ZYX, AFFINE), (SHAPE_ZYX, np.eye(4))
    raw = nifti_bytes()
    compressed = _gzip(raw)
    rgb = np.zeros(SHAPE_ZYX, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    singular, infinite = AFFINE.copy(), AFFINE.copy()
    singular[:3, 1] = singular[:3, 0]
    infinite[0, 0] = np.nan
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("scan.nii", raw)
    flipped_crc = compressed[:-8] + bytes([compressed[-8] ^ 1]) + compressed[-7:]
    middle = len(compressed) // 2
    flipped_bits = compressed[:middle] + b"\xff" * 40 + compressed[middle + 40 :]
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123456\n"
    return {
        "empty_file": (b"", ("is empty", again), None),
        "truncated_gzip": (compressed[:middle], ("gzip stream ends early", again), known),
        "truncated_gzip_header": (compressed[:20], ("gzip stream ends early", again), None),
        "corrupt_gzip_crc": (flipped_crc, ("gzip stream is damaged", "checksum", again), known),
        "corrupt_gzip_stream": (flipped_bits, ("gzip stream", again), known),
        "gzip_twice": (_gzip(compressed), ("compressed twice", "gunzip"), None),
        "too_few_voxels": (raw[:-100], ("holds 1237 voxels", "says 1287", again), known),
        "header_only": (raw[:352], ("holds 0 voxels", "says 1287", again), known),
        "half_a_header": (raw[:200], ("ends within its header", again), None),
        "lfs_pointer": (lfs, ("Git LFS pointer", "git lfs pull"), None),
        "html_page": (b"\n<!DOCTYPE html>\n<title>Log in</title>", ("web page", again), None),
        "xml_page": (b'<?xml version="1.0"?><Error/>', ("XML page", again), None),
        "compressed_html_page": (_gzip(b"<html><body>404"), ("web page", again), None),
        "text": (b"patient 12, see the other folder\n", ("not a NIfTI file", "convert"), None),
        "dicom": (b"\0" * 128 + b"DICM" + b"\x02\0" * 300, ("DICOM", "dcm2niix"), None),
        "nrrd": (b"NRRD0004\ntype: short\ndimension: 3\n\n", ("NRRD", "convert"), None),
        "metaimage": (b"ObjectType = Image\nNDims = 3\n", ("MetaImage", "convert"), None),
        "zip": (archive.getvalue(), ("ZIP archive", "unpack"), None),
        "zero_size": (nifti_bytes(dim=(2, 0)), ("no voxels", "(13, 0, 9)", "export"), None),
        "no_dimensions": (nifti_bytes(dim=(0, 0)), ("no voxels", "0D", "export"), None),
        "two_dimensions": (
            nifti_bytes(VOXELS_ZYX[0]),
            ("is 2D", "(13, 11)", "as one 3D file"),
            ((1, *SHAPE_ZYX[1:]), AFFINE),
        ),
        "four_dimensions": (
            nifti_bytes(np.stack([VOXELS_ZYX] * 3)),
            ("is 4D", "(13, 11, 9, 3)", "split"),
            known,
        ),
        "complex": (
            nifti_bytes(VOXELS_ZYX.astype(np.complex64)),
            ("complex", "one real number per voxel"),
            known,
        ),
        "rgb": (nifti_bytes(rgb), ("RGB", "one real number per voxel"), known),
        "unknown_datatype": (nifti_bytes(datatype=77), ("header is damaged", "77"), known),
        "half_a_pair": (nifti_bytes(magic=b"ni1"), (".hdr/.img pair", "convert"), known),
        "nan_intercept": (nifti_bytes(scl_inter=np.nan), ("header is damaged", "export"), known),
        "nan_voxel_offset": (
            nifti_bytes(vox_offset=np.nan),
            ("header is damaged", "export"),
            known,
        ),
        "singular_affine": (
            nifti_bytes(sform=singular, qform=None),
            ("affine is singular", "repair"),
            no_affine,
        ),
        "nan_affine": (
            nifti_bytes(sform=infinite, qform=None),
            ("not finite", "repair"),
            no_affine,
        ),
        "impossible_qform": (
            nifti_bytes(sform=None, quatern_b=7.0),
            ("qform is damaged", "repair"),
            no_affine,
        ),
    }


@cache
def _odd() -> dict[str, tuple[bytes, NDArray[Any], NDArray[np.float64], tuple[str, ...]]]:
    """Return name -> content, right voxels, right affine, words of each warning."""
    voxels, floats = VOXELS_ZYX, VOXELS_ZYX.astype(np.float32)
    unsigned = (voxels + 1024).astype(np.uint16)
    small = (voxels // 16).astype(np.int8)
    holes, filled = floats.copy(), floats.copy()
    holes[0, 0, 0], holes[1, 2, 3], holes[-1, -1, -1] = np.nan, np.inf, -np.inf
    filled[0, 0, 0] = filled[1, 2, 3] = filled[-1, -1, -1] = AIR_HU
    too_large = floats.astype(np.float64)
    too_large[1, 2, 3] = 1e300
    off_by_rounding, tilted = AFFINE.copy(), AFFINE.copy()
    off_by_rounding[1, 2] = 1e-3 * SPACING_MM_XYZ[2]
    tilted[1, 2] = np.tan(np.radians(20)) * SPACING_MM_XYZ[2]
    moved = AFFINE.copy()
    moved[0, 3] += 5
    in_metres = AFFINE.copy()
    in_metres[:3] /= 1000
    left_handed = AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
    oblique = _rotation(20, 12) @ AFFINE
    x, y, z = ((n - 1) / 2 for n in SHAPE_ZYX[::-1])
    array_order = np.diag([-0.75, 1.25, 2.5, 1.0])  # of which nibabel flips the first axis
    array_order[:3, 3] = [0.75 * x, -1.25 * y, -2.5 * z]
    compressed = _gzip(nifti_bytes())
    raw = nifti_bytes()
    members = b"".join(_gzip(raw[i : i + 200]) for i in range(0, len(raw), 200))

    def read(content: bytes, right: NDArray[Any] = floats, *warnings: str, affine: Any = AFFINE):
        return content, right, affine, warnings

    return {
        "plain": read(compressed),
        "gzip_under_nii": read(compressed),
        "raw_under_nii_gz": read(raw),
        "gzip_members": read(members),
        "gzip_padded": read(compressed + b"\0" * 512),
        "nifti2": read(_gzip(nifti_bytes(header_class=nibabel.Nifti2Header))),
        "big_endian": read(_gzip(nifti_bytes(endianness=">"))),
        "big_endian_nifti2": read(
            nifti_bytes(header_class=nibabel.Nifti2Header, endianness=">"),
        ),
        "trailing_singleton": read(_gzip(nifti_bytes(voxels[None], pixdim=(4, 2.5)))),
        "two_trailing_singletons": read(_gzip(nifti_bytes(voxels[None, None]))),
        "one_slice": read(nifti_bytes(voxels[:1]), floats[:1]),
        "scaled": read(
            nifti_bytes(unsigned, scl_slope=0.5, scl_inter=-1024),
            unsigned * np.float32(0.5) - np.float32(1024),
        ),
        "slope_zero": read(nifti_bytes(scl_slope=0, scl_inter=5)),
        "slope_nan": read(nifti_bytes(scl_slope=np.nan, scl_inter=np.nan)),
        "not_finite": read(nifti_bytes(holes), filled, "3 voxels are not finite"),
        "beyond_float32": read(
            nifti_bytes(too_large), np.where(too_large > 1e9, AIR_HU, floats), "1 voxels are not"
        ),
        "float64": read(nifti_bytes(floats.astype(np.float64))),
        "int8": read(nifti_bytes(small), small),
        "uint16": read(nifti_bytes(unsigned), unsigned),
        "int32": read(nifti_bytes(voxels.astype(np.int32))),
        "off_by_rounding": read(
            nifti_bytes(sform=off_by_rounding, qform=None), affine=off_by_rounding
        ),
        "gantry_tilt": read(
            nifti_bytes(sform=tilted, qform=None), floats, "not orthogonal", affine=tilted
        ),
        "sform_and_qform_disagree": read(
            nifti_bytes(qform=moved), floats, "sform and qform disagree (by up to 5 mm)"
        ),
        "qform_only": read(nifti_bytes(sform=None)),
        "sform_only": read(nifti_bytes(qform=None)),
        "impossible_qform_beside_sform": read(
            nifti_bytes(quatern_b=7.0), floats, "qform is damaged"
        ),
        "signalling_nan_in_qform": read(
            nifti_bytes(qoffset_x=0x7F800001), floats, "qform is damaged (not finite)"
        ),
        "neither_sform_nor_qform": read(
            nifti_bytes(sform=None, qform=None),
            floats,
            "neither sform nor qform",
            affine=array_order,
        ),
        "negative_pixdim": read(
            nifti_bytes(qform=None, pixdim=(1, -0.75)), floats, "pixdim is not valid"
        ),
        "unknown_sform_code": read(nifti_bytes(sform_code=9), floats, "sform_code is not valid"),
        "no_voxel_offset": read(nifti_bytes(vox_offset=0)),
        "left_handed": read(nifti_bytes(sform=left_handed, qform=left_handed), affine=left_handed),
        "oblique": read(nifti_bytes(sform=oblique, qform=oblique), affine=oblique),
        "huge_extension": read(_gzip(nifti_bytes(extension=bytes(range(256)) * 800))),
        "metres": read(
            nifti_bytes(sform=in_metres, qform=None, xyzt_units=1), floats, "units of 1000 mm"
        ),
    }


def _rotation(about_x_degrees: float, about_z_degrees: float) -> NDArray[np.float64]:
    a, b = np.radians(about_x_degrees), np.radians(about_z_degrees)
    about_x, about_z = np.eye(4), np.eye(4)
    about_x[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    about_z[:2, :2] = [[np.cos(b), -np.sin(b)], [np.sin(b), np.cos(b)]]
    return about_z @ about_x


BROKEN_NAMES = tuple(_broken())
ODD_NAMES = tuple(_odd())
