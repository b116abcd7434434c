"""From one voxel grid to another: splines for intensities, nearest for labels.

Both grids share the outer edges of their voxels (`align_corners=False`), so index i of n target
voxels lies at (i + 0.5) * source / n - 0.5 in source voxels.

Interpolation by splines of any order is separable and linear. Linearly, each target voxel takes two
source voxels along an axis; by higher splines it is a product with a matrix that has few entries
beside its diagonal, block by block.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.grid import Grid
from flarekit.preprocess.axis_maps import LinearMap, axis_map, one_blas_thread, resample_axis

Shape = tuple[int, int, int]
Orders = tuple[int, int, int]  # of the splines along Z, Y, X
_SLICES_AT_ONCE = 8


def resampled_shape(
    shape_ZYX: Shape, spacing_mm: tuple[float, float, float], target_mm: tuple[float, float, float]
) -> Shape:
    """Return the voxel counts that cover the same extent at another spacing (at least 1 each)."""
    counts = [
        max(1, round(a / b * n)) for n, a, b in zip(shape_ZYX, spacing_mm, target_mm, strict=True)
    ]
    return counts[0], counts[1], counts[2]


def target_spacing(
    grid: Grid, spacing_mm: tuple[float, float, float], shape_ZYX: Shape
) -> tuple[float, float, float]:
    """Return the network's spacing for a scan: `scan` and `fit` of the grid become numbers.

    The spacing and shape are those of the (cropped) scan, along the same axes.
    """
    resolved = [
        own if wanted == "scan" else count * own / tile if wanted == "fit" else wanted
        for wanted, own, count, tile in zip(
            grid.spacing_mm_ZYX, spacing_mm, shape_ZYX, grid.tile_ZYX, strict=True
        )
    ]
    return float(resolved[0]), float(resolved[1]), float(resolved[2])


def resample(
    slices: Callable[[slice], NDArray[np.float32]],
    source_ZYX: Shape,
    shape_ZYX: Shape,
    orders: Orders,
    *,
    apart: int | None = None,
) -> NDArray[np.float32]:
    """Resample intensities; no more than a few slices of the source are ever held as floats.

    Splines above order 1 overshoot: their values are clipped to the source's range, as
    scikit-image does.

    Args:
        slices: gives (n, Y, X) float32 of a range of Z of the source.
        source_ZYX: its shape.
        shape_ZYX: voxel counts wanted; the extent stays.
        orders: of the splines.
        apart: an axis that is resampled by itself after the others: its values are not clipped, and
            the others are clipped slice by slice.

    Returns:
        float32 of `shape_ZYX`.
    """
    with nullcontext() if max(orders) <= 1 else one_blas_thread():
        return _resampled(slices, source_ZYX, shape_ZYX, orders, apart)


def _resampled(
    slices: Callable[[slice], NDArray[np.float32]],
    source_ZYX: Shape,
    shape_ZYX: Shape,
    orders: Orders,
    apart: int | None,
) -> NDArray[np.float32]:
    map_Z, map_Y, map_X = (
        axis_map(n, m, order) for n, m, order in zip(source_ZYX, shape_ZYX, orders, strict=True)
    )
    overshoots = any(order > 1 for axis, order in enumerate(orders) if axis != apart)
    by_slice = overshoots and apart == 0
    in_plane = np.empty((source_ZYX[0], *shape_ZYX[1:]), np.float32)
    lowest, highest = np.inf, -np.inf
    for first in range(0, source_ZYX[0], _SLICES_AT_ONCE):
        part = slice(first, min(first + _SLICES_AT_ONCE, source_ZYX[0]))
        source = slices(part)
        target = resample_axis(resample_axis(source, 2, map_X), 1, map_Y)
        if by_slice:
            ends = (source.min(axis=(1, 2), keepdims=True), source.max(axis=(1, 2), keepdims=True))
            target = np.clip(target, *ends)
        elif overshoots:
            lowest, highest = min(lowest, source.min()), max(highest, source.max())
        in_plane[part] = target
    resampled = resample_axis(in_plane, 0, map_Z)
    if overshoots and not by_slice:
        np.clip(resampled, np.float32(lowest), np.float32(highest), out=resampled)
    return resampled


def resample_few(
    voxels_ZYX: NDArray[Any],
    normalise: Callable[[NDArray[Any]], NDArray[np.float32]],
    shape_ZYX: Shape,
) -> NDArray[np.float32]:
    """Resample linearly to a much coarser grid: only the voxels that count become floats.

    Args:
        voxels_ZYX: of any type.
        normalise: gives the intensities of some of them, voxel by voxel.
        shape_ZYX: voxel counts wanted; the extent stays.

    Returns:
        float32 of `shape_ZYX`, the same as `resample` gives of all normalised voxels.
    """
    maps = [axis_map(n, m, 1) for n, m in zip(voxels_ZYX.shape, shape_ZYX, strict=True)]
    (kept_Z, map_Z), (kept_Y, map_Y), (kept_X, map_X) = (
        mapped.thinned() for mapped in maps if isinstance(mapped, LinearMap)
    )
    few = np.stack([voxels_ZYX[z][np.ix_(kept_Y, kept_X)] for z in kept_Z])
    resampled = normalise(few)
    for axis, mapped in ((2, map_X), (1, map_Y), (0, map_Z)):
        resampled = mapped.apply(resampled, axis, slice(0, mapped.target), 0)
    return resampled


def resample_nearest(label_map_ZYX: NDArray[np.uint8], shape_ZYX: Shape) -> NDArray[np.uint8]:
    """Resample labels: each target voxel takes the source voxel that its centre lies in."""
    if label_map_ZYX.shape == shape_ZYX:
        return label_map_ZYX
    for axis, (source, target) in enumerate(zip(label_map_ZYX.shape, shape_ZYX, strict=True)):
        label_map_ZYX = np.take(label_map_ZYX, nearest_index(source, target), axis=axis)
    return label_map_ZYX


def nearest_index(source: int, target: int) -> NDArray[np.intp]:
    """Return, for each target voxel along an axis, the source voxel that its centre lies in."""
    index = ((np.arange(target) + 0.5) * source / target).astype(np.intp)
    return np.minimum(index, source - 1)
