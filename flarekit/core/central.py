"""The one component of a mask that lies at the centre of its volume."""

import numpy as np
from numpy.typing import NDArray

_Mask = NDArray[np.bool_]
# RECIST 1.1 measures lesions from 10 mm across on CT
SMALLEST_RADIUS_MM = 5.0


def central_component(
    mask_ZYX: _Mask, spacing_mm_ZYX: tuple[float, float, float], allowed_ZYX: _Mask | None = None
) -> _Mask:
    """Return the component at the centre, or the one nearest to it; never nothing.

    Voxels belong together that touch by a face, so that the result is one component however an
    evaluator counts. The centre is voxel n // 2 of each axis; a component is as far from it as its
    nearest voxel, and of two equally far the one with more voxels is taken. Of an empty mask comes
    a ball of `SMALLEST_RADIUS_MM` at the centre.

    Args:
        mask_ZYX: bool; not changed.
        spacing_mm_ZYX: distance between neighbouring voxels.
        allowed_ZYX: where the result may lie; everywhere where None. If it is nowhere, the result
            is empty.
    """
    if allowed_ZYX is not None:
        mask_ZYX = mask_ZYX & allowed_ZYX
    if not mask_ZYX.any():
        return _ball(mask_ZYX.shape, spacing_mm_ZYX, allowed_ZYX)
    import cc3d

    numbered, count = cc3d.connected_components(mask_ZYX, connectivity=6, return_N=True)
    if count == 1:
        return mask_ZYX.copy()
    at_centre = numbered[tuple(n // 2 for n in mask_ZYX.shape)]
    chosen = at_centre or _nearest(numbered, spacing_mm_ZYX)
    result: _Mask = numbered == chosen
    return result


def _nearest(numbered: NDArray[np.integer], spacing_mm: tuple[float, float, float]) -> int:
    places = np.nonzero(numbered)
    offsets = [
        (axis - n // 2) * mm for axis, n, mm in zip(places, numbered.shape, spacing_mm, strict=True)
    ]
    squares = np.sum(np.square(offsets), axis=0)
    numbers = numbered[places].astype(np.int64)
    nearest = np.full(int(numbers.max()) + 1, np.inf)
    np.minimum.at(nearest, numbers, squares)
    sizes = np.bincount(numbers)
    closest = np.flatnonzero(nearest == nearest.min())
    return int(closest[np.argmax(sizes[closest])])


def _ball(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], allowed: _Mask | None
) -> _Mask:
    z, y, x = (((np.arange(n) - n // 2) * mm) ** 2 for n, mm in zip(shape, spacing_mm, strict=True))
    squares: NDArray[np.float64] = z[:, None, None] + y[:, None] + x
    if allowed is None:
        return squares <= SMALLEST_RADIUS_MM**2
    if not allowed.any():
        return np.zeros(shape, np.bool_)
    nearest = squares == squares[allowed].min()
    inside = allowed & ((squares <= SMALLEST_RADIUS_MM**2) | nearest)
    return central_component(inside, spacing_mm)
