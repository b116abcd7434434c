"""Distances between the surfaces of two masks, weighted by area, as FLARE's evaluation takes them.

A surface is made of elements at voxel corners; each has the area that marching cubes gives its
eight voxels (DeepMind's table, package surface-distance, Apache-2.0). That package's own
measurements need numpy 1; these give the same values, sum by sum, at a third of the memory.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flarekit.core.boxes import box_of
from flarekit.core.extras import require

_WITHIN = 255  # all eight voxels around a corner belong to the mask


@dataclass(frozen=True)
class SurfaceDistances:
    """How far every surface element of one mask lies from the other's surface, nearest first.

    Attributes:
        truth_to_predicted_mm: float64; infinite where the prediction is empty.
        predicted_to_truth_mm: float64; infinite where the truth is empty.
        truth_areas_mm2: area of the truth's elements, in the order of their distances.
        predicted_areas_mm2: area of the prediction's elements, in the order of theirs.
    """

    truth_to_predicted_mm: NDArray[np.float64]
    predicted_to_truth_mm: NDArray[np.float64]
    truth_areas_mm2: NDArray[np.float64]
    predicted_areas_mm2: NDArray[np.float64]

    @property
    def defined(self) -> bool:
        """Whether both masks have a surface."""
        return len(self.truth_areas_mm2) > 0 and len(self.predicted_areas_mm2) > 0

    def dice_within(self, tolerance_mm: float) -> float:
        """Return the share of both surfaces that lies within a tolerance of the other (NSD).

        NaN where neither mask has a surface.
        """
        near = np.sum(self.truth_areas_mm2[self.truth_to_predicted_mm <= tolerance_mm]) + np.sum(
            self.predicted_areas_mm2[self.predicted_to_truth_mm <= tolerance_mm]
        )
        whole = np.sum(self.truth_areas_mm2) + np.sum(self.predicted_areas_mm2)
        return float(near / whole) if whole > 0 else float("nan")

    def mean_to_truth_mm(self) -> float:
        """Return the mean distance from the predicted surface to the true one (ASD)."""
        if not self.defined:
            return float("nan")
        sums = np.sum(self.predicted_to_truth_mm * self.predicted_areas_mm2)
        return float(sums / np.sum(self.predicted_areas_mm2))

    def mean_mm(self) -> float:
        """Return the mean distance over both surfaces (ASSD; Att-UMamba's equation 6)."""
        if not self.defined:
            return float("nan")
        sums = np.sum(self.predicted_to_truth_mm * self.predicted_areas_mm2) + np.sum(
            self.truth_to_predicted_mm * self.truth_areas_mm2
        )
        return float(sums / (np.sum(self.predicted_areas_mm2) + np.sum(self.truth_areas_mm2)))

    def hausdorff_mm(self, percent: float = 100.0) -> float:
        """Return the larger of both directed distances at a percentile of the area.

        NaN where either mask has no surface.
        """
        if not self.defined:
            return float("nan")
        return max(
            _percentile(self.truth_to_predicted_mm, self.truth_areas_mm2, percent),
            _percentile(self.predicted_to_truth_mm, self.predicted_areas_mm2, percent),
        )


def check_tables() -> None:
    """Check that the table of areas is installed.

    Raises:
        UsageError: it is not.
    """
    fault = "distances between surfaces need the package surface-distance, which is not installed"
    require("surface_distance", "evaluation", fault)


def surface_distances(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], spacing_mm: ArrayLike
) -> SurfaceDistances:
    """Measure two masks against each other.

    Args:
        truth: bool, three axes. To the last digit the result depends on their order; the official
            scripts index (X, Y, Z).
        predicted: bool, of the same shape.
        spacing_mm: distance between voxels along each of these axes.
    """
    spacing = np.asarray(spacing_mm, np.float64)
    box = box_of(truth | predicted)
    if box is None:
        nothing = np.empty(0)
        return SurfaceDistances(nothing, nothing, nothing, nothing)
    kernel, area_of_code = _tables(tuple(spacing.tolist()))
    truth_codes = _neighbour_codes(truth[box], kernel)
    predicted_codes = _neighbour_codes(predicted[box], kernel)
    true_surface, predicted_surface = _is_surface(truth_codes), _is_surface(predicted_codes)
    to_predicted = _distances_mm(true_surface, predicted_surface, spacing)
    to_truth = _distances_mm(predicted_surface, true_surface, spacing)
    truth_sorted = _sorted(to_predicted, area_of_code[truth_codes[true_surface]])
    predicted_sorted = _sorted(to_truth, area_of_code[predicted_codes[predicted_surface]])
    (from_truth_mm, truth_mm2), (from_predicted_mm, predicted_mm2) = truth_sorted, predicted_sorted
    return SurfaceDistances(from_truth_mm, from_predicted_mm, truth_mm2, predicted_mm2)


@lru_cache(maxsize=64)
def _tables(spacing_mm: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the weights of a corner's eight voxels, and the area of every sum of them."""
    from surface_distance import lookup_tables

    areas = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    return (
        cast(NDArray[np.int64], lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL),
        cast(NDArray[np.float64], areas),
    )


def _neighbour_codes(mask: NDArray[np.bool_], kernel: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return for every voxel corner, one more than voxels per axis, which of its eight are set."""
    from scipy import ndimage

    padded = np.pad(mask.astype(np.uint8), [(0, 1)] * mask.ndim)
    codes: NDArray[np.uint8] = ndimage.correlate(padded, kernel, mode="constant", cval=0)
    return codes


def _is_surface(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    surface: NDArray[np.bool_] = (codes != 0) & (codes != _WITHIN)
    return surface


def _distances_mm(
    start: NDArray[np.bool_], goal: NDArray[np.bool_], spacing_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance of every set voxel of `start` to the nearest one of `goal`."""
    from scipy import ndimage

    places = np.nonzero(start)
    if not goal.any():
        return np.full(len(places[0]), np.inf)
    nearest: NDArray[np.int32] = ndimage.distance_transform_edt(
        ~goal, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    squares: NDArray[np.float64] | float = 0.0
    for axis, place in enumerate(places):
        steps: NDArray[Any] = (nearest[axis][places] - place).astype(np.float64)
        steps *= spacing_mm[axis]
        squares = squares + steps * steps
    return cast(NDArray[np.float64], np.sqrt(squares))


def _sorted(
    distances_mm: NDArray[np.float64], areas_mm2: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    order = np.lexsort((areas_mm2, distances_mm))
    return distances_mm[order], areas_mm2[order]


def _percentile(
    distances_mm: NDArray[np.float64], areas_mm2: NDArray[np.float64], percent: float
) -> float:
    if percent >= 100:
        return float(distances_mm[-1])
    shares = np.cumsum(areas_mm2) / np.sum(areas_mm2)
    index = int(np.searchsorted(shares, percent / 100.0))
    return float(distances_mm[min(index, len(distances_mm) - 1)])
