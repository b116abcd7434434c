"""How a case went from the stored grid to the network's, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flarekit.core.volume import Orientation
from flarekit.preprocess.axis_maps import NOWHERE, axis_map, matrix_of, reached
from flarekit.preprocess.decide import Box, Decider, Paint, outside
from flarekit.preprocess.resample import (
    Orders,
    Shape,
    nearest_index,
    resample,
    resample_few,
    resample_nearest,
)

Labels = NDArray[np.uint8]
Real = TypeVar("Real", np.float32, np.uint8)


@dataclass(frozen=True, kw_only=True)
class Route:
    """Reorder axes, crop, resample, pad.

    Attributes:
        orientation: stored axes -> the network's.
        stored_shape: of the scan as stored.
        box: the crop, in the network's axes.
        grid_shape: of the crop at the network's spacing.
        padding: zeros added around it, before and after, along each axis.
        image_orders: of the splines for intensities.
        logits_orders: of the splines for logits on their way back.
        apart: an axis whose intensities are resampled by themselves, as nnU-Net does.
        regions: whether classes overlap.
    """

    orientation: Orientation
    stored_shape: Shape
    box: Box
    grid_shape: Shape
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0), (0, 0))
    image_orders: Orders = (1, 1, 1)
    logits_orders: Orders = (1, 1, 1)
    apart: int | None = None
    regions: bool = False

    @property
    def cropped_shape(self) -> Shape:
        """Return the crop's shape (Z, Y, X) at the scan's spacing."""
        z, y, x = (side.stop - side.start for side in self.box)
        return z, y, x

    @property
    def shape_ZYX(self) -> Shape:  # noqa: N802 - axis letters
        """Voxels of the network's grid, padding included."""
        z, y, x = (
            low + n + high for (low, high), n in zip(self.padding, self.grid_shape, strict=True)
        )
        return z, y, x

    def on_grid(self, slices: Callable[[slice], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Resample and pad a cropped channel, given by ranges of Z."""
        if self.apart in (None, 0):
            shapes = (self.cropped_shape, self.grid_shape)
            resampled = resample(slices, *shapes, self.image_orders, apart=self.apart)
            return self._padded(resampled)
        first = np.moveaxis(slices(slice(None)), self.apart, 0)
        shape, *orders = (
            _first(values, self.apart) for values in (self.grid_shape, self.image_orders)
        )
        z, y, x = first.shape
        resampled = resample(lambda part: first[part], (z, y, x), shape, orders[0], apart=0)
        return self._padded(np.moveaxis(resampled, 0, self.apart))

    def on_grid_of_few(
        self,
        voxels_ZYX: NDArray[Any],
        normalise: Callable[[NDArray[Any]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Resample linearly and pad a cropped channel of which few voxels count."""
        return self._padded(resample_few(voxels_ZYX, normalise, self.grid_shape))

    def restore(self, label_map_ZYX: Labels) -> Labels:
        """Return a label map of the network's grid on the stored one, C-ordered, by nearest voxels.

        Raises:
            ValueError: another grid, or not uint8.
        """
        _check(label_map_ZYX, self.shape_ZYX)
        stored, target = self._blank()
        source = label_map_ZYX[self._unpadded]
        index_Z, index_Y, index_X = (
            nearest_index(n, m) for n, m in zip(self.grid_shape, self.cropped_shape, strict=True)
        )
        for z, taken in enumerate(index_Z):
            if source[taken].any():
                target[z] = source[taken][index_Y][:, index_X]
        return stored

    def grid_labels(self, label_map_ZYX: Labels) -> Labels:
        """Return a label map of the stored grid on the network's, by nearest voxels (for training).

        Raises:
            ValueError: another grid, or not uint8.
        """
        _check(label_map_ZYX, self.stored_shape)
        cropped = self.orientation.apply(label_map_ZYX)[self.box]
        return self._padded(resample_nearest(cropped, self.grid_shape))

    def decider(self, class_values: Labels) -> tuple[Decider, Labels]:
        """Return what takes logits on the network's grid, and the stored label map it paints."""
        stored, target = self._blank()
        return self._decider(target, class_values, regions=self.regions), stored

    def filler(self, class_values: Labels, stored_ZYX: Labels, decided: Sequence[Box]) -> Decider:
        """Return what takes logits on the network's grid and paints what was not decided.

        Args:
            class_values: mask value of each class.
            stored_ZYX: label map on the stored grid; is painted.
            decided: boxes of it that stay as they are.
        """
        target = self.target_of(stored_ZYX)
        paint_labels = outside([self._crop_box(box) for box in decided], target)
        return self._decider(target, class_values, paint_labels=paint_labels)

    def stored_box(self, grid_box: Box) -> Box:
        """Return the box of the stored grid whose voxels look at any of a box of the grid."""
        oriented = []
        for axis, (side, crop) in enumerate(zip(grid_box, self.box, strict=True)):
            low, grid = self.padding[axis][0], self.grid_shape[axis]
            sources = slice(min(max(0, side.start - low), grid), min(max(0, side.stop - low), grid))
            mapped = axis_map(grid, self.cropped_shape[axis], self.logits_orders[axis])
            found = reached(mapped, sources)[0] if sources.start < sources.stop else NOWHERE
            oriented.append(slice(crop.start + found.start, crop.start + found.stop))
        return _turned(
            oriented, self.orientation, self.stored_shape, np.argsort(self.orientation.axes)
        )

    def _crop_box(self, stored_box: Box) -> Box:
        """Return a box of the stored grid as one of the crop, in the network's axes."""
        axes = self.orientation.axes
        oriented = []
        for axis, crop in enumerate(self.box):
            side = stored_box[axes[axis]]
            if self.orientation.flipped[axis]:
                side = _mirrored(side, self.stored_shape[axes[axis]])
            size = crop.stop - crop.start
            low, high = (min(max(0, end - crop.start), size) for end in (side.start, side.stop))
            oriented.append(slice(low, high))
        return oriented[0], oriented[1], oriented[2]

    def logits_weights(self) -> tuple[NDArray[np.float32], ...]:
        """Return, along each axis, what each voxel of the crop takes of each of the grid's."""
        return tuple(
            matrix_of(axis_map(n, m, order))
            for n, m, order in zip(
                self.grid_shape, self.cropped_shape, self.logits_orders, strict=True
            )
        )

    def painter(self, classes: int, paint: Paint) -> Decider:
        """Return what takes logits on the network's grid, slab by slab, and hands on each slice.

        Args:
            classes: how many.
            paint: takes the index of a slice of the crop, its rows and columns, and their logits,
                (K, Y, X), on the scan's grid in the network's axes; see `target_of`.
        """
        shape = np.broadcast_to(np.uint8(0), self.cropped_shape)
        values = np.ones(classes, np.uint8)  # no background: every pixel is wanted
        return self._decider(shape, values, paint=paint)

    def _decider(self, target_ZYX: Labels, class_values: Labels, **how: Any) -> Decider:  # noqa: ANN401
        orders, padding = self.logits_orders, self.padding
        return Decider(self.grid_shape, target_ZYX, orders, class_values, padding=padding, **how)

    def target_of(self, stored_ZYX: NDArray[Any]) -> NDArray[Any]:
        """Return the view of an array on the stored grid that `painter` paints."""
        return self.orientation.apply(stored_ZYX)[self.box]

    def scan_index(self) -> list[NDArray[np.intp]]:
        """Return, along each axis, the (uncropped) scan voxel nearest to each grid voxel."""
        return [
            side.start + np.pad(nearest_index(n, m), (low, high), mode="edge")
            for side, n, m, (low, high) in zip(
                self.box, self.cropped_shape, self.grid_shape, self.padding, strict=True
            )
        ]

    def on_this_grid(
        self, coarse_ZYX: NDArray[Any], other: Route, strides: tuple[int, int, int] = (1, 1, 1)
    ) -> NDArray[Any]:
        """Return what another grid of the same scan has at this grid's voxels; 0 where it has none.

        Args:
            coarse_ZYX: on the other grid, a value for the voxels of the scan around each.
            other: the other route.
            strides: along each axis; the middle one of so many voxels stands for them.
        """
        if coarse_ZYX.shape != other.shape_ZYX:
            raise ValueError(f"an array of {other.shape_ZYX} expected, got {coarse_ZYX.shape}")
        axes = [other.orientation.axes.index(axis) for axis in self.orientation.axes]
        indices, inside = [], []
        for axis, scan_index in enumerate(self.scan_index()):
            size, stride = len(scan_index), strides[axis]
            index = scan_index[np.minimum(np.arange(0, size, stride) + stride // 2, size - 1)]
            if self.orientation.flipped[axis] != other.orientation.flipped[axes[axis]]:
                index = self.stored_shape[self.orientation.axes[axis]] - 1 - index
            at, kept = other.grid_index(axes[axis], index)
            indices.append(at)
            inside.append(kept)
        taken = coarse_ZYX.transpose(axes)[np.ix_(*indices)]
        if not all(kept.all() for kept in inside):
            taken[~np.logical_and.outer(np.logical_and.outer(inside[0], inside[1]), inside[2])] = 0
        return taken

    def grid_index(
        self, axis: int, scan_index: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the grid voxels that voxels of the oriented scan lie in, and whether they do."""
        side, cropped, grid = self.box[axis], self.cropped_shape[axis], self.grid_shape[axis]
        inside = (scan_index >= side.start) & (scan_index < side.stop)
        within = np.clip(scan_index - side.start, 0, cropped - 1)
        at = ((within + 0.5) * grid / cropped).astype(np.intp)
        return self.padding[axis][0] + np.minimum(at, grid - 1), inside

    @property
    def _unpadded(self) -> Box:
        z, y, x = (
            slice(low, low + n) for (low, _), n in zip(self.padding, self.grid_shape, strict=True)
        )
        return z, y, x

    def _padded(self, voxels_ZYX: NDArray[Real]) -> NDArray[Real]:
        return np.pad(voxels_ZYX, self.padding) if any(map(any, self.padding)) else voxels_ZYX

    def _blank(self) -> tuple[Labels, Labels]:
        stored = np.zeros(self.stored_shape, np.uint8)
        return stored, self.target_of(stored)


def _turned(
    oriented: Sequence[slice],
    orientation: Orientation,
    stored_shape: Shape,
    order: NDArray[np.intp],
) -> Box:
    """Return a box in the network's axes as one of the stored grid."""
    sides = [
        _mirrored(side, stored_shape[stored]) if flipped else side
        for side, stored, flipped in zip(
            oriented, orientation.axes, orientation.flipped, strict=True
        )
    ]
    z, y, x = (sides[int(axis)] for axis in order)
    return z, y, x


def _mirrored(side: slice, size: int) -> slice:
    return slice(size - side.stop, size - side.start)


def _first(values: tuple[int, int, int], axis: int) -> tuple[int, int, int]:
    a, b = (values[each] for each in range(3) if each != axis)
    return values[axis], a, b


def _check(label_map_ZYX: Labels, shape_ZYX: Shape) -> None:
    if label_map_ZYX.shape != shape_ZYX or label_map_ZYX.dtype != np.uint8:
        raise ValueError(
            f"uint8 {shape_ZYX} expected, got {label_map_ZYX.dtype} {label_map_ZYX.shape}"
        )
