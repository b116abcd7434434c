"""From one voxel grid to another: splines for intensities, nearest for labels.

Both grids share the outer edges of their voxels (`align_corners=False`), so index i of n target
voxels lies at (i + 0.5) * source / n - 0.5 in source voxels.

Interpolation by splines of any order is separable and linear: along each axis it is one matrix,
whose rows are short (two entries for order 1). Volumes are multiplied by them block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import Grid

Shape = tuple[int, int, int]
Orders = tuple[int, int, int]  # of the splines along Z, Y, X
_BLOCK = 64  # target voxels whose source voxels are looked at together
_SLICES_AT_ONCE = 8
_NEGLIGIBLE = 1e-7  # weights of a cubic spline fall below this 12 voxels away


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

    Args:
        grid: the predictor's.
        spacing_mm: the scan's, along the same axes.
        shape_ZYX: voxels of the (cropped) scan.
    """
    resolved = [
        own if wanted == "scan" else count * own / tile if wanted == "fit" else wanted
        for wanted, own, count, tile in zip(
            grid.spacing_mm_ZYX, spacing_mm, shape_ZYX, grid.tile_ZYX, strict=True
        )
    ]
    return float(resolved[0]), float(resolved[1]), float(resolved[2])


@dataclass(frozen=True, kw_only=True, eq=False)
class AxisMap:
    """Interpolation along one axis.

    Attributes:
        weights_TS: (target, source) float32: target voxels from source voxels.
        blocks: target range, the source range it looks at, and its part of the weights.
    """

    weights_TS: NDArray[np.float32]
    blocks: tuple[tuple[slice, slice, NDArray[np.float32]], ...]

    @property
    def keeps(self) -> bool:
        """Whether nothing changes along the axis."""
        target, source = self.weights_TS.shape
        return bool(target == source)

    def source_range(self, targets: slice) -> slice:
        """Return the source voxels that some target voxels look at."""
        seen = np.flatnonzero(self.weights_TS[targets].any(axis=0))
        return slice(int(seen[0]), int(seen[-1]) + 1)

    def target_range(self, sources: slice) -> slice:
        """Return the target voxels that look at any of some source voxels."""
        seen = np.flatnonzero(self.weights_TS[:, sources].any(axis=1))
        return slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 0)

    def apply(self, voxels: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Return float32 voxels with this axis resampled."""
        if self.keeps:
            return voxels
        shape = list(voxels.shape)
        shape[axis] = len(self.weights_TS)
        target = np.empty(shape, np.float32)
        ahead = (slice(None),) * axis
        for targets, sources, weights in self.blocks:
            part = voxels[*ahead, sources]
            if axis == voxels.ndim - 1:
                target[..., targets] = part @ weights.T
            elif axis == 0:
                flat = weights @ part.reshape(len(part), -1)
                target[targets] = flat.reshape(len(weights), *shape[1:])
            else:
                target[*ahead, targets] = weights @ part
        return target


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep matrix products to the calling thread.

    OpenBLAS waits for ever for its own threads where another thread of the process forks or loads
    libraries meanwhile, as an engine that starts beside the first case does.
    """
    limit: AbstractContextManager[Any] = _blas_controller().limit(limits=1, user_api="blas")
    return limit


@cache
def _blas_controller() -> Any:  # noqa: ANN401 - threadpoolctl carries no types
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@lru_cache(maxsize=64)
def axis_map(source: int, target: int, order: int) -> AxisMap:
    """Return the interpolation from `source` to `target` voxels by splines of an order.

    Orders 0 and 1 are nearest and linear; higher ones are scipy's `zoom` with edges repeated, which
    is what scikit-image's `resize`, and so nnU-Net, uses.
    """
    weights = np.zeros((target, source), np.float32)
    positions = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    rows = np.arange(target)
    if source == target:
        weights[rows, rows] = 1
    elif order == 0:
        weights[rows, np.minimum(np.floor(positions + 0.5).astype(np.intp), source - 1)] = 1
    elif order == 1:
        low = np.floor(positions).astype(np.intp)
        weights[rows, low] = 1 - (positions - low)
        weights[rows, np.minimum(low + 1, source - 1)] += positions - low
    else:
        from scipy.ndimage import zoom

        units = np.eye(source)
        exact = zoom(units, (target / source, 1), order=order, mode="nearest", grid_mode=True)
        weights[:] = np.where(np.abs(exact) > _NEGLIGIBLE, exact, 0)
    blocks = []
    for first in range(0, target, _BLOCK):
        targets = slice(first, min(first + _BLOCK, target))
        seen = np.flatnonzero(weights[targets].any(axis=0))
        sources = slice(int(seen[0]), int(seen[-1]) + 1)
        blocks.append((targets, sources, np.ascontiguousarray(weights[targets, sources])))
    return AxisMap(weights_TS=weights, blocks=tuple(blocks))


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
    with one_blas_thread():
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
        target = map_Y.apply(map_X.apply(source, 2), 1)
        if by_slice:
            ends = (source.min(axis=(1, 2), keepdims=True), source.max(axis=(1, 2), keepdims=True))
            target = np.clip(target, *ends)
        elif overshoots:
            lowest, highest = min(lowest, source.min()), max(highest, source.max())
        in_plane[part] = target
    resampled = map_Z.apply(in_plane, 0)
    if overshoots and not by_slice:
        np.clip(resampled, np.float32(lowest), np.float32(highest), out=resampled)
    return resampled


def resample_linear(voxels_ZYX: NDArray[np.float32], shape_ZYX: Shape) -> NDArray[np.float32]:
    """Resample intensities trilinearly; see `resample`."""
    if voxels_ZYX.shape == shape_ZYX:
        return voxels_ZYX
    z, y, x = voxels_ZYX.shape
    return resample(lambda part: voxels_ZYX[part], (z, y, x), shape_ZYX, (1, 1, 1))


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
