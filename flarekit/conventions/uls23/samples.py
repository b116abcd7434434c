"""Stacks of volumes of interest with a lesion at the centre of each, as ULS23 hands them over."""

import json
import struct
import tomllib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.uls23 import SHAPE_ZYX
from flarekit.verification.platform_inputs import write_inputs_json

NAME = "4d1e9a50-7f0c-4f6e-b1e4-3d0a6c2b9e71.mha"
IMAGES, SPACINGS = "images/stacked-3d-ct-lesion-volumes", "stacked-3d-volumetric-spacings.json"
_NOISE_HU = 8  # also its step, so that a hundred volumes stay a small file
_ELEMENTS = {"int16": "MET_SHORT", "int32": "MET_INT", "float32": "MET_FLOAT"}
_HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = {compressed}
{size}TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -12.5 7.25 -431.125
CenterOfRotation = 0 0 0
AnatomicalOrientation = RAI
ElementSpacing = 0.78125 0.78125 1.5
DimSize = {x} {y} {z}
ElementType = {element}
ElementDataFile = LOCAL
"""
_RAW_DEFLATE = -zlib.MAX_WBITS


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A place in the body, and the lesion at its centre.

    Attributes:
        tissue_hu: of what surrounds the lesion.
        lesion_hu: of the lesion, and of a larger one of the same kind away from the centre.
        radii_mm_ZYX: of the lesion, an ellipsoid.
        extent_mm_ZYX: of the volume.
        wall_hu: of what lies behind a wavy border 40 mm posterior to the centre.
        vessel_hu: of tubes through the tissue.
        padding: faces beyond the scan, each (axis, side, where the scan ends from the centre in
            mm); side is -1 or +1.
        below: how much less than the scan's minimum padding is.
    """

    tissue_hu: float
    lesion_hu: float
    radii_mm_ZYX: tuple[float, float, float]
    extent_mm_ZYX: tuple[float, float, float]
    wall_hu: float
    vessel_hu: float
    padding: tuple[tuple[int, Literal[-1, 1], float], ...] = ()
    below: int = 0


def _scenes() -> Iterator[Scene]:
    text = Path(__file__).with_name("scenes.toml").read_text("utf-8")
    for stated in tomllib.loads(text).values():
        yield Scene(**{name: _tuples(value) for name, value in stated.items()})


def _tuples(value: Any) -> Any:  # noqa: ANN401 - of a TOML file
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


SCENES = LIVER, *_ = tuple(_scenes())


def spacing_mm(scene: Scene) -> tuple[float, float, float]:
    """Return the distance between neighbouring voxels along Z, Y, X of a scene's volume."""
    z, y, x = (mm / count for mm, count in zip(scene.extent_mm_ZYX, SHAPE_ZYX, strict=True))
    return z, y, x


def scan_box(scene: Scene) -> tuple[slice, slice, slice]:
    """Return the box of a scene's volume that is scan, not padding."""
    box = [slice(0, count) for count in SHAPE_ZYX]
    for axis, side, end_mm in scene.padding:
        count = SHAPE_ZYX[axis]
        end = count // 2 + round(end_mm / spacing_mm(scene)[axis])
        box[axis] = slice(0, end + 1) if side > 0 else slice(end, count)
    return box[0], box[1], box[2]


@cache
def volume_of_interest(scene: Scene) -> NDArray[np.int16]:
    """Return a scene as CT, `SHAPE_ZYX`, in HU; the same each time."""
    rng = np.random.default_rng(SCENES.index(scene))
    z, y, x = _coordinates_mm(scene)
    hu = np.full(SHAPE_ZYX, scene.tissue_hu, np.float32)
    hu += 12.0 * np.sin(z / 17.0 + y / 23.0) * np.sin(x / 19.0 + 1.0)
    for _ in range(5):
        y_mm, x_mm, bend_mm, radius_mm = rng.uniform((-60, -60, 8, 2), (20, 60, 20, 4))
        off_y, off_x = y - y_mm - bend_mm * np.sin(z / 25.0), x - x_mm - bend_mm * np.cos(z / 31.0)
        hu[off_y**2 + off_x**2 < radius_mm**2] = scene.vessel_hu
    hu[np.broadcast_to(y > 40.0 + 4.0 * np.sin(x / 21.0) + 3.0 * np.sin(z / 15.0), SHAPE_ZYX)] = (
        scene.wall_hu
    )
    for centre_mm, scale in (((24.0, -26.0, 38.0), 1.5), ((0.0, 0.0, 0.0), 1.0)):
        hu[_ellipsoid(scene, centre_mm, scale)] = scene.lesion_hu
    noise = rng.standard_normal(SHAPE_ZYX, dtype=np.float32)
    hu = np.rint(hu / _NOISE_HU + noise) * _NOISE_HU
    return _padded(scene, hu.astype(np.int16))


