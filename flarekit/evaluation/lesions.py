"""Lesions one by one: connected components (18 neighbours), as autoPET counts them."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_CONNECTIVITY: Literal[18] = 18
LEAST_IOU = 0.1  # autoPET V


@dataclass(frozen=True, kw_only=True)
class LesionMatch:
    """How the components of a prediction meet those of the truth.

    Attributes:
        missed_voxels: of true components that no predicted voxel touches.
        spurious_voxels: of predicted components that touch no true voxel.
        found: true components that some predicted one matches with an IoU of `LEAST_IOU` or more.
        missed: the other true components.
        spurious: predicted components that match no true one so. Several components may match
            one; none is punished for it.
    """

    missed_voxels: int
    spurious_voxels: int
    found: int
    missed: int
    spurious: int


def match_lesions(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> LesionMatch:
    """Match the components of two masks, bool and of one shape of three axes."""
    true_parts, true_sizes = _components(truth)
    predicted_parts, predicted_sizes = _components(predicted)
    both = truth & predicted
    codes = true_parts[both].astype(np.int64) * len(predicted_sizes) + predicted_parts[both]
    pairs, shared = np.unique(codes, return_counts=True)
    of_truth, of_predicted = np.divmod(pairs, len(predicted_sizes))
    unions = true_sizes[of_truth] + predicted_sizes[of_predicted] - shared
    alike = shared / unions >= LEAST_IOU
    found = len(np.unique(of_truth[alike]))
    return LesionMatch(
        missed_voxels=_untouched(true_sizes, of_truth),
        spurious_voxels=_untouched(predicted_sizes, of_predicted),
        found=found,
        missed=len(true_sizes) - 1 - found,
        spurious=len(predicted_sizes) - 1 - len(np.unique(of_predicted[alike])),
    )


def f1_of(found: int, spurious: int, missed: int) -> float:
    """Return autoPET V's lesion F1 from counts of lesions; NaN where the truth has no lesion."""
    if found + missed == 0:
        return math.nan
    return 2 * found / (2 * found + spurious + missed)


def _components(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the number of every voxel's component, and the size of each; the background is 0."""
    import cc3d

    parts = cc3d.connected_components(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=_CONNECTIVITY
    )
    return parts, np.bincount(parts.ravel(), minlength=1)


def _untouched(sizes: NDArray[np.int64], touched: NDArray[np.int64]) -> int:
    alone = np.ones(len(sizes), bool)
    alone[0] = False
    alone[touched] = False
    return int(sizes[alone].sum())
