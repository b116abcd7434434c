"""Long and short axis of a lesion in pixels, as the evaluation of ULS23 measures them."""

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 20  # pairs of points looked at together


def axis_diameters(lesion_ZYX: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the long and the short axis of a lesion, in pixels.

    The long axis is the greatest distance between two boundary points of one axial slice, over all
    slices (the first of equals); of each slice only the largest component counts (4 neighbours; the
    first of equals). The short axis is the longest line between boundary points of that slice that
    stands perpendicular to it, within the least whole number of degrees that any line reaches.
    Source: evaluation/misc.py of DIAGNijmegen/ULS23. Both are 0 where no slice has two points.
    """
    if not lesion_ZYX.any():
        return 0.0, 0.0
    z, one, other = longest_line(lesion_ZYX)
    longest = float(np.linalg.norm(other - one))
    return (longest, _short_axis(_boundary(lesion_ZYX[z]), other - one)) if longest else (0.0, 0.0)


def longest_line(
    lesion_ZYX: NDArray[np.bool_], spacing_mm_ZYX: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Return the slice of a lesion's longest diameter, and (row, column) of its two ends.

    The lesion is not empty; one without two voxels in a slice has both ends in its first voxel.
    """
    in_plane_mm = np.array(spacing_mm_ZYX[1:])
    first = np.argwhere(lesion_ZYX)[0]
    longest, found = 0.0, (int(first[0]), first[1:], first[1:])
    for z in np.flatnonzero(lesion_ZYX.any(axis=(1, 2))):
        length, pair = _longest(_boundary(lesion_ZYX[z]), in_plane_mm)
        if pair is not None and length > longest:
            longest, found = length, (int(z), pair[0], pair[1])
    return found


def recist_diameter_mm(
    lesion_ZYX: NDArray[np.bool_], spacing_mm_ZYX: tuple[float, float, float]
) -> float:
    """Return the longest diameter of a lesion in any axial slice, in mm, as RECIST measures it.

    From the middle of one voxel to that of another; of each slice only the largest component
    counts (4 neighbours). 0 where no slice has two voxels.
    """
    if not lesion_ZYX.any():
        return 0.0
    _, one, other = longest_line(lesion_ZYX, spacing_mm_ZYX)
    return float(np.linalg.norm((other - one) * np.array(spacing_mm_ZYX[1:])))


def symmetric_error(one: float, other: float) -> float:
    """Return |one - other| / (|one| + |other|), 0 where both are 0 (ULS23's SAPE)."""
    whole = abs(one) + abs(other)
    return abs(other - one) / whole if whole else 0.0


def _boundary(slice_YX: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (N, 2) row and column of the largest component's boundary, in order of rows."""
    from scipy import ndimage

    parts, count = ndimage.label(slice_YX)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        slice_YX = parts == 1 + int(np.argmax(sizes[1:]))
    return np.argwhere(slice_YX & ~ndimage.binary_erosion(slice_YX))


def _longest(
    points: NDArray[np.int64], pixel: NDArray[np.float64]
) -> tuple[float, NDArray[np.int64] | None]:
    """Return the greatest distance between two points and the first pair that has it.

    Points are (N, 2) rows and columns of pixels of that height and width.
    """
    from scipy.spatial.distance import pdist

    # whatever is farthest from a point is the first or last of its row
    rows = points[:, 0]
    first = np.r_[True, rows[1:] != rows[:-1]]
    outer = points[first | np.r_[first[1:], True]]
    if len(outer) < 2:
        return 0.0, None
    distances = pdist(outer * pixel)
    at = int(np.argmax(distances))
    one, other = (indices[at] for indices in np.triu_indices(len(outer), 1))
    return float(distances[at]), outer[[one, other]]


def _short_axis(points: NDArray[np.int64], long_axis: NDArray[np.int64]) -> float:
    """Return the longest line that is perpendicular to the long axis, or as nearly as any is."""
    best = np.zeros(91)  # longest line whose deviation rounds down to so many degrees
    long_length = np.sqrt(float(long_axis @ long_axis))
    rows = max(1, _CHUNK // len(points))
    for start in range(0, len(points) - 1, rows):
        one, other = _pairs(len(points), start, min(start + rows, len(points)))
        lines = points[other] - points[one]
        lengths = np.sqrt((lines * lines).sum(axis=1).astype(np.float64))
        cosines = np.clip(lines @ long_axis / (long_length * lengths), -1, 1)
        deviations = np.abs(np.degrees(np.arccos(cosines)) - 90)
        np.maximum.at(best, np.minimum(np.floor(deviations).astype(int), 90), lengths)
    return float(best[np.flatnonzero(best)[0]])


def _pairs(count: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices i < j of all pairs with `start` <= i < `stop`."""
    one, other = np.nonzero(np.arange(count) > np.arange(start, stop)[:, None])
    return one + start, other
