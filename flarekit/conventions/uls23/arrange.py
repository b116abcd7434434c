"""Volumes of interest laid out for ULS23: one stack, and the spacings of its parts in JSON."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flarekit.conventions._arranging import Grid, Placed, ScanToPlace
from flarekit.conventions._platform_images import write_json
from flarekit.conventions.uls23 import SHAPE_ZYX
from flarekit.core.errors import InputError
from flarekit.core.files import make_folder
from flarekit.core.scan_files import write_scan
from flarekit.core.volume import Geometry, Volume

CHANNELS = ("CT",)
_STACK = "stack"


def arrange(scans: Sequence[ScanToPlace], folder: Path) -> list[Placed]:
    """Stack volumes of interest along Z, in the order of their names, all of them in one job.

    Raises:
        InputError: a scan cannot be read, or is not a volume of interest of ULS23's size.
        OutputError: the stack cannot be written.
    """
    parts, spacings, placed = [], [], []
    deep, high, wide = SHAPE_ZYX
    for index, scan in enumerate(scans):
        (volume,) = scan.read()
        shape = volume.voxels_ZYX.shape
        if shape != SHAPE_ZYX:
            z, y, x = shape
            raise InputError(
                f"{volume.path}: has {x} x {y} x {z} voxels (x, y, z); a volume of interest has "
                f"{wide} x {high} x {deep}, with the lesion in its middle",
                fix="cut such a volume out of the scan around each lesion",
            )
        parts.append(_in_int16(volume))
        spacings.append([round(mm, 6) for mm in volume.geometry.spacing_mm_ZYX[::-1]])
        stacked = {
            "mask": scan.mask.as_posix(),
            "stem": _STACK,
            "first_slice": index * deep,
            "shape_ZYX": SHAPE_ZYX,
            "affine": volume.geometry.affine.tolist(),
        }
        placed.append(Placed.model_validate(stacked))
    images = folder / "images" / "stacked-3d-ct-lesion-volumes"
    make_folder(images)
    voxels = np.concatenate(parts)
    geometry = Geometry(
        shape_ZYX=(len(voxels), high, wide), affine=np.diag([-1.0, -1.0, 1.0, 1.0]), header=None
    )
    stack = images / f"{_STACK}.mha"
    write_scan(stack, Volume(voxels_ZYX=voxels, geometry=geometry, path=stack))
    write_json(folder / "stacked-3d-volumetric-spacings.json", spacings)
    grid = Grid.of_file(stack)
    return [each.model_copy(update={"grid": grid}) for each in placed]


def _in_int16(volume: Volume) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Return HU as ULS23 stores them: whole numbers."""
    bounds = np.iinfo(np.int16)
    return np.clip(np.rint(volume.voxels_ZYX), bounds.min, bounds.max).astype(np.int16)
