"""What is known of a lesion from the line that somebody drew across its longest diameter (RECIST).

On the slice of the line no point of the lesion is further from either end than the line is long;
that bounds the lesion on the other slices too, as far as it is as long through them. Lengths are
from the middle of one voxel to that of another.
"""

import numpy as np
from numpy.typing import NDArray

_Mask = NDArray[np.bool_]
_Places = NDArray[np.int64]
_Spacing = tuple[float, float, float]
# width within the slice and depth across slices as fractions of the length: of an average lesion,
# and of what surely belongs to one; chosen in profiling/accuracy_recist.py
_BODY, _CORE = (0.75, 0.9), (0.5, 0.5)
_SMALLEST_MM = 5.0  # a line of a voxel or two says no length: a lesion of at least this


def line_ends(places_ZYX: _Places, spacing_mm_ZYX: _Spacing) -> tuple[_Places, _Places]:
    """Return the two voxels of a line that are furthest from each other.

    Args:
        places_ZYX: (N, 3) indices of its voxels, N > 0.
        spacing_mm_ZYX: distance between neighbouring voxels.
    """
    places_mm = places_ZYX * np.array(spacing_mm_ZYX)
    at = 0
    for _ in range(2):  # of a straight line the second step is exact
        start, at = at, int(np.argmax(np.linalg.norm(places_mm - places_mm[at], axis=1)))
    return places_ZYX[start], places_ZYX[at]


def within_reach(
    shape_ZYX: tuple[int, ...], spacing_mm_ZYX: _Spacing, places_ZYX: _Places, reach: float
) -> _Mask:
    """Return which voxels may belong to the lesion of a line.

    Args:
        shape_ZYX: of the result.
        spacing_mm_ZYX: distance between neighbouring voxels.
        places_ZYX: (N, 3) voxels of the line.
        reach: how far from either end of the line, in its lengths; a voxel more is allowed.
    """
    one, other = line_ends(places_ZYX, spacing_mm_ZYX)
    length_mm = float(np.linalg.norm((other - one) * np.array(spacing_mm_ZYX)))
    most_mm = reach * max(length_mm, _SMALLEST_MM) + max(spacing_mm_ZYX[1:])
    near = np.ones(shape_ZYX, np.bool_)
    for end in (one, other):
        near &= _squares_mm(shape_ZYX, spacing_mm_ZYX, end) <= most_mm**2
    return near


def lesion_at_line(
    found_ZYX: _Mask,
    spacing_mm_ZYX: _Spacing,
    places_ZYX: _Places,
    reach: float,
    *,
    visible: bool = True,
) -> _Mask:
    """Return the lesion of a line from what a network found around it; never nothing.

    What lies out of reach is left out, and the component with the most voxels of the line is kept.
    The line and its surroundings, half as wide and deep as the line is long, belong to the lesion
    in any case. Where the component has less than half of the line's voxels, or the network could
    not see the lesion, a body of the line's length and direction is added.

    Args:
        found_ZYX: bool; not changed.
        spacing_mm_ZYX: distance between neighbouring voxels.
        places_ZYX: (N, 3) voxels of the line.
        reach: see `within_reach`; 0 for nothing but the component and the line.
        visible: whether the scan shows the lesion along the line.
    """
    import cc3d

    on_line = tuple(places_ZYX.T)
    near = found_ZYX
    if reach > 0:
        near = found_ZYX & within_reach(found_ZYX.shape, spacing_mm_ZYX, places_ZYX, reach)
    numbered = cc3d.connected_components(near, connectivity=6)
    counts = np.bincount(numbered[on_line])
    counts[0] = 0
    lesion: _Mask = (numbered > 0) & (numbered == int(np.argmax(counts)))
    if reach > 0 and visible and 2 * counts.max() >= len(places_ZYX):
        lesion |= body_of_line(found_ZYX.shape, spacing_mm_ZYX, places_ZYX, _CORE)
    elif reach > 0 or not counts.any():
        lesion |= body_of_line(found_ZYX.shape, spacing_mm_ZYX, places_ZYX)
    lesion[on_line] = True
    return lesion


def body_of_line(
    shape_ZYX: tuple[int, ...],
    spacing_mm_ZYX: _Spacing,
    places_ZYX: _Places,
    width_and_depth: tuple[float, float] = _BODY,
) -> _Mask:
    """Return an ellipsoid whose longest axis is a line.

    Args:
        shape_ZYX: of the result.
        spacing_mm_ZYX: distance between neighbouring voxels.
        places_ZYX: (N, 3) voxels of the line, which belong to the body.
        width_and_depth: within the slice and across slices, as fractions of the length; those of
            lesions on average where not given.
    """
    one, other = line_ends(places_ZYX, spacing_mm_ZYX)
    spacing = np.array(spacing_mm_ZYX)
    along = (other - one) * spacing
    length_mm = float(np.linalg.norm(along))
    direction = along / length_mm if length_mm else np.zeros(3)
    middle = (one + other) / 2
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape_ZYX)]
    up, down, left = (
        (axis - at) * mm for axis, at, mm in zip((z, y, x), middle, spacing, strict=True)
    )
    along_mm = down * direction[1] + left * direction[2]
    beside = np.square(down) + np.square(left) - np.square(along_mm)
    width, depth = width_and_depth
    long_mm = max(length_mm, _SMALLEST_MM) / 2
    body: _Mask = np.square(along_mm) + beside / width**2 + np.square(up) / depth**2 <= long_mm**2
    body[tuple(places_ZYX.T)] = True
    return body


def distances_mm(
    at_ZYX: _Places, places_ZYX: _Places, spacing_mm_ZYX: _Spacing
) -> NDArray[np.float64]:
    """Return how far voxels are from the nearest voxel of a line.

    Args:
        at_ZYX: (M, 3) indices.
        places_ZYX: (N, 3) voxels of the line.
        spacing_mm_ZYX: distance between neighbouring voxels.
    """
    from scipy.spatial import KDTree

    spacing = np.array(spacing_mm_ZYX)
    distances: NDArray[np.float64] = KDTree(places_ZYX * spacing).query(at_ZYX * spacing)[0]
    return distances


def _squares_mm(
    shape_ZYX: tuple[int, ...], spacing_mm_ZYX: _Spacing, place_ZYX: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Return the square of every voxel's distance from a place."""
    z, y, x = (
        ((np.arange(n) - at) * mm) ** 2
        for n, at, mm in zip(shape_ZYX, place_ZYX, spacing_mm_ZYX, strict=True)
    )
    squares: NDArray[np.float64] = z[:, None, None] + y[:, None] + x
    return squares
