"""Scribbles move the border of lesions: as far as the scribbles tell, and where they tell.

Whether a voxel near the border lies in the lesion is decided by a small network (`_border.py`) from
the distances between voxel, border and scribbles, on a grid that is coarser in plane; its
probabilities are smoothed and brought onto all voxels. The order of scribbles does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.postprocess._border import (
    ALONG,
    FURTHEST_MM,
    BorderNetwork,
    Scribble,
    border_features,
    border_network,
    radius_of_ball_mm,
)

_LEAST_POINTS = 3  # fewer are clicks
NEAR_MM = 15.0  # components that are further from every scribble stay as they are
_NEXT_VOXELS = 2.0  # from one point of a scribble to the next, mostly
_GAP_VOXELS = 8.0  # between points of one scribble
_COARSE_MM = 5.0  # the grid on which the network decides is no coarser in plane
_SMOOTH_MM = 3.0  # at most
_SMOOTH_SHARE = 0.15  # of the radius of a ball that is as large as the lesions
_LEAST = 0.44  # probability of a lesion, chosen on the training crops
_CLICK_MM = 10.0  # a click tells of the border no further than so
_BAND_MM = 20.0  # from the border and from scribbles, where voxels may change
_CRUMB = 0.05  # of the component that it broke off, in voxels

_Points = NDArray[np.int64]
_Mask = NDArray[np.bool_]
_Spacing = tuple[float, float, float]


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


def is_drawn(row: _Points) -> bool:
    """Tell whether points of a row were drawn in one go: three and more that follow each other.

    Clicks that happen to lie in one slice are further apart.
    """
    if len(row) < _LEAST_POINTS:
        return False
    from scipy.spatial import KDTree

    to_next = KDTree(row).query(row, k=2)[0][:, 1]
    return float(np.median(to_next)) <= _NEXT_VOXELS


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What scribbles may change: the components near them, in the box in which scribbles count.

    Attributes:
        box: within the volume.
        mask_ZYX: bool, the components, in the box.
        away_mm: `signed_distance_mm` of these.
        scribbles: with places in the box.
        changeable: which voxels of the box may change.
    """

    box: tuple[slice, ...]
    mask_ZYX: _Mask
    away_mm: NDArray[np.float64]
    scribbles: tuple[Scribble, ...]
    changeable: _Mask


def surroundings(
    mask_ZYX: _Mask, scribbles: Sequence[Scribble], spacing_mm: _Spacing
) -> Surroundings | None:
    """Return what scribbles may change of a mask; None where no component is near any."""
    import cc3d
    from scipy.ndimage import distance_transform_edt

    box = _box_around(scribbles, mask_ZYX.shape, spacing_mm)
    corner = [side.start for side in box]
    within = [
        Scribble(places_ZYX=each.places_ZYX - corner, outwards=each.outwards) for each in scribbles
    ]
    numbered = cc3d.connected_components(mask_ZYX[box], connectivity=26)
    blank = np.ones(numbered.shape, np.bool_)
    for scribble in within:
        blank[tuple(scribble.places_ZYX.T)] = False
    from_scribbles = distance_transform_edt(blank, sampling=spacing_mm)
    near = np.setdiff1d(np.unique(numbered[from_scribbles <= NEAR_MM]), [0])
    if not len(near):
        return None
    own = np.isin(numbered, near)
    away_mm = signed_distance_mm(own, spacing_mm)
    some_drawn = any(is_drawn(scribble.places_ZYX) for scribble in within)
    counts = from_scribbles <= (np.inf if some_drawn else _CLICK_MM)
    return Surroundings(
        box=box,
        mask_ZYX=own,
        away_mm=away_mm,
        scribbles=tuple(within),
        changeable=counts & ((np.abs(away_mm) <= _BAND_MM) | (from_scribbles <= _BAND_MM)),
    )


def moved(
    mask_ZYX: _Mask,
    scribbles: Sequence[Scribble],
    spacing_mm: _Spacing,
    network: BorderNetwork | None = None,
) -> _Mask:
    """Return a mask, which is not empty, with its border moved by scribbles, which it agrees with.

    The network that decides is the package's where None.
    """
    result = mask_ZYX.copy()
    around = surroundings(mask_ZYX, scribbles, spacing_mm)
    if around is not None:
        others = mask_ZYX[around.box] & ~around.mask_ZYX
        inside = _moved_within(around, spacing_mm, network or border_network())
        if not any(scribble.outwards for scribble in scribbles):
            inside &= around.mask_ZYX
        if all(scribble.outwards for scribble in scribbles):
            inside |= around.mask_ZYX
        result[around.box] = inside | others
    for scribble in scribbles:
        result[tuple(scribble.places_ZYX.T)] = scribble.outwards
    return _without_crumbs(mask_ZYX, result, scribbles)


def _box_around(
    scribbles: Sequence[Scribble], shape: tuple[int, ...], spacing_mm: _Spacing
) -> tuple[slice, ...]:
    """Return the box in which scribbles count."""
    places = np.concatenate([scribble.places_ZYX for scribble in scribbles])
    reach = np.ceil(FURTHEST_MM / (np.array(spacing_mm) * (ALONG, 1, 1))).astype(int)
    low = np.maximum(0, places.min(axis=0) - reach)
    high = np.minimum(shape, places.max(axis=0) + reach + 1)
    return tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))


def _moved_within(around: Surroundings, spacing_mm: _Spacing, network: BorderNetwork) -> _Mask:
    from scipy.ndimage import gaussian_filter

    steps = [1, *(max(1, int(_COARSE_MM / mm)) for mm in spacing_mm[1:])]
    on_grid = np.zeros(around.mask_ZYX.shape, np.bool_)
    on_grid[:, :: steps[1], :: steps[2]] = True
    places = np.argwhere(on_grid & around.changeable)
    coarse = around.mask_ZYX[:, :: steps[1], :: steps[2]].astype(np.float32)
    features = border_features(places, around.scribbles, around.away_mm, spacing_mm)
    coarse[tuple((places // steps).T)] = network(features)
    smooth_mm = min(_SMOOTH_MM, _SMOOTH_SHARE * radius_of_ball_mm(around.mask_ZYX, spacing_mm))
    sigmas = [smooth_mm / (mm * step) for mm, step in zip(spacing_mm, steps, strict=True)]
    fine = gaussian_filter(coarse, sigmas)
    for axis in (1, 2):
        fine = _between(fine, axis, steps[axis], around.mask_ZYX.shape[axis])
    return np.where(around.changeable, fine > _LEAST, around.mask_ZYX)


def _between(values: NDArray[np.float32], axis: int, step: int, length: int) -> NDArray[np.float32]:
    """Return values linearly between those at every so many places along an axis."""
    at = np.arange(length) / step
    low = np.minimum(at.astype(int), values.shape[axis] - 1)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    shape = [1] * values.ndim
    shape[axis] = length
    part = (at - low).astype(np.float32).reshape(shape)
    between: NDArray[np.float32] = (
        np.take(values, low, axis) * (1 - part) + np.take(values, high, axis) * part
    )
    return between


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
