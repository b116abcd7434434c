"""From summed logits to labels on the scan's grid, in the engine's own arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Restoration:
    """How labels on a finer (or coarser) grid come out of logits: weights along each axis.

    Attributes:
        padding: what surrounds the grid in the logits that come, before and after, along each axis.
        weights_Z: (target, source) float32: what each slice wanted takes of each slice that comes.
        weights_Y: the same for rows.
        weights_X: the same for columns.
        class_values: value of each class in the labels; of each region where `regions`.
        regions: classes overlap: one is where its logit is positive, later ones over earlier ones.
    """

    padding: tuple[tuple[int, int], ...]
    weights_Z: NDArray[np.float32]
    weights_Y: NDArray[np.float32]
    weights_X: NDArray[np.float32]
    class_values: NDArray[np.uint8]
    regions: bool = False
