"""Where the slices of one volume lie: on one line, evenly, with one size of pixels, or refused."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.dicom.slices import Slice
from flarekit.core.errors import InputError
from flarekit.core.volume import shear_notes

FEWEST_SLICES = 3  # fewer are scouts and key images
_UNEVEN = 0.1  # of the distance between slices, from one to the next
_DRIFT = 0.5  # of the distance between slices, over the whole volume
_ROUNDING_MM = 0.01
_ROUNDED_DIRECTION = 1e-4
_SIDEWAYS = 0.25  # of a pixel, from one slice to the next
_BENT = 1.0  # pixels, over the whole volume
_SAME_SPACING = 1e-3  # relative: half a pixel at the border of a CT
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def one_position(slices: Sequence[Slice]) -> bool:
    """Return whether some slices lie at one position."""
    if len(slices) < 2:
        return False
    gaps = np.diff(np.sort(_heights(slices)))
    usual = float(np.median(gaps))
    return bool(gaps.min() < max(_UNEVEN * usual, 1e-4))


def affine_of(
    slices: Sequence[Slice], name: str
) -> tuple[list[Slice], NDArray[np.float64], tuple[str, ...]]:
    """Return slices in their order, their affine, and what was odd.

    Args:
        slices: of one direction and one number of pixels.
        name: of the series, for messages.

    Returns:
        Slices along Z; (4, 4) float64, stored index (i, j, k, 1) -> mm, RAS+; notes.

    Raises:
        InputError: they are too few, or no even stack.
    """
    where = f"{slices[0].path.parent}: series {name}"
    if len(slices) < FEWEST_SLICES:
        rows, columns = slices[0].shape_YX
        raise InputError(
            f"{where} has {len(slices)} slices of Rows x Columns {rows} x {columns}, "
            f"at least {FEWEST_SLICES} are needed",
            fix="export the whole series",
        )
    heights = _heights(slices)
    order = np.argsort(heights, kind="stable")
    ordered = [slices[k] for k in order]
    _check_heights(heights[order], where)
    positions = np.array([each.position_mm for each in ordered])
    spacing = _spacing(ordered, where)
    _check_line(positions, _normal(slices), min(spacing), ordered, where)
    row, column = _directions(slices)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * spacing[1], column * spacing[0]  # between columns, between rows
    lps[:3, 2] = (positions[-1] - positions[0]) / (len(ordered) - 1)
    lps[:3, 3] = positions[0]
    spread = float(np.ptp([each.directions for each in slices], axis=0).max())
    notes = (
        (f"its directions differ by up to {spread:.1g} from slice to slice: their mean is taken",)
        if spread > _ROUNDED_DIRECTION
        else ()
    )
    affine: NDArray[np.float64] = _LPS_TO_RAS @ lps
    return ordered, affine, (*notes, *shear_notes(affine))


def _directions(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """Return the mean of what the slices state, (2, 3), as unit vectors at right angles."""
    stated = np.array([each.directions for each in slices])
    if (stated == stated[0]).all():
        same: NDArray[np.float64] = stated[0]
        return same
    row, column = stated.mean(axis=0)
    row /= np.linalg.norm(row)
    column /= np.linalg.norm(column)
    return np.array([row, column])


def _normal(slices: Sequence[Slice]) -> NDArray[np.float64]:
    row, column = _directions(slices)
    normal: NDArray[np.float64] = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def _heights(slices: Sequence[Slice]) -> NDArray[np.float64]:
    positions = np.array([each.position_mm for each in slices])
    heights: NDArray[np.float64] = positions @ _normal(slices)
    return heights


def _check_heights(heights: NDArray[np.float64], where: str) -> None:
    gaps_mm = np.diff(heights)
    usual_mm = float(np.median(gaps_mm))
    if gaps_mm.min() < max(_UNEVEN * usual_mm, 1e-4):
        raise InputError(
            f"{where} has several slices at one position",
            fix="export one phase or reconstruction by itself",
        )
    odd = np.abs(gaps_mm - usual_mm) > max(_UNEVEN * usual_mm, _ROUNDING_MM)
    if odd.any():
        raise InputError(
            f"{where} lacks slices: {int(odd.sum())} gaps are not {usual_mm:.3g} mm "
            f"(up to {gaps_mm.max():.3g} mm)",
            fix="export the whole series again",
        )
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() > max(_DRIFT * usual_mm, _ROUNDING_MM):
        raise InputError(
            f"{where} changes the distance between its slices, from {gaps_mm.min():.3g} to "
            f"{gaps_mm.max():.3g} mm",
            fix="export the parts by themselves, or resample them elsewhere",
        )


def _spacing(slices: Sequence[Slice], where: str) -> tuple[float, float]:
    stated = np.array([each.spacing_mm for each in slices])
    first = slices[0].spacing_mm
    off = np.abs(stated / first - 1).max(axis=1)
    if off.max() > _SAME_SPACING:
        odd = slices[int(off.argmax())]
        raise InputError(
            f"{where} changes its PixelSpacing: {first[0]:.4g} x {first[1]:.4g} mm in "
            f"{slices[0].path.name}, {odd.spacing_mm[0]:.4g} x {odd.spacing_mm[1]:.4g} mm in "
            f"{odd.path.name}",
            fix="export each reconstruction by itself",
        )
    return first


def _check_line(
    positions: NDArray[np.float64],
    normal: NDArray[np.float64],
    pixel_mm: float,
    slices: Sequence[Slice],
    where: str,
) -> None:
    """Refuse slices that jump sideways; those of a tilted gantry move by the same step each."""
    sideways = positions - np.outer(positions @ normal, normal)
    steps = np.diff(sideways, axis=0)
    jumps = np.linalg.norm(steps - np.median(steps, axis=0), axis=1)
    share = np.linspace(0, 1, len(positions))[:, None]
    bent = np.linalg.norm(sideways - (sideways[0] + share * (sideways[-1] - sideways[0])), axis=1)
    for off_mm, most_mm in ((jumps, _SIDEWAYS * pixel_mm), (bent, _BENT * pixel_mm)):
        if off_mm.max() > max(most_mm, _ROUNDING_MM):
            at = slices[min(int(off_mm.argmax()) + (off_mm is jumps), len(slices) - 1)]
            raise InputError(
                f"{where} jumps sideways by {off_mm.max():.3g} mm at {at.path.name} "
                "(ImagePositionPatient)",
                fix="export the series again, or its parts by themselves",
            )
