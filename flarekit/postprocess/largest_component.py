"""Keep the component with most voxels of each label; the others become background."""

from collections.abc import Sequence

import numpy as np

from flarekit.postprocess._regions import Regions

TAKES_VALUE = False
FILLS = False


def apply(regions: Regions, labels: Sequence[int], value: float | None, voxel_ml: float) -> None:  # noqa: ARG001
    """Keep the largest; of equally large ones, that whose first voxel is first in (Z, Y, X)."""
    components, voxels = regions.components()
    for label in labels:
        own = np.flatnonzero(regions.values == label)
        if len(own):
            largest = np.argmax(voxels[components[own]])  # the first of equals
            regions.values[own[components[own] != components[own[largest]]]] = 0
