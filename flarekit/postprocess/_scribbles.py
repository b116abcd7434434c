"""Scribbles move the border of lesions: as far as the scribble tells, and where it tells.

A scribble lies on an error between the mask's border and where the border should be, about halfway:
so the border moves by twice the scribble's median distance from it, outwards for one on tumor,
inwards for one on background. How much that holds for other voxels falls off with their distance
from the scribble: quickly within its slice, which it spans, slowly across slices; and where their
uptake is below (above) what the scribble lies on. Scribbles vote together, against a vote for the
border as it is, so their order does not matter. The figures were chosen on training crops of
att_umamba_petct.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_POINTS = 3  # fewer are clicks
_GAP_VOXELS = 8.0  # between points of one scribble
_SHIFT = 2.0  # of the median distance from the border
_ALONG = 0.4  # reach across slices, as a fraction of the scribble's extent
_LEAST_ALONG_MM, _LEAST_WITHIN_MM = 5.0, 3.0
_UPTAKE = 0.3  # relative difference of uptake at which a vote fades
_PERCENTILE = 20.0  # of the scribble's uptake that counts as its range
_AS_IT_IS = 0.3  # the vote for the border as it is
_CRUMB = 0.05  # of the component that it broke off, in voxels
_FURTHEST = 3.0  # reaches, from which on a vote counts nothing

_Points = NDArray[np.int64]
_Mask = NDArray[np.bool_]
_Spacing = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Scribble:
    """A row of points that somebody drew in one go.

    Attributes:
        places_ZYX: (N, 3) voxels.
        outwards: whether it lies on tumor.
    """

    places_ZYX: _Points
    outwards: bool


def rows_in(points: _Points) -> list[_Points]:
    """Return the points that belong together: each near to another of them, in one slice."""
    if not len(points):
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    apart = points * (2 * _GAP_VOXELS, 1, 1)  # slices are never near each other
    pairs = KDTree(apart).query_pairs(_GAP_VOXELS, output_type="ndarray")
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), (len(points), len(points)))
    count, numbers = connected_components(graph, directed=False)
    return [points[numbers == number] for number in range(count)]


def moved(
    mask_ZYX: _Mask,
    uptake_ZYX: NDArray[np.floating | np.integer],
    scribbles: Sequence[Scribble],
    away_mm: NDArray[np.float64],
    spacing_mm: _Spacing,
) -> _Mask:
    """Return a mask with its border moved by scribbles, which it agrees with.

    Args:
        mask_ZYX: bool, not empty; not changed.
        uptake_ZYX: of the same shape.
        scribbles: that lie near the mask.
        away_mm: `signed_distance_mm` of the mask.
        spacing_mm: distance between neighbouring voxels.
    """
    votes = [_Vote(scribble, away_mm, uptake_ZYX, spacing_mm) for scribble in scribbles]
    band = np.abs(away_mm) <= max(vote.shift_mm for vote in votes)
    places, uptake = np.argwhere(band), uptake_ZYX[band].astype(np.float64)
    total, shift = np.full(len(places), _AS_IT_IS), np.zeros(len(places))
    for vote in votes:
        weights = vote.weights(places, uptake)
        total += weights
        shift += weights * vote.shift_mm * (1 if vote.outwards else -1)
    result = mask_ZYX.copy()
    result[band] = away_mm[band] <= shift / total
    for scribble in scribbles:
        result[tuple(scribble.places_ZYX.T)] = scribble.outwards
    return _without_crumbs(mask_ZYX, result, scribbles)


def _without_crumbs(before: _Mask, after: _Mask, scribbles: Sequence[Scribble]) -> _Mask:
    """Drop what only broke off a component as its border moved, and nobody marked as tumor."""
    import cc3d

    numbered = cc3d.connected_components(after, connectivity=18)
    origins = cc3d.connected_components(before, connectivity=18)
    sizes, whole = np.bincount(numbered.ravel()), np.bincount(origins.ravel())
    whole[0] = 0
    largest = np.zeros(len(sizes), np.int64)
    np.maximum.at(largest, numbered[after], whole[origins[after]])
    is_crumb = (sizes < _CRUMB * largest) | (largest == 0)
    is_crumb[0] = False
    for scribble in scribbles:
        if scribble.outwards:
            is_crumb[numbered[tuple(scribble.places_ZYX.T)]] = False
    result = after.copy()
    result[is_crumb[numbered]] = False
    return result


def signed_distance_mm(mask_ZYX: _Mask, spacing_mm: _Spacing) -> NDArray[np.float64]:
    """Return how far every voxel is from the mask; within it, minus how far from what is not."""
    from scipy.ndimage import distance_transform_edt

    outside: NDArray[np.float64] = distance_transform_edt(~mask_ZYX, sampling=spacing_mm)
    inside: NDArray[np.float64] = distance_transform_edt(mask_ZYX, sampling=spacing_mm)
    return outside - inside


class _Vote:
    """What one scribble says of the border."""

    def __init__(
        self,
        scribble: Scribble,
        away_mm: NDArray[np.float64],
        uptake_ZYX: NDArray[np.floating | np.integer],
        spacing_mm: _Spacing,
    ) -> None:
        places = scribble.places_ZYX
        self.outwards = scribble.outwards
        sign = 1 if scribble.outwards else -1
        beyond = sign * away_mm[tuple(places.T)]
        beyond = beyond[beyond > 0]
        middle_mm = float(np.median(beyond)) if len(beyond) else min(spacing_mm) / 2
        self.shift_mm = _SHIFT * middle_mm
        extent_mm = float(np.linalg.norm(np.ptp(places, axis=0) * spacing_mm))
        along = max(_LEAST_ALONG_MM, _ALONG * extent_mm)
        within = max(_LEAST_WITHIN_MM, self.shift_mm)
        self._scale = np.array(spacing_mm) / (along, within, within)
        self._places = places
        level = uptake_ZYX[tuple(places.T)].astype(np.float64)
        share = _PERCENTILE if scribble.outwards else 100 - _PERCENTILE
        self._level = float(np.percentile(level, share))

    def weights(self, places: _Points, uptake: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how much it counts for voxels, 0 to 1."""
        from scipy.spatial import KDTree

        far, _ = KDTree(self._places * self._scale).query(places * self._scale)
        off = (self._level - uptake) if self.outwards else (uptake - self._level)
        unlike = np.maximum(0, off) / max(self._level, 0.1) / _UPTAKE
        near: NDArray[np.float64] = np.where(far <= _FURTHEST, np.exp(-0.5 * far**2), 0.0)
        return near * np.exp(-(unlike**2))
