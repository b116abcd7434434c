"""What follows the tiles of a case, and how long it takes at most."""

from __future__ import annotations

import math

from flarekit.preprocess import Placement
from flarekit.segmentation.speeds import Speeds

_AFTER_WINDOW = ("finish", "rules", "write")
_ENDING_S = 0.06  # for what stands in writing, and for the process to end


def after_window_s(placement: Placement, speeds: Speeds, *, fills: bool = False) -> float:
    """Return how long what follows the window takes, at most.

    Args:
        placement: of the case.
        speeds: of this machine.
        fills: whether a locator's labels are painted where no tile was run.
    """
    voxels = math.prod(placement.route.stored_shape)
    after_s = _ENDING_S * speeds.slowdown
    after_s += sum(speeds.at_most(what, voxels) for what in _AFTER_WINDOW)
    if fills:
        after_s += filling_s(placement, speeds)
    return after_s


def settling_s(placement: Placement, speeds: Speeds) -> float:
    """Return how long the window takes to decide labels in all slices, at most."""
    return speeds.at_most("settle", math.prod(placement.route.stored_shape))


def filling_s(placement: Placement, speeds: Speeds) -> float:
    """Return the part of that in which the locator's labels are painted."""
    return speeds.at_most("fill", math.prod(placement.route.stored_shape))
