"""Background that a label encloses becomes that label.

As `scipy.ndimage.binary_fill_holes` of the label alone decides, but other labels inside are kept.
Where two labels enclose a hole, the one that the rule lists first takes it.
"""

from __future__ import annotations

from flarekit.postprocess._regions import Regions

TAKES_VALUE = False


def apply(regions: Regions, label: int, value: float | None, voxel_ml: float) -> None:  # noqa: ARG001
    """Fill every hole of the label."""
    regions.values[regions.enclosed(label) & (regions.values == 0)] = label
    regions.values[0] = 0
