"""From one voxel grid to another: splines for intensities, nearest for labels.

Both grids share the outer edges of their voxels (`align_corners=False`), so index i of n target
voxels lies at (i + 0.5) * source / n - 0.5 in source voxels.

Interpolation by splines of any order is separable and linear. Linearly, each target voxel takes two
source voxels along an axis; by higher splines it is a product with a matrix that has few entries
beside its diagonal, block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import Grid

Shape = tuple[int, int, int]
Orders = tuple[int, int, int]  # of the splines along Z, Y, X
_BLOCK = 64  # target voxels whose source voxels are looked at together
_SLICES_AT_ONCE = 8
_EDGE = 12  # how often scipy repeats the outer voxels before it solves for coefficients
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


class AxisMap(Protocol):
    """Interpolation along one axis.

    Attributes:
        source: voxels.
        target: voxels wanted.
        first_T: the first source voxel that each target voxel looks at.
        last_T: the last one.
    """

    @property
    def source(self) -> int: ...  # noqa: D102 - see above
    @property
    def target(self) -> int: ...  # noqa: D102
    @property
    def first_T(self) -> NDArray[np.intp]: ...  # noqa: D102, N802
    @property
    def last_T(self) -> NDArray[np.intp]: ...  # noqa: D102, N802

    def weights(self, target: int) -> list[float]:
        """Return the weights of the source voxels that a target voxel looks at."""
        ...

    def apply(
        self, voxels: NDArray[np.float32], axis: int, targets: slice, start: int
    ) -> NDArray[np.float32]:
        """Return some target voxels along an axis of voxels whose first is source voxel `start`."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap:
    """Orders 0 and 1; see `AxisMap`. The arithmetic is the same on every processor.

    Attributes:
        last_weight_T: of the last source voxel; the first has the rest.
    """

    source: int
    target: int
    first_T: NDArray[np.intp]
    last_T: NDArray[np.intp]
    last_weight_T: NDArray[np.float32]

    def weights(self, target: int) -> list[float]:
        """Return one weight or two."""
        weight = float(self.last_weight_T[target])
        return [1.0 - weight, weight] if self.last_T[target] > self.first_T[target] else [1.0]

    def thinned(self) -> tuple[NDArray[np.intp], LinearMap]:
        """Return the source voxels that are looked at, and the map from those alone."""
        kept = np.union1d(self.first_T, self.last_T)
        first, last = np.searchsorted(kept, self.first_T), np.searchsorted(kept, self.last_T)
        return kept, replace(self, source=len(kept), first_T=first, last_T=last)

    def apply(
        self, voxels: NDArray[np.float32], axis: int, targets: slice, start: int
    ) -> NDArray[np.float32]:
        """Return some target voxels; see `AxisMap.apply`."""
        first, last = self.first_T[targets] - start, self.last_T[targets] - start
        result = voxels.take(first, axis)
        if (first == last).all():
            return result
        shape = [1] * voxels.ndim
        shape[axis] = -1
        step = voxels.take(last, axis)
        step -= result
        step *= self.last_weight_T[targets].reshape(shape)
        result += step
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class SplineMap:
    """Higher orders; see `AxisMap`.

    Attributes:
        weights_TS: (target, source) float32.
    """

    source: int
    target: int
    first_T: NDArray[np.intp]
    last_T: NDArray[np.intp]
    weights_TS: NDArray[np.float32]

    def weights(self, target: int) -> list[float]:
        """Return the weights that are not negligible."""
        row = self.weights_TS[target, self.first_T[target] : self.last_T[target] + 1]
        return [float(weight) for weight in row]

    def apply(
        self, voxels: NDArray[np.float32], axis: int, targets: slice, start: int
    ) -> NDArray[np.float32]:
        """Return some target voxels, a block of them at a time; see `AxisMap.apply`."""
        wanted = range(*targets.indices(self.target))
        blocks = [wanted[n : n + _BLOCK] for n in range(0, len(wanted), _BLOCK)]
        moved = np.moveaxis(voxels, axis, -1)
        result = np.empty((*moved.shape[:-1], len(wanted)), np.float32)
        for number, block in enumerate(blocks):
            low, high = (
                int(self.first_T[list(block)].min()),
                int(self.last_T[list(block)].max()) + 1,
            )
            weights = self.weights_TS[block.start : block.stop, low:high]
            done = number * _BLOCK
            result[..., done : done + len(block)] = (
                moved[..., low - start : high - start] @ weights.T
            )
        return np.moveaxis(result, -1, axis)


