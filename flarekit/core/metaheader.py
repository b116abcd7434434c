"""The text of a MetaImage (.mha) file: `Key = value` lines in front of the voxels.

The format is ITK's (https://itk.org/Wiki/ITK/MetaIO). Positions are in LPS there, in RAS here. A
mask gets the lines of its scan that place the voxels as text, so that no digit of them changes;
whatever else the header says (patient, NIfTI fields) stays out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flarekit.core.content import AGAIN
from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.volume import Geometry

_HEADER_BYTES = 1 << 16  # at most
_MOST_ALONG_AN_AXIS = 1 << 31
_CONVERT = "write it as one 3D .mha file (SimpleITK.WriteImage)"
_LPS = np.diag([-1.0, -1.0, 1.0])
_ELEMENTS = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # MetaIO's long has four bytes
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_ALIASES = {  # as ITK's reader accepts them
    "Position": "Offset",
    "Origin": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}
_IMPOSTORS = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the scan", "run `git lfs pull`"),
    (0, b"<", "is a web page, not a scan", AGAIN),
    (0, b"\x1f\x8b", "is gzip-compressed, perhaps NIfTI, not MetaImage", _CONVERT),
    (128, b"DICM", "is a DICOM file, not MetaImage", _CONVERT),
    (344, b"n+1", "is a NIfTI file, not MetaImage", _CONVERT),
)


@dataclass(frozen=True, kw_only=True)
class MetaHeader:
    """What the text of a file says.

    Attributes:
        shape_ZYX: number of voxels along each stored axis.
        affine: (4, 4) float64, stored index (i, j, k, 1) -> mm, RAS+.
        dtype: of the voxels as stored, with their byte order.
        compressed: whether they are one zlib stream.
        data_start: byte of the file where they begin.
        placement: the lines that place the voxels in space, as text.
    """

    shape_ZYX: tuple[int, int, int]
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]
    compressed: bool
    data_start: int
    placement: Mapping[str, str]

    @property
    def geometry(self) -> Geometry:
        """Where the voxels lie; its header is this object."""
        return Geometry(shape_ZYX=self.shape_ZYX, affine=self.affine, header=self)


def read_header(path: Path) -> MetaHeader:
    """Read what the text of a .mha file says; its voxels are not looked at.

    Raises:
        UnreadableVolumeError: the file is missing, empty, not MetaImage, not one 3D scan in one
            file, or places its voxels nowhere.
    """
    fields, data_start = _fields(path)
    shape_XYZ = _three_dimensions(path, _numbers(path, fields, "DimSize", None))
    placement = _placement(path, fields)
    return MetaHeader(
        shape_ZYX=shape_XYZ[::-1],
        affine=_affine(path, placement),
        dtype=_dtype(path, fields),
        compressed=_is_true(fields.get("CompressedData")),
        data_start=data_start,
        placement=placement,
    )


def mask_header(geometry: Geometry, compressed_bytes: int) -> bytes:
    """Return the text of a mask's file; a zlib stream of so many bytes has to follow."""
    header: MetaHeader = geometry.header
    x, y, z = geometry.shape_ZYX[::-1]
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(compressed_bytes),
        **header.placement,
        "DimSize": f"{x} {y} {z}",
        "ElementType": "MET_UCHAR",
        "ElementDataFile": "LOCAL",
    }
    return "".join(f"{key} = {value}\n" for key, value in fields.items()).encode()


def geometry_from(shape_ZYX: tuple[int, int, int], affine: NDArray[np.float64]) -> Geometry:
    """Return a geometry to write masks with, for a scan that is not MetaImage.

    Args:
        shape_ZYX: number of voxels along each stored axis.
        affine: (4, 4) float64, stored index (i, j, k, 1) -> mm, RAS+.
    """
    lps = _LPS @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    numbers = {
        "TransformMatrix": (lps[:, :3] / spacing).T.ravel(),
        "Offset": lps[:, 3],
        "CenterOfRotation": np.zeros(3),
        "ElementSpacing": spacing,
    }
    placement = {key: " ".join(repr(float(v)) for v in vs) for key, vs in numbers.items()}
    header = MetaHeader(
        shape_ZYX=shape_ZYX,
        affine=affine,
        dtype=np.dtype(np.uint8),
        compressed=True,
        data_start=0,
        placement=placement,
    )
    return header.geometry


def blank_geometry() -> Geometry:
    """Return the geometry of a single voxel, for a file of which nothing is known."""
    return geometry_from((1, 1, 1), np.eye(4))


