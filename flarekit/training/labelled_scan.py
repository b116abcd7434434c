"""Labelled scans' files as training reads them, and what their label maps hold.

What is odd is told or refused, never passed on. A channel gets the value of its own air where a
voxel is no number, as in prediction; a label that is no number is none, and is refused.
"""

import logging
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.boxes import box_of
from flarekit.core.channels import UPTAKE_NAMES, Channel
from flarekit.core.errors import InputError
from flarekit.core.nifti import AIR_HU, read_nifti
from flarekit.core.plausible import with_doubts
from flarekit.core.same_grid import grid_difference
from flarekit.core.volume import Geometry, Volume, orientation_of

_LOG = logging.getLogger(__name__)


def read_channel(path: Path, channel: Channel | str) -> Volume:
    """Read a channel of a scan; what is odd about it is told.

    Args:
        path: of a NIfTI file.
        channel: of the predictor, or its name where there is no predictor yet.

    Raises:
        InputError: it cannot be read, or is none of a scan.
    """
    name = channel if isinstance(channel, str) else channel.name
    by_name = 0.0 if name.upper() in UPTAKE_NAMES else AIR_HU
    air = by_name if isinstance(channel, str) else channel.air
    volume = with_doubts(read_nifti(path, air=air), name)
    for note in volume.warnings:
        _LOG.warning("%s: %s", path, note)
    return volume


def read_labels(path: Path, scan: Volume) -> tuple[NDArray[np.uint8], Geometry]:
    """Read the label map of a scan: its values, (Z, Y, X) as stored, and where they lie.

    Args:
        path: of a NIfTI file.
        scan: its first channel.

    Raises:
        InputError: it cannot be read, a voxel is not a whole number from 0 to 255, or it lies on
            another grid than the scan, by half a voxel or more.
    """
    stored = read_nifti(path, air=math.nan)
    most_mm = min(scan.geometry.spacing_mm_ZYX) / 2
    if difference := grid_difference(stored.geometry, scan.geometry, most_mm):
        raise InputError(
            f"{path}: lies on another grid than {scan.path}: {difference}",
            fix="resample the labels to the image",
        )
    return label_values(stored.voxels_ZYX, path), stored.geometry


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
