"""Volumetric and surface Dice of one label, as FLARE's evaluation scripts compute them."""

import math

import numpy as np
from numpy.typing import NDArray

from flarekit.evaluation.confusion import confusion
from flarekit.evaluation.surface import surface_distances


def dsc_and_nsd(
    truth_ZYX: NDArray[np.bool_],
    predicted_ZYX: NDArray[np.bool_],
    spacing_mm_XYZ: NDArray[np.float64],
    tolerance_mm: float,
    least_dsc: float,
    *,
    on_true_slices: bool = False,
) -> tuple[float, float]:
    """Return Dice (`dsc`) and surface Dice (`nsd`): both 1 where both are empty, 0 where one is.

    NaN where the truth has but one slice and slices are left out.

    Args:
        truth_ZYX: bool.
        predicted_ZYX: bool, of the same shape.
        spacing_mm_XYZ: of the voxels.
        tolerance_mm: up to which surfaces agree.
        least_dsc: below it the surfaces are not compared, and `nsd` is 0.
        on_true_slices: whether only the truth's slices count, of which the last is left out.
    """
    in_truth, in_predicted = bool(truth_ZYX.any()), bool(predicted_ZYX.any())
    if not in_truth and not in_predicted:
        return 1.0, 1.0
    if not in_truth or not in_predicted:
        return 0.0, 0.0
    if on_true_slices:
        slices = np.flatnonzero(truth_ZYX.any(axis=(1, 2)))
        extent = slice(int(slices[0]), int(slices[-1]))
        truth_ZYX, predicted_ZYX = truth_ZYX[extent], predicted_ZYX[extent]
    dsc = confusion(truth_ZYX, predicted_ZYX).dice
    if math.isnan(dsc):
        return math.nan, math.nan
    if dsc < least_dsc or not predicted_ZYX.any():
        return dsc, 0.0
    distances = surface_distances(truth_ZYX.T, predicted_ZYX.T, spacing_mm_XYZ)
    return dsc, distances.dice_within(tolerance_mm)
