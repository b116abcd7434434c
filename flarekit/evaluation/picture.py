"""A picture of one scored case: truth, prediction and where they differ, in three planes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.volume import orientation_of
from flarekit.evaluation.masks import SUFFIXES, Mask, read_volume
from flarekit.report.picture import (
    WINDOW_HU,
    add_legend,
    fullest_slice,
    painted,
    save_figure,
    shades_of,
    show_slice,
)

_AIR_HU = -300.0  # a scan that goes below is taken for a CT
_ONLY_TRUE, _ONLY_PREDICTED, _AGREED = (0.2, 0.5, 1.0), (1.0, 0.3, 0.2), (0.3, 0.85, 0.35)
_DIFFERENCES = {1: _AGREED, 2: _ONLY_TRUE, 3: _ONLY_PREDICTED}
_PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where pictures go, and where their scans are.

    Attributes:
        folder: gets `CASE.png`.
        scans: holds `CASE_0000` or `CASE` with any ending of a volume; None draws masks on black.
    """

    folder: Path
    scans: Path | None = None


def draw_case(
    pictures: Pictures,
    case_id: str,
    truth: Mask,
    predicted: Mask | None,
    labels: Mapping[str, int],
) -> list[str]:
    """Draw a case as a PNG and return what could not be shown.

    Planes go through the axial, coronal and sagittal slice with most of the truth (of the
    prediction, where that is empty); the patient's right is on the left.

    Raises:
        OutputError: it could not be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    scan_ZYX, notes = _scan(pictures, case_id, truth)
    missing = np.zeros_like(truth.values_ZYX)
    shown = [truth.values_ZYX, missing if predicted is None else predicted.values_ZYX]
    shown = [np.where(np.isin(mask, list(labels.values())), mask, 0) for mask in shown]
    orientation = orientation_of(truth.geometry.affine)
    scan = orientation.apply(scan_ZYX)
    true, found = (orientation.apply(mask) for mask in shown)
    spacing_mm = orientation.apply_to_axes(truth.geometry.spacing_mm_ZYX)
    figure = Figure(figsize=(12, 11), dpi=100, facecolor="black", layout="constrained")
    figure.suptitle(f"{case_id}: truth, prediction, difference", color="white", fontsize=11)
    grid = figure.subplots(3, 3, squeeze=False)
    for axis, plane in enumerate(_PLANES):
        index = fullest_slice(true if true.any() else found, axis)
        grey, one, other = (each.take(index, axis) for each in (scan, true, found))
        images = (
            painted(grey, one, shades_of(labels)),
            painted(grey, other, shades_of(labels)),
            painted(grey, _difference(one, other), _DIFFERENCES),
        )
        for place, image in enumerate(images):
            show_slice(grid[place, axis], image, axis, spacing_mm)
        grid[0, axis].set_title(plane, color="white", fontsize=10)
    present = {int(value) for mask in (true, found) for value in np.unique(mask)}
    handles = [
        Patch(color=shades_of(labels)[value], label=name.replace("_", " "))
        for name, value in labels.items()
        if value in present
    ]
    handles += [
        Patch(color=_AGREED, label="both"),
        Patch(color=_ONLY_TRUE, label="truth only, or labels differ"),
        Patch(color=_ONLY_PREDICTED, label="prediction only"),
    ]
    add_legend(figure, handles)
    save_figure(figure, pictures.folder / f"{case_id}.png")
    return notes


def _scan(pictures: Pictures, case_id: str, truth: Mask) -> tuple[NDArray[np.float32], list[str]]:
    """Return the scan as shades from 0 to 1, black where there is none, and why there is none."""
    black = np.zeros(truth.values_ZYX.shape, np.float32)
    if pictures.scans is None:
        return black, []
    names = [f"{case_id}{channel}{suffix}" for channel in ("_0000", "") for suffix in SUFFIXES]
    found = [pictures.scans / name for name in names if (pictures.scans / name).is_file()]
    if not found:
        return black, [f"picture: no scan {names[0]} in {pictures.scans}"]
    try:
        voxels_ZYX = read_volume(found[0])[0].voxels_ZYX.astype(np.float32)
    except UnreadableVolumeError as error:
        return black, [f"picture: {error.message}"]
    if voxels_ZYX.shape != black.shape:
        return black, [f"picture: {found[0]} is not on the truth's grid"]
    low, high = (
        WINDOW_HU
        if voxels_ZYX.min() < _AIR_HU
        else (float(voxels_ZYX.min()), float(np.percentile(voxels_ZYX, 99.5)))
    )
    return np.clip((voxels_ZYX - low) / max(high - low, 1e-6), 0, 1), []


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 where both have the same label, 2 where only the first has one, 3 otherwise."""
    difference = np.zeros(one.shape, np.uint8)
    difference[(one == other) & (one > 0)] = 1
    difference[(one > 0) & (one != other)] = 2
    difference[(other > 0) & (one == 0)] = 3
    return difference
