"""NRRD (.nrrd) in: header and voxels of one file (http://teem.sourceforge.net/nrrd/format.html).

Places are those that ITK reads. Nothing but the file itself is read: a header that says that its
voxels lie elsewhere is refused.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from flarekit.core.content import AGAIN, content_of, could_hold
from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.metaheader import opened
from flarekit.core.metaimage import usable
from flarekit.core.volume import Geometry, Volume, shear_notes, spans_space

_HEADER_BYTES = 1 << 16  # at most
_MOST_ALONG_AN_AXIS = 1 << 31
_SAVE = "save it again as one .nrrd or .nii.gz (3D Slicer, SimpleITK.WriteImage)"
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int"), "i2"),
    **dict.fromkeys(("int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int"), "u2"),
    **dict.fromkeys(("uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int"), "u8"),
    **dict.fromkeys(("uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_ALIASES = {"centers": "centerings", "datafile": "data file", "axismins": "axis mins"}
_TO_RAS = {  # signs along X and Y of a space's axes; whatever is not listed is taken for LPS
    "right-anterior-superior": (1.0, 1.0),
    "ras": (1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0),
    "las": (-1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0),
    "lps": (-1.0, -1.0),
}
_MM = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "???", "none")
_VECTOR = re.compile(r"none|\([^()]*\)")


@dataclass(frozen=True, kw_only=True)
class NrrdHeader:
    """What the text of a file says.

    Attributes:
        shape_ZYX: number of voxels along each stored axis.
        affine: (4, 4) float64, stored index (i, j, k, 1) -> mm, RAS+.
        dtype: of the voxels as stored, with their byte order.
        compressed: whether they are gzip.
        data_start: byte of the file where they begin.
        notes: what was odd and how it was taken.
    """

    shape_ZYX: tuple[int, int, int]
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]
    compressed: bool
    data_start: int
    notes: tuple[str, ...]


def read_nrrd(path: Path, *, air: float) -> Volume:
    """Read one 3D scan.

    Integers stay as they are stored; float64 becomes float32.

    Args:
        path: a .nrrd file.
        air: the value that NaN and infinite voxels get.

    Raises:
        UnreadableVolumeError: see `read_header`; also where voxels are missing or damaged.
    """
    header = read_header(path)
    notes = (*header.notes, *shear_notes(header.affine))
    count = math.prod(header.shape_ZYX)
    needed = count * header.dtype.itemsize
    content = bytearray()
    if could_hold(path, needed):  # never allocated where it cannot
        content = _content(path, header, needed)
    if len(content) < needed:
        raise UnreadableVolumeError(path, f"holds fewer voxels than {count} (sizes)", fix=AGAIN)
    stored = np.frombuffer(content, header.dtype, count).reshape(header.shape_ZYX)
    voxels_ZYX, odd = usable(stored, path, air=air)
    geometry = Geometry(shape_ZYX=header.shape_ZYX, affine=header.affine, header=None)
    return Volume(voxels_ZYX=voxels_ZYX, geometry=geometry, path=path, warnings=(*notes, *odd))


def _content(path: Path, header: NrrdHeader, needed: int) -> bytearray:
    if header.compressed:
        return content_of(path, at_most=needed, start=header.data_start)
    with opened(path) as stream:
        stream.seek(header.data_start)
        content = bytearray(needed)
        return content[: stream.readinto(content)]  # type: ignore[attr-defined]


def read_header(path: Path) -> NrrdHeader:
    """Read what the text of a file says; its voxels are not looked at.

    Raises:
        UnreadableVolumeError: the file is missing, empty, not NRRD, keeps its voxels in another
            file or in an unusual way, is not one 3D scan, or places its voxels nowhere.
    """
    fields, data_start = _fields(path)
    if "data file" in fields:
        _refuse(path, "does not hold its own voxels (data file)")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        _refuse(path, f"encodes its voxels in an unusual way (encoding {encoding[:40]!r})")
    for skip in ("line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(skip, "0") != "0":
            _refuse(path, f"has something before its voxels ({skip} {fields[skip][:40]})")
    sizes = _sizes(path, fields)
    spatial = _spatial_axes(path, fields, sizes)
    x, y, z = (sizes[axis] for axis in spatial)
    affine, notes = _affine(path, fields, spatial)
    if not spans_space(affine):
        fault = "its space directions and space origin place its voxels nowhere"
        raise UnreadableVolumeError(path, fault, fix="repair its header")
    return NrrdHeader(
        shape_ZYX=(z, y, x),
        affine=affine,
        dtype=_dtype(path, fields),
        compressed=encoding != "raw",
        data_start=data_start,
        notes=notes,
    )


def _refuse(path: Path, fault: str) -> NoReturn:
    raise UnreadableVolumeError(path, fault, fix=_SAVE)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's fields and the byte where the voxels begin."""
    with opened(path) as stream:
        start = stream.read(_HEADER_BYTES)
    if not start:
        raise UnreadableVolumeError(path, "is empty (0 bytes)", fix=AGAIN)
    if start[:4] != b"NRRD":
        _refuse(path, "is not an NRRD file")
    end = re.search(rb"\r?\n\r?\n", start)
    if end is None:
        raise UnreadableVolumeError(path, "ends within its header", fix=AGAIN)
    fields: dict[str, str] = {}
    for line in start[: end.start()].decode("utf-8", "replace").splitlines()[1:]:
        name, colon, value = line.partition(":")
        if line.startswith("#") or not colon or value.startswith("="):
            continue
        key = name.strip().lower()
        fields[_ALIASES.get(key, key)] = value.strip()
    return fields, end.end()


