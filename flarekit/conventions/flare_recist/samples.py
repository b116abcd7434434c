"""CTs with a line across each lesion, as the evaluator hands them over, and as they may come."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

SPACING_MM_XYZ = (1.5, 1.5, 3.0)
SHAPE_ZYX = (32, 96, 112)
USUAL, ODD, DAMAGED, PICKLED = "phantom", "several", "damaged", "pickled"
ODD_NAMES = ("with space", "a.b.c", "UPPER-case_1")
OTHER_FILES = ("notes.txt", ".hidden.npz", "case.nii.gz")
MARK = "unpickled"
_LOW_HU, _HIGH_HU = -160.0, 240.0
_AIR_HU, _FAT_HU, _TISSUE_HU = -1000.0, -100.0, 55.0


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """An ellipsoid and the line across it.

    Attributes:
        centre_ZYX: voxel in its middle.
        radii_ZYX: in voxels.
        hu: of the lesion.
        line: row and column of both ends on the central slice; along X through the middle if None.
    """

    centre_ZYX: tuple[int, int, int]
    radii_ZYX: tuple[float, float, float]
    hu: float = 140.0
    line: tuple[tuple[int, int], tuple[int, int]] | None = None

    def ends(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the ends of the line, (row, column) each."""
        if self.line is not None:
            return self.line
        _, row, column = self.centre_ZYX
        half = int(self.radii_ZYX[2])
        return (row, column - half), (row, column + half)


ONE = (Lesion(centre_ZYX=(15, 48, 40), radii_ZYX=(4.0, 7.0, 9.0)),)
MANY = (
    *ONE,
    Lesion(centre_ZYX=(14, 50, 76), radii_ZYX=(3.0, 6.0, 8.0), hu=-10.0),
    Lesion(centre_ZYX=(20, 34, 60), radii_ZYX=(2.0, 4.0, 4.0), line=((34, 60), (34, 60))),
    Lesion(centre_ZYX=(9, 40, 50), radii_ZYX=(2.0, 5.0, 5.0), line=((40, 45), (40, 50))),
    Lesion(centre_ZYX=(9, 40, 56), radii_ZYX=(2.0, 5.0, 5.0), line=((40, 51), (40, 61))),
    Lesion(centre_ZYX=(0, 60, 50), radii_ZYX=(3.0, 5.0, 6.0)),
    Lesion(centre_ZYX=(26, 0, 56), radii_ZYX=(3.0, 6.0, 9.0), line=((0, 47), (0, 65))),
)


def usual(folder: Path) -> None:
    """Write one CT with one lesion."""
    _save(folder / f"{USUAL}.npz", arrays(ONE))


def odd_lesions(folder: Path) -> None:
    """Write a CT with lines that are one pixel, touch each other, or lie on the edge."""
    _save(folder / f"{ODD}.npz", arrays(MANY))


def no_lesion(folder: Path) -> None:
    """Write a CT without any line."""
    _save(folder / f"{USUAL}.npz", arrays(()))


def odd_names(folder: Path) -> None:
    """Write several CTs with names that are legal but rare, and files that are not inputs."""
    for name in ODD_NAMES:
        _save(folder / f"{name}.npz", arrays(ONE))
    for name in OTHER_FILES:
        (folder / name).write_text("{}")


def ways_to_store(folder: Path) -> None:
    """Write the usual CT as other programs store it; each file is named after what is other."""
    content = arrays(ONE)
    geometry = {"direction": np.eye(3).ravel(), "origin": np.array([-80.0, -60.0, 12.5])}
    _save(folder / "not_compressed.npz", content, compressed=False)
    _save(folder / "with_geometry.npz", {**content, **geometry})
    for kind in (np.int16, np.int64, np.float32):
        lines = content["recist"].astype(kind)
        _save(folder / f"lines_{np.dtype(kind).name}.npz", {**content, "recist": lines})
    columns = {name: np.asfortranarray(array) for name, array in content.items()}
    _save(folder / "columns_first.npz", columns)
    _save(folder / "version_2.npz", content, version=(2, 0))


def damaged(folder: Path) -> None:
    """Write a file that ends too early beside a good one."""
    usual(folder)
    content = (folder / f"{USUAL}.npz").read_bytes()
    (folder / f"{DAMAGED}.npz").write_bytes(content[: len(content) // 2])


def pickled(folder: Path, target: str) -> None:
    """Write a file whose spacing, once unpickled, would make a folder beside the masks."""
    content: dict[str, NDArray[Any]] = {**arrays(ONE)}
    content["spacing"] = np.array([_Trap(f"{target}/{MARK}"), 0, 0], dtype=object)
    _save(folder / f"{PICKLED}.npz", content)


def nothing(folder: Path) -> None:
    """Leave a folder without any CT."""
    (folder / "notes.txt").write_text("no scan here")


def arrays(lesions: Sequence[Lesion]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a CT with these lesions, numbered from 1."""
    z, y, x = np.ogrid[tuple(slice(0, n) for n in SHAPE_ZYX)]
    depth, height, width = SHAPE_ZYX
    hu = np.full(SHAPE_ZYX, _AIR_HU, np.float32)
    middle_y, middle_x = height / 2, width / 2
    out = ((y - middle_y) / (0.52 * height)) ** 2 + ((x - middle_x) / (0.46 * width)) ** 2
    hu[np.broadcast_to(out <= 1.0, SHAPE_ZYX)] = _FAT_HU
    hu[np.broadcast_to(out <= 0.8, SHAPE_ZYX)] = _TISSUE_HU
    hu += 8.0 * np.sin(z / 7.0 + y / 9.0) * np.sin(x / 8.0)
    recist = np.zeros(SHAPE_ZYX, np.uint8)
    for value, lesion in enumerate(lesions, 1):
        parts = zip((z, y, x), lesion.centre_ZYX, lesion.radii_ZYX, strict=True)
        inside = sum(((axis - at) / radius) ** 2 for axis, at, radius in parts) <= 1.0
        hu[inside] = lesion.hu
        (row, first), (_, last) = lesion.ends()
        recist[lesion.centre_ZYX[0], row, first : last + 1] = value
    hu += np.random.default_rng(3).normal(0.0, 9.0, SHAPE_ZYX).astype(np.float32)
    bytes_ = np.rint((np.clip(hu, _LOW_HU, _HIGH_HU) - _LOW_HU) / (_HIGH_HU - _LOW_HU) * 255)
    return {"imgs": bytes_.astype(np.uint8), "recist": recist, "spacing": np.array(SPACING_MM_XYZ)}


class _Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what unpickling calls."""
        import os

        return os.mkdir, (self._path,)


def _save(
    path: Path,
    content: Mapping[str, NDArray[Any]],
    *,
    compressed: bool = True,
    version: tuple[int, int] | None = None,
) -> None:
    """Write arrays as `numpy.savez` does, in a version of NumPy's format."""
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in content.items():
            with archive.open(f"{name}.npy", "w") as member:
                npy.write_array(member, array, version, allow_pickle=True)
