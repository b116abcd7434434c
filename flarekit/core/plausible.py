"""Numbers of a scan that cannot be, or hardly: refused or named, each by a limit of its own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.channels import UPTAKE_NAMES
from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.volume import Geometry, Volume

LARGEST_FIELD_MM = 5000.0  # of any scanner, along any axis: more is refused
WIDEST_FIELD_MM = 1000.0  # across the body
LONGEST_FIELD_MM = 2500.0  # along the body
SMALLEST_SPACING_MM, LARGEST_SPACING_MM = 1e-3, 1e3  # beyond is refused
SPACINGS_MM = (0.1, 20.0)  # of clinical scans
LARGEST_VALUE = 1e10  # of any scan in any unit (integers of 32 bits reach 4.3e9): more is refused
HIGHEST_HU = 32767.0  # what extended scales reach
AIR_BELOW_HU = -200.0
SOFT_TISSUE_HU = (-200.0, 300.0)
FEWEST_SOFT_TISSUE = 0.01  # of the voxels of a CT
BODY_AND_AIR_MM = 250.0  # a CT at least so wide shows air around or in the body
SOFT_TISSUE_MM = 80.0  # and one so wide, soft tissue; less may lie within a lung
HIGHEST_SUV = 1000.0
LOWEST_SUV = -10.0
LOWEST_PEAK_SUV = 0.5  # somewhere in a patient
_BYTES_WITHIN = 4  # of an integer that cannot be beyond the largest value
_SAMPLED = 1 << 21  # voxels that are looked at, where those tell enough


def is_spacing(mm: float) -> bool:
    """Return whether voxels of a scan can be so far apart, in mm; NaN and infinity are not."""
    return SMALLEST_SPACING_MM <= mm <= LARGEST_SPACING_MM


def with_doubts(volume: Volume, channel: str) -> Volume:
    """Return a scan with what is doubtful about its numbers among its warnings, each once.

    To be called before a scan is brought onto another grid, which hides what it was.

    Args:
        volume: the scan.
        channel: see `check_intensities`.

    Raises:
        UnreadableVolumeError: see `check_geometry`.
    """
    found = (*check_geometry(volume), *check_intensities(volume, channel))
    doubts = [doubt for doubt in found if doubt not in volume.warnings]
    return replace(volume, warnings=(*volume.warnings, *doubts)) if doubts else volume


def check_geometry(volume: Volume) -> tuple[str, ...]:
    """Return what is doubtful about the size of a scan and of its voxels.

    Raises:
        UnreadableVolumeError: no scanner makes such a size.
    """
    spacing_mm = volume.geometry.spacing_mm_ZYX
    right, anterior, superior = _field_mm(volume.geometry)
    fix = "correct its spacing, which may be in other units"
    if max(right, anterior, superior) > LARGEST_FIELD_MM:
        raise UnreadableVolumeError(
            volume.path,
            f"its field of view is {right:.4g} x {anterior:.4g} x {superior:.4g} mm (spacing "
            f"{_listed(spacing_mm)} mm), more than {LARGEST_FIELD_MM:g} mm",
            fix=fix,
        )
    if min(spacing_mm) < SMALLEST_SPACING_MM:
        raise UnreadableVolumeError(
            volume.path,
            f"its spacing is {_listed(spacing_mm)} mm, less than {SMALLEST_SPACING_MM:g} mm",
            fix=fix,
        )
    notes = []
    if max(right, anterior) > WIDEST_FIELD_MM or superior > LONGEST_FIELD_MM:
        notes.append(
            f"its field of view is {right:.4g} x {anterior:.4g} x {superior:.4g} mm, more than "
            f"{WIDEST_FIELD_MM:g} mm across or {LONGEST_FIELD_MM:g} mm along the body: its spacing "
            f"({_listed(spacing_mm)} mm) is suspect"
        )
    elif min(spacing_mm) < SPACINGS_MM[0] or max(spacing_mm) > SPACINGS_MM[1]:
        notes.append(
            f"its spacing ({_listed(spacing_mm)} mm) is suspect: not between {SPACINGS_MM[0]:g} "
            f"and {SPACINGS_MM[1]:g} mm"
        )
    return tuple(notes)


def check_range(volume: Volume) -> None:
    """Check that no voxel has a value that no scanner stores, in whatever unit.

    To be called where values are not clipped before something is computed from them: one such
    voxel drowns all others in a mean, and may overflow in a network.

    Raises:
        UnreadableVolumeError: some voxels are larger, or lower, than a scan can hold.
    """
    voxels = volume.voxels_ZYX
    if voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= _BYTES_WITHIN:
        return
    low, high = float(voxels.min()), float(voxels.max())
    if max(-low, high) <= LARGEST_VALUE:
        return
    count = sum(int((np.abs(each.astype(np.float64)) > LARGEST_VALUE).sum()) for each in voxels)
    raise UnreadableVolumeError(
        volume.path,
        f"its values reach {low:.4g} and {high:.4g}, beyond the {LARGEST_VALUE:g} that a CT, an MR "
        f"or a PET can hold ({count} of its {voxels.size} voxels)",
        fix="export it again; where few voxels are damaged, give them the value of air",
    )


def check_intensities(volume: Volume, channel: str) -> tuple[str, ...]:
    """Return what is doubtful about the values of a scan.

    Args:
        volume: the scan.
        channel: what it is to the predictor: a CT in HU, a PET in SUV, or anything else.
    """
    kind = channel.upper()
    if kind.endswith("CT"):
        note = _ct(volume) or _constant(volume)
    elif kind in UPTAKE_NAMES:
        note = _pet(volume)
    elif kind.startswith("MR"):
        note = _constant(volume)
    else:
        return ()
    return () if note is None else (note,)


def _ct(volume: Volume) -> str | None:
    voxels = volume.voxels_ZYX
    sample = _sample(voxels)
    low, high = float(sample.min()), float(sample.max())
    if low >= -1 and high <= 1:
        low, high = float(voxels.min()), float(voxels.max())
        if low >= -1 and high <= 1:
            return f"its values lie between {low:.3g} and {high:.3g}: a CT in HU has air at -1000"
    if max(-low, high) > HIGHEST_HU:
        return f"its values reach {low:.4g} and {high:.4g}, beyond {HIGHEST_HU:g}: is it in HU?"
    right, anterior, _ = _field_mm(volume.geometry)
    around = min(right, anterior) >= BODY_AND_AIR_MM
    if around and low >= AIR_BELOW_HU and float(voxels.min()) >= AIR_BELOW_HU:
        return (
            f"no voxel is below {AIR_BELOW_HU:g} HU (the lowest is {voxels.min():.5g}): a CT in HU "
            "has air around the body; is it clipped, or stored without its intercept?"
        )
    soft = float(np.mean((sample >= SOFT_TISSUE_HU[0]) & (sample <= SOFT_TISSUE_HU[1])))
    if soft < FEWEST_SOFT_TISSUE and min(right, anterior) >= SOFT_TISSUE_MM:
        return (
            f"{soft:.2g} of its voxels lie between {SOFT_TISSUE_HU[0]:g} and {SOFT_TISSUE_HU[1]:g} "
            f"HU, less than {FEWEST_SOFT_TISSUE:g}: a CT in HU has soft tissue there"
        )
    return None


def _constant(volume: Volume) -> str | None:
    low, high = float(volume.voxels_ZYX.min()), float(volume.voxels_ZYX.max())
    return f"all its voxels have one value ({low:g}): it shows nothing" if low == high else None


def _pet(volume: Volume) -> str | None:
    low, peak = float(volume.voxels_ZYX.min()), float(volume.voxels_ZYX.max())
    if low < LOWEST_SUV:
        return f"its values reach {low:.5g}, below an SUV of {LOWEST_SUV:g}: is it a PET?"
    if peak > HIGHEST_SUV:
        return f"its values reach {peak:.5g}, beyond an SUV of {HIGHEST_SUV:g}: is it in Bq/ml?"
    if peak < LOWEST_PEAK_SUV:
        return f"its values reach {peak:.3g}, below an SUV of {LOWEST_PEAK_SUV:g}: is it in SUV?"
    return None


def _sample(voxels_ZYX: NDArray[Any]) -> NDArray[Any]:
    """Return every so many slices, rows and columns."""
    step = max(1, int(np.ceil((voxels_ZYX.size / _SAMPLED) ** (1 / 3))))
    return voxels_ZYX[::step, ::step, ::step]


def _field_mm(geometry: Geometry) -> tuple[float, float, float]:
    """Return how far the scan reaches towards right, anterior and superior."""
    box = np.abs(geometry.affine[:3, :3]) @ np.array(geometry.shape_ZYX[::-1], float)
    return float(box[0]), float(box[1]), float(box[2])


def _listed(spacing_mm_ZYX: Sequence[float]) -> str:
    return " x ".join(f"{mm:.4g}" for mm in reversed(spacing_mm_ZYX))
