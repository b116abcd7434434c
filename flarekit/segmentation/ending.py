"""What follows the tiles of a case, and how long it takes at most."""

from __future__ import annotations

import math

from flarekit.preprocess import Placement
from flarekit.segmentation.speeds import Speeds

_ENDING_S = 0.06  # for what stands in writing, and for the process to end


def after_tiles_s(
    placement: Placement, speeds: Speeds, depth: int, *, fills: bool = False
) -> float:
    """Return how long what follows the last tile takes, at most.

    Args:
        placement: of the case.
        speeds: of this machine.
        depth: slices that are run together.
        fills: whether a locator's labels are painted where no tile was run.
    """
    voxels = math.prod(placement.route.stored_shape)
    steps = {"settle": settled_share(placement, depth) * voxels}
    steps |= dict.fromkeys(("finish", "rules", "write", *(("fill",) if fills else ())), voxels)
    return _ENDING_S * speeds.slowdown + speeds.all_at_most(steps)


def settled_share(placement: Placement, depth: int) -> float:
    """Return the share of the slices that are decided after the last tile.

    Args:
        placement: of the case.
        depth: slices that are run together.
    """
    return min(1.0, depth / placement.shape_ZYX[0])


def filling_s(placement: Placement, speeds: Speeds) -> float:
    """Return how long it takes to paint the locator's labels, as far as can be expected."""
    return speeds.seconds("fill", math.prod(placement.route.stored_shape)) or 0.0
