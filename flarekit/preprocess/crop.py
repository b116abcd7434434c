"""Crop to the body: most of a field of view is air."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_COARSE_VOXELS = 128


def body_box(
    voxels_ZYX: NDArray[np.float32],
    spacing_mm_ZYX: tuple[float, float, float],
    *,
    threshold: float,
    margin_mm: float,
) -> tuple[slice, slice, slice]:
    """Return the box of the largest connected thing brighter than a threshold.

    Searched on a grid thinned to at most 128 voxels an axis, so the box is exact to one thinned
    voxel, which is added to the margin. A scan with nothing that bright is kept whole.

    Args:
        voxels_ZYX: one channel.
        spacing_mm_ZYX: its spacing.
        threshold: in the channel's own unit (HU for CT).
        margin_mm: what to add on every side.
    """
    import cc3d

    strides = [max(1, -(-n // _COARSE_VOXELS)) for n in voxels_ZYX.shape]
    bright = voxels_ZYX[:: strides[0], :: strides[1], :: strides[2]] > threshold
    if not bright.any():
        z, y, x = voxels_ZYX.shape
        return slice(0, z), slice(0, y), slice(0, x)
    body = cc3d.largest_k(bright, k=1, connectivity=6) > 0
    box = []
    for axis, (size, stride, spacing) in enumerate(
        zip(voxels_ZYX.shape, strides, spacing_mm_ZYX, strict=True)
    ):
        others = tuple(other for other in range(3) if other != axis)
        inside = np.flatnonzero(body.any(axis=others))
        margin = stride + int(np.ceil(margin_mm / spacing))
        first, last = int(inside[0]) * stride - margin, int(inside[-1]) * stride + margin + 1
        box.append(slice(max(0, first), min(size, last)))
    return box[0], box[1], box[2]


def nonzero_mask(channels: Sequence[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Return where any channel is not zero, enclosed zeros included (nnU-Net's mask)."""
    from scipy.ndimage import binary_fill_holes

    mask = channels[0] != 0
    for channel in channels[1:]:
        mask |= channel != 0
    filled: NDArray[np.bool_] = binary_fill_holes(mask)
    return filled


def nonzero_box(mask_ZYX: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Return the box of a mask; the whole volume where it is empty."""
    box = []
    for axis, size in enumerate(mask_ZYX.shape):
        others = tuple(other for other in range(3) if other != axis)
        inside = np.flatnonzero(mask_ZYX.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, size))
    return box[0], box[1], box[2]
