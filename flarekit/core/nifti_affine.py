"""Where a NIfTI file lies: the affine that nibabel decides on, in mm, and what was odd about it."""

import logging
import math
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.volume import largest_shift_mm, shear_notes, spans_space

Header: TypeAlias = Any  # nibabel's Nifti1Header or Nifti2Header, which carry no types
_DISAGREEMENT_MM = 0.1
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # xyzt_units: metres and micrometres
# nibabel reports what it repairs in a header through a logger; the volume's warnings say it instead
MUTE = logging.Logger("nifti header", level=logging.CRITICAL)


def mm_per_unit(header: Header) -> float:
    """Return how many mm the unit of a header's lengths has; 1 where it names none."""
    return _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)


@np.errstate(all="ignore")  # what is not finite is found afterwards
def affine_of(
    path: Path, header: Header, shape_XYZ: tuple[int, int, int]
) -> tuple[NDArray[np.float64], list[str]]:
    """Return the affine nibabel decides on, in mm, and what was odd about it."""
    from nibabel.spatialimages import HeaderDataError

    repaired = header.copy()
    repaired.check_fix(logger=MUTE, error_level=100)
    try:
        affine = np.array(repaired.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise UnreadableVolumeError(
            path, f"its qform is damaged ({error})", fix="repair the header's sform or qform"
        ) from error
    if not spans_space(affine):
        raise UnreadableVolumeError(
            path,
            "its affine is singular or not finite",
            fix="repair the header's sform or qform",
        )
    notes = _repairs(header, repaired) + _disagreement(repaired, shape_XYZ)
    mm = mm_per_unit(header)
    if mm != 1.0:
        notes.append(f"its lengths are in units of {mm:g} mm and are converted")
        affine[:3] *= mm
    return affine, [*notes, *shear_notes(affine)]


def _repairs(header: Header, repaired: Header) -> list[str]:
    """Return what nibabel had to change in the header before it used it."""
    notes = []
    for field, where in (("pixdim", slice(1, 4)), ("sform_code", ()), ("qform_code", ())):
        stated, used = header[field][where].tolist(), repaired[field][where].tolist()
        if not np.array_equal(stated, used, equal_nan=True):
            notes.append(f"its {field} is not valid: {stated} is taken as {used}")
    return notes


def _disagreement(header: Header, shape_XYZ: tuple[int, int, int]) -> list[str]:
    from nibabel.spatialimages import HeaderDataError

    sform, qform_code = header.get_sform(coded=True)[0], int(header["qform_code"])
    if sform is None and qform_code == 0:
        return ["has neither sform nor qform: its array order is taken as it is"]
    if sform is None or qform_code == 0:
        return []
    try:
        gap_mm = largest_shift_mm(sform, header.get_qform(), shape_XYZ[::-1])
    except (HeaderDataError, ValueError) as error:
        return [f"its qform is damaged ({error}); the sform is used"]
    if not math.isfinite(gap_mm):
        return ["its qform is damaged (not finite); the sform is used"]
    if gap_mm <= _DISAGREEMENT_MM:
        return []
    return [f"sform and qform disagree (by up to {gap_mm:.3g} mm); the sform is used"]
