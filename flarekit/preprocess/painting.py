"""Who takes what `Decider` decides, but does something else with it than paint every label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.preprocess.decide import Box, Decider, Paint, within
from flarekit.preprocess.resample import Orders, Shape


class Painter(Decider):
    """Takes logits in slabs of ascending Z, hands on whole slices of them on the scan's grid.

    Args:
        grid_ZYX: shape of the logits' grid.
        target_ZYX: an array of the wanted shape; not touched.
        orders: of the splines between the two grids.
        classes: how many.
        paint: takes the index of a slice, some rows and columns, and their logits, (K, Y, X). They
            come in any order, and from several threads.
        padding: what surrounds the grid in the logits that come.
    """

    def __init__(
        self,
        grid_ZYX: Shape,
        target_ZYX: NDArray[np.uint8],
        orders: Orders,
        classes: int,
        paint: Paint,
        *,
        padding: tuple[tuple[int, int], ...],
    ) -> None:
        values = np.ones(classes, np.uint8)  # no background: every pixel is wanted
        super().__init__(grid_ZYX, target_ZYX, orders, values, padding=padding)
        self._paint_plane = paint

    def _take_plane(
        self, z: int, rows: slice, columns: slice, logits_KYX: NDArray[np.float32]
    ) -> None:
        self._paint_plane(z, rows, columns, logits_KYX)


class Filler(Decider):
    """Takes logits in slabs of ascending Z, paints labels where nothing was decided before.

    Args:
        grid_ZYX: shape of the logits' grid.
        target_ZYX: label map to paint, a view of any strides; its extent is the grid's.
        orders: of the splines between the two grids.
        class_values: mask value of each class.
        decided: boxes of the target that stay as they are.
        padding: what surrounds the grid in the logits that come.
    """

    def __init__(
        self,
        grid_ZYX: Shape,
        target_ZYX: NDArray[np.uint8],
        orders: Orders,
        class_values: NDArray[np.uint8],
        *,
        decided: Sequence[Box],
        padding: tuple[tuple[int, int], ...],
    ) -> None:
        super().__init__(grid_ZYX, target_ZYX, orders, class_values, padding=padding)
        self._decided = decided

    def _take_labels(self, z: int, rows: slice, columns: slice, labels: NDArray[np.uint8]) -> None:
        free = np.ones(labels.shape, bool)
        for box_Z, box_Y, box_X in self._decided:
            if box_Z.start <= z < box_Z.stop:
                free[within(box_Y, rows), within(box_X, columns)] = False
        np.copyto(self._target_ZYX[z, rows, columns], labels, where=free)
