"""Keep the component of each label at the scan's centre, else the nearest to it; never nothing.

For scans that were cut out around what is to be segmented (ULS23). A label without a voxel gets a
ball of 10 mm across at the centre. Here voxels belong together that touch by a face.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.core.central import central_component
from flarekit.postprocess._scan import Scan

TAKES_VALUE = False
NEEDS_CHANNEL = None


def apply_to_scan(
    label_map_ZYX: NDArray[np.uint8],
    labels: Sequence[int],
    value: float | None,  # noqa: ARG001
    scan: Scan,
) -> NDArray[np.uint8]:
    """Keep one component of each label; voxels of other labels are never taken."""
    result = label_map_ZYX.copy()
    for label in labels:
        own = result == label
        kept = central_component(own, scan.spacing_mm_ZYX, own | (result == 0))
        result[own] = 0
        result[kept] = label
    return result
