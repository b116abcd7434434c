"""What follows the tiles of a case, and how long it takes."""

import math

from flarekit.preprocess import Placement
from flarekit.segmentation.speeds import Speeds

_ENDING_S = 0.04  # for what stands in writing, and for the process to end
_GRID = 25  # a voxel of the network's grid takes as long to leave the window as so many of the scan
_SLICE = 120_000  # a slice takes as long to fill as so many voxels, beside its own


def after_tiles_s(placement: Placement, speeds: Speeds, *, fills: bool = False) -> float:
    """Return how long what follows the last slice takes, at most.

    Args:
        placement: of the case.
        speeds: of this machine.
        fills: whether a locator's labels are painted where no tile was run.
    """
    steps = dict.fromkeys(("finish", "rules", "write"), float(_stored(placement)))
    if fills:
        steps["fill"] = fill_amount(placement)
    return _ENDING_S * speeds.slowdown + speeds.all_at_most(steps)


def slice_s(placement: Placement, speeds: Speeds) -> float:
    """Return how long a slice of the network's grid takes that leaves the window, at most."""
    return speeds.at_most("restore", restore_amount(placement))


def restoring_s(placement: Placement, speeds: Speeds, slices: int | None = None) -> float:
    """Return how long slices take that leave the window, as far as can be expected.

    Args:
        placement: of the case.
        speeds: of this machine.
        slices: of the network's grid; all of them where None.
    """
    count = placement.shape_ZYX[0] if slices is None else min(slices, placement.shape_ZYX[0])
    return speeds.seconds("restore", count * restore_amount(placement)) or 0.0


def filling_s(placement: Placement, speeds: Speeds) -> float:
    """Return how long it takes to paint the locator's labels, as far as can be expected."""
    return speeds.seconds("fill", fill_amount(placement)) or 0.0


def restore_amount(placement: Placement) -> float:
    """Return how much work a slice of the network's grid is that leaves the window, in voxels."""
    voxels = _stored(placement) + _GRID * math.prod(placement.shape_ZYX)
    return voxels / placement.shape_ZYX[0]


def fill_amount(placement: Placement) -> float:
    """Return how much work it is to paint the locator's labels, in voxels."""
    return _stored(placement) + _SLICE * placement.cropped_shape[0]


def _stored(placement: Placement) -> int:
    return math.prod(placement.stored_shape)
