"""A line across a lesion's longest diameter (RECIST) bounds the lesion, and belongs to it.

For scans that come with the voxels of one line (`flare_recist`). The value is how far from either
end of the line the lesion may lie, in lengths of the line; the rest is `flarekit/core/line.py`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.core.line import lesion_at_line
from flarekit.postprocess._scan import Scan

TAKES_VALUE = True
NEEDS_CHANNEL = None
POINTS = "line"


def apply_to_scan(
    label_map_ZYX: NDArray[np.uint8], labels: Sequence[int], value: float | None, scan: Scan
) -> NDArray[np.uint8]:
    """Keep of the first label what belongs to the line; without a line nothing changes."""
    result = label_map_ZYX.copy()
    places = scan.points.get(POINTS)
    if places is None or not len(places) or value is None:
        return result
    own = result == labels[0]
    result[own] = 0
    kept = lesion_at_line(own, scan.spacing_mm_ZYX, places, value)
    result[kept & (result == 0)] = labels[0]
    return result
