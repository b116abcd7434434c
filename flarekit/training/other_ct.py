"""PET/CTs whose CT is not what it should be: absent, beside the PET, or too short.

A network that was shown only good CTs leans on them. Where a patient's CT is missing, organisers
and hospitals put other things in its place: air, or one value inside the PET's outline.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.channels import Window
from flarekit.training.augment import ct_window
from flarekit.training.recipe import Recipe
from flarekit.training.tables import OtherCtFacts
from flarekit.training.training_case import TrainingCase

_AIR_HU = -1000.0
_OUTLINE_SUV = (0.08, 0.25)  # the body begins at a value in between
_FLAT_HU = (-60.0, 80.0)
_SMOOTH_MM = 6.0

Image = NDArray[np.floating[Any]]


def with_other_ct(
    case: TrainingCase, recipe: Recipe, rng: np.random.Generator, *, has_ct: bool = True
) -> TrainingCase:
    """Return a case with another CT, as often as the recipe says; with its own otherwise.

    Args:
        case: channels CT and PET.
        recipe: `training.other_ct`, and the windows of the channels.
        rng: what decides.
        has_ct: whether there is one; it becomes flat, or stays air, where there is none.
    """
    facts = recipe.training.other_ct or OtherCtFacts()
    window, pet = (ct_window(channel) for channel in recipe.spec.channels)
    ct = case.image_CZYX[0].astype(np.float32)
    air = _normalised(_AIR_HU, window)
    if rng.random() < facts.flat or not has_ct:
        suv = case.image_CZYX[1].astype(np.float32) * pet.std + pet.mean
        inside = outline(suv, case.spacing_mm_ZYX, float(rng.uniform(*_OUTLINE_SUV)))
        ct = np.where(inside, _normalised(float(rng.uniform(*_FLAT_HU)), window), air)
    if rng.random() < facts.shifted:
        ct = _shifted(ct, case.spacing_mm_ZYX, facts.shift_mm, air, rng)
    if rng.random() < facts.partial:
        ct = _partial(ct, air, rng)
    image = case.image_CZYX.copy()
    image[0] = ct
    return replace(case, image_CZYX=image)


def outline(
    suv_ZYX: Image, spacing_mm: tuple[float, float, float], threshold: float
) -> NDArray[np.bool_]:
    """Return the inside of a body by its uptake: the largest part above an SUV, holes filled.

    What counts is the smoothed PET.
    """
    import cc3d
    from scipy.ndimage import binary_fill_holes, gaussian_filter

    smooth = gaussian_filter(suv_ZYX.astype(np.float32), [_SMOOTH_MM / mm for mm in spacing_mm])
    body = cc3d.largest_k(smooth > threshold, k=1, connectivity=6) > 0
    return np.stack([binary_fill_holes(slice_YX) for slice_YX in body])


def _normalised(hu: float, window: Window) -> np.float32:
    return np.float32((np.clip(hu, window.low_hu, window.high_hu) - window.mean) / window.std)


def _shifted(
    ct: Image,
    spacing_mm: tuple[float, float, float],
    shift_mm: float,
    air: np.float32,
    rng: np.random.Generator,
) -> Image:
    from scipy.ndimage import shift

    by = [float(rng.normal(0, shift_mm)) / mm for mm in spacing_mm]
    moved: Image = shift(ct, by, order=1, cval=float(air))
    return moved


def _partial(ct: Image, air: np.float32, rng: np.random.Generator) -> Image:
    """Leave a part of the slices, at either end or in the middle."""
    slices = len(ct)
    kept = max(1, round(slices * float(rng.uniform(0.2, 0.8))))
    first = int(rng.choice([0, slices - kept, int(rng.integers(0, slices - kept + 1))]))
    part = np.full_like(ct, air)
    part[first : first + kept] = ct[first : first + kept]
    return part
