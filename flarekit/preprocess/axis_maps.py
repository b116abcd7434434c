"""Interpolation along one axis: from the voxels of one grid to those of another.

Both grids share the outer edges of their voxels (`align_corners=False`), so index i of n target
voxels lies at (i + 0.5) * source / n - 0.5 in source voxels.

Linearly, each target voxel takes two source voxels; by higher splines the interpolation is a
product with a matrix that has few entries beside its diagonal, block by block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOWHERE = slice(0, 0)
_BLOCK = 64  # target voxels whose source voxels are looked at together
_EDGE = 12  # how often scipy repeats the outer voxels before it solves for coefficients
LANCZOS = 6  # in place of a spline's order
_LOBES = 3
_NEGLIGIBLE = 1e-7  # weights of a cubic spline fall below this 12 voxels away


@dataclass(frozen=True, kw_only=True, eq=False)
class AxisMap(ABC):
    """Interpolation along one axis.

    Attributes:
        source: voxels.
        target: voxels wanted.
        first_T: the first source voxel that each target voxel looks at.
        last_T: the last one.
    """

    source: int
    target: int
    first_T: NDArray[np.intp]
    last_T: NDArray[np.intp]

    @abstractmethod
    def weights(self, target: int) -> list[float]:
        """Return the weights of the source voxels that a target voxel looks at."""

    @abstractmethod
    def apply(
        self, voxels: NDArray[np.float32], axis: int, targets: slice, start: int
    ) -> NDArray[np.float32]:
        """Return some target voxels along an axis of voxels whose first is source voxel `start`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap(AxisMap):
    """Orders 0 and 1; see `AxisMap`. The arithmetic is the same on every processor.

    Attributes:
        last_weight_T: of the last source voxel; the first has the rest.
    """

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
class SplineMap(AxisMap):
    """Higher orders; see `AxisMap`.

    Attributes:
        weights_TS: (target, source) float32.
    """

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
    """Return the interpolation from `source` to `target` voxels by splines of an order, or Lanczos.

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
    if order == LANCZOS:
        exact = _lanczos_weights(source, target)
    elif order == 3:
        exact = _cubic_weights(source, target)
    else:
        exact = _scipy_weights(source, target, order)
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


def _lanczos_weights(source: int, target: int) -> NDArray[np.float64]:
    """Return the weights of Pillow's `LANCZOS`: its window is wider where voxels get larger."""
    scale = source / target
    middles = (np.arange(target)[:, None] + 0.5) * scale
    x = (np.arange(source)[None] + 0.5 - middles) / max(scale, 1.0)
    weights = np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0.0)
    exact: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return exact


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


def reached(mapped: AxisMap, sources: slice) -> tuple[slice, slice]:
    """Return the target voxels that look at any of some source voxels, and all they look at."""
    if sources == NOWHERE:
        return NOWHERE, NOWHERE
    seen = np.flatnonzero((mapped.last_T >= sources.start) & (mapped.first_T < sources.stop))
    if not len(seen):
        return NOWHERE, NOWHERE
    targets = slice(int(seen[0]), int(seen[-1]) + 1)
    low, high = mapped.first_T[targets].min(), mapped.last_T[targets].max()
    return targets, slice(int(low), int(high) + 1)
