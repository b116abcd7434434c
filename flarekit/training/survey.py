"""What label maps hold: which values, how many voxels of each, how large, on which grids."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.boxes import box_of
from flarekit.core.errors import InputError
from flarekit.core.nifti import read_nifti
from flarekit.core.volume import orientation_of

_HIGHEST = 255
Size = tuple[float, float, float]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """What the label map of one case holds.

    Attributes:
        path: of the file.
        shape_ZYX: voxels, in oriented axes.
        spacing_mm_ZYX: of the voxels, in oriented axes.
        voxels: value -> how many voxels have it; background left out.
        extents_mm: value -> size of the box around it, in oriented axes.
    """

    path: Path
    shape_ZYX: tuple[int, int, int]
    spacing_mm_ZYX: Size
    voxels: dict[int, int]
    extents_mm: dict[int, Size]


def survey(paths: Iterable[Path], progress: Progress = lambda *_: None) -> list[LabelMap]:
    """Read label maps, two at a time; progress is called with how many are read, of how many.

    Raises:
        InputError: a file cannot be read, or holds what is not a label value.
    """
    wanted, found = list(paths), list[LabelMap]()
    with ThreadPoolExecutor(max_workers=2) as threads:
        for each in threads.map(read_label_map, wanted):
            found.append(each)
            progress(len(found), len(wanted))
    return found


def read_label_map(path: Path) -> LabelMap:
    """Return what a label map holds.

    Raises:
        InputError: it cannot be read, or holds a value that is not a whole number from 0 to 255.
    """
    volume = read_nifti(path, air=math.nan)  # no label: refused
    labels = label_values(volume.voxels_ZYX, path)
    geometry = volume.geometry
    orientation = orientation_of(geometry.affine)
    oriented = orientation.apply(labels)
    spacing_mm = orientation.apply_to_axes(geometry.spacing_mm_ZYX)
    counts = np.bincount(labels.ravel(), minlength=_HIGHEST + 1)
    present = [int(value) for value in np.flatnonzero(counts) if value]
    z, y, x = oriented.shape
    return LabelMap(
        path=path,
        shape_ZYX=(z, y, x),
        spacing_mm_ZYX=spacing_mm,
        voxels={value: int(counts[value]) for value in present},
        extents_mm={value: _extent(oriented == value, spacing_mm) for value in present},
    )


def label_values(voxels_ZYX: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """Return voxels as label values.

    Raises:
        InputError: a voxel is not a whole number from 0 to 255.
    """
    with np.errstate(invalid="ignore"):
        labels = voxels_ZYX.astype(np.uint8)
    wrong = labels != voxels_ZYX
    if wrong.any():
        odd = voxels_ZYX[wrong].ravel()[0]
        raise InputError(
            f"{path}: holds {odd:g}, and labels are whole numbers from 0 to {_HIGHEST}",
            fix="export the label map again, with one whole number per label",
        )
    return labels


def _extent(mask_ZYX: NDArray[np.bool_], spacing_mm: Size) -> Size:
    box = box_of(mask_ZYX)
    assert box is not None
    z, y, x = (
        float((side.stop - side.start) * mm) for side, mm in zip(box, spacing_mm, strict=True)
    )
    return z, y, x
