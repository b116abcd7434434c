"""Drop components whose volume, extent, compactness and intensity no training lesion has.

The value is the largest distance (Mahalanobis) from the lesions that the rule's `gate` describes;
`flarekit train gate` measures them and sets both. What a network takes for lesions in healthy
patients, such as vessels and bowel, is seldom shaped as lesions are.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.core.gate import Gate, component_features
from flarekit.postprocess._scan import Scan

TAKES_VALUE = True
NEEDS_CHANNEL = None
NEEDS_GATE = True


def apply_to_scan(
    label_map_ZYX: NDArray[np.uint8],
    labels: Sequence[int],
    value: float | None,
    scan: Scan,
    gate: Gate,
) -> NDArray[np.uint8]:
    """Drop the components (26 neighbours) of each label that lie beyond the gate."""
    import cc3d

    result = label_map_ZYX.copy()
    intensity = scan.channel(gate.channel)
    for label in labels:
        numbered = cc3d.connected_components(result == label, connectivity=26)
        boxes = cc3d.statistics(numbered)["bounding_boxes"]
        for number, box in enumerate(boxes[1:], 1):
            inside = numbered[box] == number
            features = component_features(inside, intensity[box], scan.spacing_mm_ZYX)
            if value is not None and gate.distance(features) > value:
                result[box][inside] = 0
    return result
