"""What preparing a case gives: the network's input, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What the network gets, and how to bring labels back.

    Attributes:
        tensor_CZYX: float32, oriented, cropped, at the predictor's spacing.
        restore: label map on the network's grid -> label map on the scan's stored grid, C-ordered.
        grid_labels: label map on the stored grid -> on the network's grid (for training).
            Both raise ValueError for a label map of another grid or not uint8.
        voxel_ml: volume of one voxel of the network's grid.
        restore_logits: logits (K, Z, Y, X) on the network's grid and the mask value of each class
            -> label map on the stored grid; None where the argmax is taken on the network's grid.
            Raises ValueError for logits of another grid or another number of classes.
        stored_voxel_ml: volume of one voxel of the stored grid.
    """

    tensor_CZYX: NDArray[np.float32]
    restore: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    grid_labels: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    voxel_ml: float
    stored_voxel_ml: float
    restore_logits: Callable[[NDArray[np.float32], NDArray[np.uint8]], NDArray[np.uint8]] | None = (
        None
    )


def check_label_map(label_map_ZYX: NDArray[np.uint8], shape_ZYX: tuple[int, int, int]) -> None:
    """Raise ValueError unless a label map is uint8 and of that shape."""
    if label_map_ZYX.shape != shape_ZYX or label_map_ZYX.dtype != np.uint8:
        raise ValueError(
            f"uint8 {shape_ZYX} expected, got {label_map_ZYX.dtype} {label_map_ZYX.shape}"
        )


def check_logits(
    logits_KZYX: NDArray[np.float32],
    shape_ZYX: tuple[int, int, int],
    class_values: NDArray[np.uint8],
) -> None:
    """Raise ValueError unless logits are of that shape, with one channel per class value."""
    expected = (len(class_values), *shape_ZYX)
    if logits_KZYX.shape != expected:
        raise ValueError(f"logits {expected} expected, got {logits_KZYX.shape}")
