"""Lesions of random shape and uptake, added to real PETs where there is little uptake.

The real body shows what is not a lesion; beside it a network sees what a lesion is.
"""

import numpy as np
from numpy.typing import NDArray

from flarekit.synthesis.shapes import BlobLook, Spacing, blob_depth, smooth_noise

_QUIET_SUV, _BODY_SUV = 2.0, 0.25  # lesions begin in voxels in between
_NEAR_UPTAKE_SUV = 3.5
_LEAST_VOXELS = 6
_TRIES = 6

Field = NDArray[np.float32]


def add_pet_lesions(
    suv_ZYX: Field,
    lesions_ZYX: NDArray[np.uint8],
    spacing_mm: Spacing,
    count: int,
    rng: np.random.Generator,
) -> None:
    """Add so many lesions to a PET and to the map of its lesions (1 in those there are), in place.

    None overlaps other uptake, nor another lesion; where no place is found, there are fewer.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(suv_ZYX, [6.0 / mm for mm in spacing_mm])
    quiet = np.flatnonzero((smooth > _BODY_SUV) & (smooth < _QUIET_SUV))
    hot = (suv_ZYX > _NEAR_UPTAKE_SUV) | (lesions_ZYX > 0)
    placed = 0
    for _ in range(_TRIES * count):
        if placed == count or not len(quiet):
            return
        voxel = np.unravel_index(int(quiet[rng.integers(len(quiet))]), suv_ZYX.shape)
        placed += _placed(suv_ZYX, lesions_ZYX, hot, [int(n) for n in voxel], spacing_mm, rng)


def _placed(
    suv: Field,
    lesions: NDArray[np.uint8],
    hot: NDArray[np.bool_],
    centre: list[int],
    spacing_mm: Spacing,
    rng: np.random.Generator,
) -> bool:
    """Put one lesion around a voxel, unless it would reach other uptake or not stand out."""
    from scipy.ndimage import gaussian_filter

    diameter = float(np.clip(rng.lognormal(np.log(24), 0.6), 8, 120))
    width_mm = float(rng.uniform(3.5, 8.5)) / 2.355
    box = tuple(
        slice(max(0, int(c - (diameter + 12) / mm)), int(c + (diameter + 12) / mm) + 1)
        for c, mm in zip(centre, spacing_mm, strict=True)
    )
    shape = suv[box].shape
    local = [c - side.start for c, side in zip(centre, box, strict=True)]
    look = BlobLook(
        diameter_mm=diameter,
        elongation=float(rng.uniform(0.05, 0.35)),
        lobes=float(rng.uniform(0.1, 0.5)),
    )
    depth = blob_depth(shape, spacing_mm, local, look, rng)
    mask = (depth > 0) & (suv[box] > _BODY_SUV)
    if mask.sum() < _LEAST_VOXELS or (hot[box] & (depth > -10)).any():
        return False
    around = float(np.percentile(suv[box][(depth < 0) & (depth > -12)], 80))
    peak = float(np.clip(rng.lognormal(np.log(6), 0.5), 2.2, 30))
    if peak < 2 * around:
        return False
    clumps = smooth_noise(shape, spacing_mm, 0.18 * diameter + 2, rng)
    activity = peak * np.clip(0.8 + float(rng.uniform(0.05, 0.3)) * clumps, 0.3, 1.3)
    if diameter > 30 and rng.random() < 0.4:  # necrosis
        dead = depth > float(rng.uniform(0.15, 0.3)) * diameter + 2 * clumps
        activity = np.where(dead, float(rng.uniform(0.5, 1.2)), activity)
    added = np.where(mask, activity - suv[box], 0).astype(np.float32)
    suv[box] = np.maximum(
        suv[box] + gaussian_filter(added, [width_mm / mm for mm in spacing_mm]), 0
    )
    lesions[box][mask] = 1
    hot[box] |= mask
    return True
