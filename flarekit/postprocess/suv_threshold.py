"""Labelled voxels whose standardised uptake is below a value become background."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.postprocess._scan import Scan

TAKES_VALUE = True
NEEDS_CHANNEL = "PET"


def apply_to_scan(
    label_map_ZYX: NDArray[np.uint8], labels: Sequence[int], value: float | None, scan: Scan
) -> NDArray[np.uint8]:
    """Keep the voxels of the labels with an SUV of at least `value`."""
    result = label_map_ZYX.copy()
    if value is not None:
        result[np.isin(result, labels) & (scan.channel(NEEDS_CHANNEL) < value)] = 0
    return result