def opened(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        UnreadableVolumeError: it cannot be opened.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise UnreadableVolumeError(
            path, f"cannot be opened: {error.strerror}", fix="check path and permissions"
        ) from error


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's lines and the byte where the voxels begin."""
    with opened(path) as stream:
        start = stream.read(_HEADER_BYTES)
    if not start:
        raise UnreadableVolumeError(path, "is empty (0 bytes)", fix=AGAIN)
    for offset, magic, fault, fix in _IMPOSTORS:
        if start[offset : offset + len(magic)] == magic:
            raise UnreadableVolumeError(path, fault, fix=fix)
    fields: dict[str, str] = {}
    at = 0
    while at < len(start):
        end = start.find(b"\n", at)
        key, equals, value = start[at : end if end >= 0 else None].partition(b"=")
        at = end + 1
        if end < 0 or not equals:
            break
        name = key.strip().decode("latin-1")
        fields[_ALIASES.get(name, name)] = value.strip().decode("latin-1")
        if name == "ElementDataFile":
            _check_local(path, fields)
            return fields, at
    fault = "ends within its header" if "NDims" in fields else "is not a MetaImage file"
    raise UnreadableVolumeError(path, fault, fix=_CONVERT)


def _check_local(path: Path, fields: Mapping[str, str]) -> None:
    if fields["ElementDataFile"] != "LOCAL":
        raise UnreadableVolumeError(
            path,
            f"keeps its voxels elsewhere (ElementDataFile {fields['ElementDataFile']})",
            fix=_CONVERT,
        )
    if not _is_true(fields.get("BinaryData", "True")) or fields.get("HeaderSize", "0") != "0":
        raise UnreadableVolumeError(
            path, "stores its voxels in an unusual way (BinaryData, HeaderSize)", fix=_CONVERT
        )


def _is_true(value: str | None) -> bool:
    return value is not None and value[:1] in ("T", "t", "1")


def _numbers(
    path: Path, fields: Mapping[str, str], key: str, default: str | None
) -> NDArray[np.float64]:
    text = fields.get(key, default)
    if text is None:
        raise UnreadableVolumeError(path, f"its header has no {key}", fix=AGAIN)
    try:
        numbers = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise UnreadableVolumeError(path, f"its {key} is damaged ({error})", fix=AGAIN) from error
    if not np.isfinite(numbers).all():
        raise UnreadableVolumeError(path, f"its {key} is damaged ({text[:40]})", fix=AGAIN)
    return numbers


def _three_dimensions(path: Path, size: NDArray[np.float64]) -> tuple[int, int, int]:
    if (size != np.floor(size)).any() or (np.abs(size) > _MOST_ALONG_AN_AXIS).any():
        raise UnreadableVolumeError(path, f"its DimSize is damaged ({size.tolist()})", fix=AGAIN)
    shape = tuple(int(n) for n in size)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise UnreadableVolumeError(
            path, f"is {len(shape)}D (DimSize {shape}), not one 3D scan", fix=_CONVERT
        )
    if any(n <= 0 for n in shape):
        raise UnreadableVolumeError(path, f"has no voxels (DimSize {shape})", fix=AGAIN)
    return shape[0], shape[1], shape[2]


def _dtype(path: Path, fields: Mapping[str, str]) -> np.dtype[Any]:
    kind = fields.get("ElementType", "")
    if kind not in _ELEMENTS:
        raise UnreadableVolumeError(
            path, f"holds {kind or 'no'} voxels (ElementType)", fix=_CONVERT
        )
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise UnreadableVolumeError(
            path,
            "holds several numbers per voxel (ElementNumberOfChannels)",
            fix="write one number per voxel",
        )
    order = ">" if _is_true(fields.get("BinaryDataByteOrderMSB")) else "<"
    return np.dtype(order + _ELEMENTS[kind])


def _placement(path: Path, fields: Mapping[str, str]) -> dict[str, str]:
    """Return the lines that place the voxels, those of a fourth axis left out."""
    ones = "1 1 1 1"
    wanted = {
        "TransformMatrix": fields.get("TransformMatrix"),
        "Offset": fields.get("Offset", "0 0 0 0"),
        "CenterOfRotation": fields.get("CenterOfRotation", "0 0 0 0"),
        "AnatomicalOrientation": fields.get("AnatomicalOrientation"),
        "ElementSpacing": fields.get("ElementSpacing", fields.get("ElementSize", ones)),
    }
    dimensions = len(_numbers(path, fields, "DimSize", None))
    matrix = (wanted["TransformMatrix"] or " ".join(map(str, np.eye(dimensions).ravel()))).split()
    if len(matrix) == dimensions**2:
        rows = [matrix[k * dimensions : k * dimensions + 3] for k in range(3)]
        wanted["TransformMatrix"] = " ".join(word for row in rows for word in row)
    if wanted["AnatomicalOrientation"] is None:
        del wanted["AnatomicalOrientation"]
    for key in ("Offset", "CenterOfRotation", "ElementSpacing"):
        wanted[key] = " ".join((wanted[key] or "").split()[:3])
    return {key: value for key, value in wanted.items() if value is not None}


@np.errstate(all="ignore")  # what is not finite is found afterwards
def _affine(path: Path, placement: Mapping[str, str]) -> NDArray[np.float64]:
    matrix = _numbers(path, placement, "TransformMatrix", None)
    offset = _numbers(path, placement, "Offset", None)
    spacing = _numbers(path, placement, "ElementSpacing", None)
    if (matrix.size, offset.size, spacing.size) == (9, 3, 3):
        lps = np.column_stack([matrix.reshape(3, 3).T * spacing, offset])  # rows are axes there
        affine = np.vstack([_LPS @ lps, [0, 0, 0, 1]])
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        usable = np.isfinite(affine).all() and (lengths > 0).all()
        if usable and abs(np.linalg.det(affine[:3, :3] / lengths)) >= 1e-3:
            return affine
    raise UnreadableVolumeError(
        path,
        "its TransformMatrix, Offset and ElementSpacing place its voxels nowhere",
        fix="repair its header",
    )