def _sizes(path: Path, fields: Mapping[str, str]) -> list[int]:
    words = fields.get("sizes", "").split()
    if not words or fields.get("dimension") != str(len(words)):
        stated = fields.get("dimension", "missing")
        _refuse(path, f"its dimension is {stated[:40]}, and it states {len(words)} sizes")
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UnreadableVolumeError(path, f"its sizes are damaged ({words[:4]})", fix=AGAIN)
    sizes = [int(word) for word in words if len(word) < len(str(_MOST_ALONG_AN_AXIS)) + 1]
    if len(sizes) < len(words) or not all(0 < size <= _MOST_ALONG_AN_AXIS for size in sizes):
        raise UnreadableVolumeError(path, f"cannot have sizes {words[:4]}", fix=AGAIN)
    return sizes


def _spatial_axes(path: Path, fields: Mapping[str, str], sizes: Sequence[int]) -> list[int]:
    """Return the three axes that lie in space; others may only have a length of one."""
    kinds = fields.get("kinds", "").lower().split()
    vectors = _VECTOR.findall(fields.get("space directions", "").lower())
    axes = list(range(len(sizes)))
    if len(vectors) == len(sizes) > 3:
        axes = [axis for axis in axes if vectors[axis] != "none"]
    elif len(kinds) == len(sizes) > 3:
        axes = [axis for axis in axes if kinds[axis] in ("domain", "space")]
    while len(axes) > 3 and sizes[axes[-1]] == 1:
        axes.pop()
    others = [size for axis, size in enumerate(sizes) if axis not in axes]
    if len(axes) != 3 or any(size != 1 for size in others):
        fault = f"is {len(sizes)}D (sizes {' x '.join(map(str, sizes))}), not one 3D scan"
        raise UnreadableVolumeError(path, fault, fix="save one 3D scan per channel")
    return axes


def _dtype(path: Path, fields: Mapping[str, str]) -> np.dtype[Any]:
    kind = fields.get("type", "").lower()
    if kind not in _TYPES:
        _refuse(path, f"holds {kind[:40] or 'no'} voxels (type)")
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and _TYPES[kind][1] != "1":
        _refuse(path, "does not say which byte of a voxel comes first (endian)")
    return np.dtype((order or "<") + _TYPES[kind])


@np.errstate(all="ignore")  # what is not finite is found afterwards
def _affine(
    path: Path, fields: Mapping[str, str], spatial: Sequence[int]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    if odd := [unit for unit in units if unit.strip().lower() not in _MM]:
        raise UnreadableVolumeError(
            path, f"its lengths are in {odd[0][:40]} (space units), not in mm", fix="convert them"
        )
    stored = np.eye(4)
    if "space directions" in fields:
        vectors = _VECTOR.findall(fields["space directions"].lower())
        vectors = [vector for vector in vectors if vector != "none"]
        if len(vectors) != 3:
            vectors = [vectors[axis] for axis in spatial if axis < len(vectors)]
        for axis, vector in enumerate(vectors):
            stored[:3, axis] = _vector(path, "space directions", vector)
    elif "spacings" in fields:
        words = fields["spacings"].split()
        for axis, stored_axis in enumerate(spatial):
            word = words[stored_axis] if stored_axis < len(words) else ""
            stored[axis, axis] = _number(path, "spacings", word)
    if "space origin" in fields:
        stored[:3, 3] = _vector(path, "space origin", fields["space origin"])
    space = fields.get("space", "").lower()
    signs = _TO_RAS.get(space.removesuffix("-time"), (-1.0, -1.0))
    notes: tuple[str, ...] = ()
    if space.removesuffix("-time") not in _TO_RAS:
        said = f"its space is {space[:40]}" if space else "it states no space"
        notes = (f"{said}: its axes are taken for left, posterior, superior, as ITK does",)
    return np.diag([*signs, 1.0, 1.0]) @ stored, notes


def _vector(path: Path, field: str, text: str) -> list[float]:
    words = text.strip("() \t").split(",")
    if len(words) != 3:
        raise UnreadableVolumeError(
            path, f"its {field} is not a 3D vector ({text[:40]})", fix=AGAIN
        )
    return [_number(path, field, word) for word in words]


def _number(path: Path, field: str, word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise UnreadableVolumeError(
            path, f"its {field} is damaged ({word[:40]!r})", fix=AGAIN
        ) from error
