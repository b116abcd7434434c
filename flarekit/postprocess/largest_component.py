"""Keep the component with most voxels of a label; the others become background."""

from __future__ import annotations

import numpy as np

from flarekit.postprocess._regions import Regions

TAKES_VALUE = False


def apply(regions: Regions, label: int, value: float | None, voxel_ml: float) -> None:  # noqa: ARG001
    """Keep the largest; of two equally large ones, the one that comes first in memory."""
    groups = regions.components(label)
    own = np.flatnonzero(groups >= 0)
    if len(own):
        voxels = np.bincount(groups[own], weights=regions.sizes[own])
        first_largest = next(group for group in groups[own] if voxels[group] == voxels.max())
        regions.values[own[groups[own] != first_largest]] = 0
