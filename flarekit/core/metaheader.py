"""The text of a MetaImage (.mha) file: `Key = value` lines in front of the voxels.

The format is ITK's (https://itk.org/Wiki/ITK/MetaIO). Positions are in LPS there, in RAS here. A
mask gets the lines of its scan that place the voxels as text, so that no digit of them changes;
whatever else the header says (patient, NIfTI fields) stays out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flarekit.core.content import AGAIN
from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.names import UnsafePathError, path_within
from flarekit.core.volume import Geometry, spans_space

_HEADER_BYTES = 1 << 16  # at most
_MOST_ALONG_AN_AXIS = 1 << 31
_LONGEST_NAME = 80  # of a file, in a message
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
_ASSUMED = {("ElementSpacing", "ElementSize"): "1 mm", ("TransformMatrix",): "no rotation"}
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
        data_start: byte of their file where they begin.
        data_path: the file that they are in.
        placement: the lines that place the voxels in space, as text.
        notes: which of these lines are missing, and what is taken.
    """

    shape_ZYX: tuple[int, int, int]
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]
    compressed: bool
    data_start: int
    data_path: Path
    placement: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def geometry(self) -> Geometry:
        """Where the voxels lie; its header is this object."""
        return Geometry(shape_ZYX=self.shape_ZYX, affine=self.affine, header=self)


def read_header(path: Path) -> MetaHeader:
    """Read what the text of a .mha or a .mhd file says; its voxels are not looked at.

    Raises:
        UnreadableVolumeError: the file is missing, empty, not MetaImage, not one 3D scan, or places
            its voxels nowhere; or its voxels are in another file, and that is none of a .mhd's
            folder.
    """
    fields, header_bytes = _fields(path)
    shape_XYZ = _three_dimensions(path, _numbers(path, fields, "DimSize", None))
    placement, dtype = _placement(path, fields), _dtype(path, fields)
    compressed = _is_true(fields.get("CompressedData"))
    data_path, data_start = path, header_bytes
    if fields["ElementDataFile"] != "LOCAL":
        data_path = _data_beside(path, fields)
        data_start = 0
        if fields.get("HeaderSize") == "-1" and not compressed:  # whatever stands before them
            data_start = max(0, data_path.stat().st_size - math.prod(shape_XYZ) * dtype.itemsize)
    return MetaHeader(
        shape_ZYX=shape_XYZ[::-1],
        affine=_affine(path, placement),
        dtype=dtype,
        compressed=compressed,
        data_start=data_start,
        data_path=data_path,
        placement=placement,
        notes=tuple(
            f"its header has no {keys[0]}: {otherwise} is taken, as ITK does"
            for keys, otherwise in _ASSUMED.items()
            if not fields.keys() & keys
        ),
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
        data_path=Path(),
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
            _check_usual(path, fields)
            return fields, at
    fault = (
        "ends within its header, before ElementDataFile"
        if "NDims" in fields
        else "is not a MetaImage file"
    )
    raise UnreadableVolumeError(path, fault, fix=_CONVERT)


def _check_usual(path: Path, fields: Mapping[str, str]) -> None:
    is_alone = fields["ElementDataFile"] == "LOCAL"
    header_sizes = ("0",) if is_alone else ("0", "-1")
    usual_size = fields.get("HeaderSize", "0") in header_sizes
    if not _is_true(fields.get("BinaryData", "True")) or not usual_size:
        raise UnreadableVolumeError(
            path, "stores its voxels in an unusual way (BinaryData, HeaderSize)", fix=_CONVERT
        )


def _data_beside(path: Path, fields: Mapping[str, str]) -> Path:
    """Return the file with a .mhd's voxels, which lies in its folder or below.

    A LIST of files and a pattern of names are refused: where one is missing, ITK gives whatever
    was in memory.
    """
    name = fields["ElementDataFile"]
    elsewhere = f"keeps its voxels elsewhere (ElementDataFile {name[:_LONGEST_NAME]})"
    if path.suffix.lower() != ".mhd" or name in ("", "LIST") or "%" in name:
        raise UnreadableVolumeError(path, elsewhere, fix=_CONVERT)
    data_path = path.parent / Path(name).name
    if Path(name).name != name:
        try:
            data_path = path_within(path.parent, name, source=path)
        except UnsafePathError as error:
            raise UnreadableVolumeError(
                path, elsewhere, fix="put that file beside it, and write its name alone"
            ) from error
    if not data_path.is_file():
        raise UnreadableVolumeError(
            path, f"its voxels are missing: {data_path.name} is not beside it", fix=AGAIN
        )
    return data_path


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
    if (matrix.size, offset.size, spacing.size) == (9, 3, 3) and spacing.min() > 0:
        lps = np.column_stack([matrix.reshape(3, 3).T * spacing, offset])  # rows are axes there
        affine = np.vstack([_LPS @ lps, [0, 0, 0, 1]])
        if spans_space(affine):
            return affine
    raise UnreadableVolumeError(
        path,
        "its TransformMatrix, Offset and ElementSpacing place its voxels nowhere",
        fix="repair its header",
    )
