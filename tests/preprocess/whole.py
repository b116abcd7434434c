"""What is done slab by slab, done with whole volumes at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flarekit.preprocess.decide import Decider
from flarekit.preprocess.nnunet import spline_orders
from flarekit.preprocess.resample import Shape, resample


def argmax_resampled(
    logits_KZYX: NDArray[np.float32], shape_ZYX: Shape, class_values: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Resample logits trilinearly and decide.

    Args:
        logits_KZYX: float32 on the network's grid.
        shape_ZYX: voxel counts wanted; the extent stays.
        class_values: mask value of each class.

    Returns:
        uint8 label map of `shape_ZYX`.
    """
    _, z, y, x = logits_KZYX.shape
    label_map = np.zeros(shape_ZYX, np.uint8)
    decider = Decider((z, y, x), label_map, (1, 1, 1), class_values)
    decider.add(logits_KZYX)
    decider.finish()
    return label_map


def resample_spline(
    voxels_ZYX: NDArray[np.float32],
    shape_ZYX: Shape,
    *,
    order: int,
    axis: int | None,
    axis_order: int,
) -> NDArray[np.float32]:
    """Resample with splines, outer voxel edges kept; in plane, values stay in the input's range.

    Args:
        voxels_ZYX: float32.
        shape_ZYX: voxel counts wanted.
        order: of the splines.
        axis: 0 where that is resampled by itself after the others; None for all at once.
        axis_order: of the splines along that axis.
    """
    z, y, x = voxels_ZYX.shape
    orders = spline_orders(order, axis, axis_order)
    return resample(lambda part: voxels_ZYX[part], (z, y, x), shape_ZYX, orders, apart=axis)


def resample_linear(voxels_ZYX: NDArray[np.float32], shape_ZYX: Shape) -> NDArray[np.float32]:
    """Resample intensities trilinearly; see `resample`."""
    if voxels_ZYX.shape == shape_ZYX:
        return voxels_ZYX
    z, y, x = voxels_ZYX.shape
    return resample(lambda part: voxels_ZYX[part], (z, y, x), shape_ZYX, (1, 1, 1))


def restore_logits(placement, logits_KZYX, class_values):
    """Return the label map on the stored grid that logits on the network's grid decide.

    Raises:
        ValueError: another grid, or another number of classes.
    """
    decider, label_map = placement.decider(class_values)
    decider.add(logits_KZYX)
    decider.finish()
    return label_map
