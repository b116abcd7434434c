"""From one voxel grid to another: linear for intensities, nearest for labels.

Both grids share the outer edges of their voxels (`align_corners=False`), so index i of n target
voxels lies at (i + 0.5) * source / n - 0.5 in source voxels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import Grid

Shape = tuple[int, int, int]


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


def resample_linear(voxels_ZYX: NDArray[np.float32], shape_ZYX: Shape) -> NDArray[np.float32]:
    """Resample intensities trilinearly in one pass.

    Args:
        voxels_ZYX: float32.
        shape_ZYX: voxel counts wanted; the extent stays.

    Returns:
        float32 of `shape_ZYX`.
    """
    if voxels_ZYX.shape == shape_ZYX:
        return voxels_ZYX
    import torch
    from torch.nn import functional

    source = np.ascontiguousarray(voxels_ZYX)
    if not source.flags.writeable or min(source.strides) < 0:  # torch takes neither
        source = source.copy()
    x_BCZYX = torch.from_numpy(source)[None, None]
    resampled = functional.interpolate(
        x_BCZYX, size=shape_ZYX, mode="trilinear", align_corners=False
    )
    result: NDArray[np.float32] = resampled[0, 0].numpy()
    return result


def argmax_resampled(
    logits_KZYX: NDArray[np.float32], shape_ZYX: Shape, class_values: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Resample logits trilinearly and decide, slice by slice: no full float volume ever exists.

    Args:
        logits_KZYX: float32 on the network's grid.
        shape_ZYX: voxel counts wanted; the extent stays.
        class_values: mask value of each class.

    Returns:
        uint8 label map of `shape_ZYX`.
    """
    import torch
    from torch.nn import functional

    logits = torch.from_numpy(logits_KZYX)
    count = logits.shape[1]
    label_map = np.empty(shape_ZYX, np.uint8)
    for z in range(shape_ZYX[0]):
        position = min(max((z + 0.5) * count / shape_ZYX[0] - 0.5, 0.0), count - 1.0)
        low = int(position)
        slice_KYX = torch.lerp(logits[:, low], logits[:, min(low + 1, count - 1)], position - low)
        in_plane = functional.interpolate(
            slice_KYX[None], size=shape_ZYX[1:], mode="bilinear", align_corners=False
        )
        label_map[z] = class_values[in_plane[0].argmax(dim=0).numpy()]
    return label_map


def resample_nearest(label_map_ZYX: NDArray[np.uint8], shape_ZYX: Shape) -> NDArray[np.uint8]:
    """Resample labels: each target voxel takes the source voxel that its centre lies in."""
    if label_map_ZYX.shape == shape_ZYX:
        return label_map_ZYX
    for axis, (source, target) in enumerate(zip(label_map_ZYX.shape, shape_ZYX, strict=True)):
        index = ((np.arange(target) + 0.5) * source / target).astype(np.intp)
        label_map_ZYX = np.take(label_map_ZYX, np.minimum(index, source - 1), axis=axis)
    return label_map_ZYX
