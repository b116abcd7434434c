"""Background that a label encloses becomes that label.

As `scipy.ndimage.binary_fill_holes` of the label alone decides, but other labels inside are kept.
Where two labels enclose a hole, the one that the rule lists first takes it, even if the other lies
between: that fill is a component of its own, and `largest_component` would keep it alone if it has
more voxels than the label around it.
"""

from collections.abc import Sequence

from flarekit.postprocess._regions import Regions

TAKES_VALUE = False
FILLS = True


def apply(regions: Regions, labels: Sequence[int], value: float | None, voxel_ml: float) -> None:  # noqa: ARG001
    """Fill every hole of each label."""
    for label in labels:
        regions.values[regions.enclosed(label) & (regions.values == 0)] = label
