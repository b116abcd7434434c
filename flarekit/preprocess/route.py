"""How a case went from the stored grid to the network's, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flarekit.core.volume import Orientation
from flarekit.preprocess.decide import Decider, Paint, Painter
from flarekit.preprocess.resample import (
    Orders,
    Shape,
    axis_map,
    matrix_of,
    nearest_index,
    resample,
    resample_nearest,
)

Labels = NDArray[np.uint8]
Box = tuple[slice, slice, slice]
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
        """Of the crop at the scan's spacing."""
        z, y, x = (side.stop - side.start for side in self.box)
        return z, y, x

    @property
    def padded_shape(self) -> Shape:
        """Of the network's grid."""
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

    def restore(self, label_map_ZYX: Labels) -> Labels:
        """Return a label map of the network's grid on the stored grid, by nearest neighbours."""
        _check(label_map_ZYX, self.padded_shape)
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
        """Return a label map of the stored grid on the network's, by nearest neighbours."""
        _check(label_map_ZYX, self.stored_shape)
        cropped = self.orientation.apply(label_map_ZYX)[self.box]
        return self._padded(resample_nearest(cropped, self.grid_shape))

    def decider(self, class_values: Labels) -> tuple[Decider, Labels]:
        """Return what takes logits on the network's grid, and the stored label map it paints."""
        stored, target = self._blank()
        paint = Decider(
            self.grid_shape,
            target,
            self.logits_orders,
            class_values,
            regions=self.regions,
            padding=self.padding,
        )
        return paint, stored

    def logits_weights(self) -> tuple[NDArray[np.float32], ...]:
        """Return, along each axis, what each voxel of the crop takes of each of the grid's."""
        return tuple(
            matrix_of(axis_map(n, m, order))
            for n, m, order in zip(
                self.grid_shape, self.cropped_shape, self.logits_orders, strict=True
            )
        )

    def painter(self, classes: int, paint: Paint) -> Painter:
        """Return what takes logits on the network's grid and paints their slices on the crop's."""
        shape = np.broadcast_to(np.uint8(0), self.cropped_shape)
        return Painter(
            self.grid_shape, shape, self.logits_orders, classes, paint, padding=self.padding
        )

    def target_of(self, stored_ZYX: NDArray[Any]) -> NDArray[Any]:
        """Return the view of a stored array that the crop is, in the network's axes."""
        return self.orientation.apply(stored_ZYX)[self.box]

    def scan_index(self) -> list[NDArray[np.intp]]:
        """Return, along each axis, the (uncropped) scan voxel nearest to each grid voxel."""
        return [
            side.start + np.pad(nearest_index(n, m), (low, high), mode="edge")
            for side, n, m, (low, high) in zip(
                self.box, self.cropped_shape, self.grid_shape, self.padding, strict=True
            )
        ]

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


def _first(values: tuple[int, int, int], axis: int) -> tuple[int, int, int]:
    a, b = (values[each] for each in range(3) if each != axis)
    return values[axis], a, b


def _check(label_map_ZYX: Labels, shape_ZYX: Shape) -> None:
    if label_map_ZYX.shape != shape_ZYX or label_map_ZYX.dtype != np.uint8:
        raise ValueError(
            f"uint8 {shape_ZYX} expected, got {label_map_ZYX.dtype} {label_map_ZYX.shape}"
        )