def _coordinates_mm(scene: Scene) -> tuple[NDArray[np.float32], ...]:
    """Return the distances from the central voxel along each axis, to be broadcast."""
    axes = [
        ((np.arange(count) - count // 2) * mm).astype(np.float32)
        for count, mm in zip(SHAPE_ZYX, spacing_mm(scene), strict=True)
    ]
    return np.ix_(*axes)


def _ellipsoid(
    scene: Scene, centre_mm: tuple[float, float, float], scale: float
) -> NDArray[np.bool_]:
    parts = zip(_coordinates_mm(scene), centre_mm, scene.radii_mm_ZYX, strict=True)
    z, y, x = (((axis - middle) / (scale * radius)) ** 2 for axis, middle, radius in parts)
    return np.asarray(z + y + x <= 1.0)


def _padded(scene: Scene, hu_ZYX: NDArray[np.int16]) -> NDArray[np.int16]:
    box = scan_box(scene)
    padded = np.full(SHAPE_ZYX, hu_ZYX[box].min() - scene.below, np.int16)
    padded[box] = hu_ZYX[box]
    return padded


def write_stack(
    folder: Path,
    scenes: Sequence[Scene],
    *,
    dtype: str = "int16",
    compressed: bool = True,
    spacings: int | None = None,
) -> None:
    """Write a stack and its spacings.

    Equal scenes are compressed once, so a hundred volumes take seconds, and some 3 MB each.

    Args:
        folder: of the inputs.
        scenes: of its volumes, from the first slice on.
        dtype: of the voxels: int16, int32 or float32.
        compressed: whether they are one zlib stream.
        spacings: how many stand in the JSON; as many as volumes where None.
    """
    path = folder / IMAGES / NAME
    path.parent.mkdir(parents=True)
    parts = {scene: _part(scene, dtype, compressed=compressed) for scene in dict.fromkeys(scenes)}
    ends = (b"", b"")
    if compressed:
        ends = b"\x78\x01", b"\x03\x00" + struct.pack(">I", _checksum(scenes, dtype))
    size = sum(map(len, ends)) + sum(len(parts[scene]) for scene in scenes)
    z, y, x = SHAPE_ZYX
    header = _HEADER.format(
        compressed=compressed,
        size=f"CompressedDataSize = {size}\n" if compressed else "",
        x=x,
        y=y,
        z=z * len(scenes),
        element=_ELEMENTS[dtype],
    )
    with path.open("wb") as stream:
        stream.writelines((header.encode(), ends[0], *(parts[each] for each in scenes), ends[1]))
    listed = [list(spacing_mm(scene)[::-1]) for scene in scenes]
    count = len(listed) if spacings is None else spacings
    (folder / SPACINGS).write_text(json.dumps((listed + listed)[:count]))
    write_inputs_json(folder)


def _part(scene: Scene, dtype: str, *, compressed: bool) -> bytes:
    """Return a volume's bytes; compressed ones can follow each other (RFC 1951, section 3.2)."""
    content = _content(scene, dtype)
    if not compressed:
        return content
    from isal import isal_zlib

    deflate: Any = isal_zlib.compressobj(level=2, wbits=_RAW_DEFLATE)
    return bytes(deflate.compress(content) + deflate.flush(isal_zlib.Z_FULL_FLUSH))


def _content(scene: Scene, dtype: str) -> bytes:
    return volume_of_interest(scene).astype(np.dtype(dtype).newbyteorder("<")).tobytes()


def _checksum(scenes: Sequence[Scene], dtype: str) -> int:
    """Return the Adler-32 of all voxels (RFC 1950, section 8.2)."""
    contents = {scene: _content(scene, dtype) for scene in dict.fromkeys(scenes)}
    checksum = 1
    for scene in scenes:
        checksum = zlib.adler32(contents[scene], checksum)
    return checksum
