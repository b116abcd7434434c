"""Components of a label smaller than a volume become background."""

import math
from collections.abc import Sequence

import numpy as np

from flarekit.postprocess._regions import Regions

TAKES_VALUE = True
FILLS = False


def apply(regions: Regions, labels: Sequence[int], value: float | None, voxel_ml: float) -> None:
    """Drop every component of fewer than `value` ml; one of exactly that volume stays."""
    if value is not None:
        components, voxels = regions.components()
        fewest = math.ceil(value / voxel_ml - 1e-6)  # 100 voxels of 0.57 ml are 56.99999999999999
        small = voxels[components] < fewest
        regions.values[small & np.isin(regions.values, labels)] = 0