def matrix_of(mapped: AxisMap) -> NDArray[np.float32]:
    """Return an interpolation along an axis as a matrix, (target, source) float32."""
    matrix = np.zeros((mapped.target, mapped.source), np.float32)
    for target in range(mapped.target):
        first, last = int(mapped.first_T[target]), int(mapped.last_T[target])
        matrix[target, first : last + 1] = mapped.weights(target)
    return matrix


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
    is what scikit-image's `resize`, and so nnU-Net, uses. The same number of voxels stays as it is.
    """
    positions = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    if order > 1 and source != target:
        return _spline_map(source, target, order)
    if order == 0 or source == target:
        positions = np.minimum(np.floor(positions + 0.5), source - 1)
    first = np.floor(positions).astype(np.intp)
    return LinearMap(
        source=source,
        target=target,
        first_T=first,
        last_T=np.ceil(positions).astype(np.intp),
        last_weight_T=(positions - first).astype(np.float32),
    )


def _spline_map(source: int, target: int, order: int) -> SplineMap:
    exact = _cubic_weights(source, target) if order == 3 else _scipy_weights(source, target, order)
    seen = np.abs(exact) > _NEGLIGIBLE
    last_T = source - 1 - seen[:, ::-1].argmax(axis=1)
    return SplineMap(
        source=source,
        target=target,
        # they never go back, though a voxel on top of another needs fewer than its neighbours
        first_T=np.minimum.accumulate(seen.argmax(axis=1)[::-1])[::-1],
        last_T=np.maximum.accumulate(last_T),
        weights_TS=np.where(seen, exact, 0).astype(np.float32),
    )


def _cubic_weights(source: int, target: int) -> NDArray[np.float64]:
    """Return scipy's weights of order 3 without its import, which takes longer than a scan.

    Edges are repeated 12 times; the B-spline's coefficients solve a tridiagonal system; each target
    voxel takes four of them.
    """
    padded = source + 2 * _EDGE
    system = np.zeros((padded, padded))
    rows = np.arange(padded)
    system[rows, rows] = 4 / 6
    system[rows[1:], rows[:-1]] = system[rows[:-1], rows[1:]] = 1 / 6
    system[[0, -1], [0, -1]] += 1 / 6
    positions = (np.arange(target) + 0.5) * source / target - 0.5 + _EDGE
    base = np.floor(positions).astype(np.intp)
    t = positions - base
    taps = (
        (1 - t) ** 3,
        4 - 6 * t**2 + 3 * t**3,
        1 + 3 * t + 3 * t**2 - 3 * t**3,
        t**3,
    )
    interpolation = np.zeros((target, padded))
    for offset, tap in enumerate(taps, start=-1):
        interpolation[np.arange(target), base + offset] = tap / 6
    with one_blas_thread():
        weights = np.linalg.solve(system, interpolation.T).T  # the system is symmetric
    inner = np.array(weights[:, _EDGE : padded - _EDGE], np.float64)
    inner[:, 0] += weights[:, :_EDGE].sum(axis=1)
    inner[:, -1] += weights[:, padded - _EDGE :].sum(axis=1)
    return inner


def _scipy_weights(source: int, target: int, order: int) -> NDArray[np.float64]:
    from scipy.ndimage import zoom

    weights: NDArray[np.float64] = zoom(
        np.eye(source), (target / source, 1), order=order, mode="nearest", grid_mode=True
    )
    return weights


def resample_axis(voxels: NDArray[np.float32], axis: int, mapped: AxisMap) -> NDArray[np.float32]:
    """Resample one whole axis."""
    if mapped.source == mapped.target:
        return voxels
    return mapped.apply(voxels, axis, slice(0, mapped.target), 0)


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
