"""Components of a label smaller than a volume become background."""

from __future__ import annotations

import numpy as np

from flarekit.postprocess._regions import Regions

TAKES_VALUE = True


def apply(regions: Regions, label: int, value: float | None, voxel_ml: float) -> None:
    """Drop every component of fewer than `value` ml."""
    groups = regions.components(label)
    own = np.flatnonzero(groups >= 0)
    if len(own) and value is not None:
        volumes_ml = np.bincount(groups[own], weights=regions.sizes[own]) * voxel_ml
        regions.values[own[volumes_ml[groups[own]] < value]] = 0
