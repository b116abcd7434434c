"""Boxes of masks and label maps."""

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]


def box_of(mask_ZYX: NDArray[np.bool_] | NDArray[np.uint8]) -> Box | None:
    """Return the smallest box that holds a mask, or all labels; None where nothing is in it."""
    top_YX = np.asarray(mask_ZYX.any(axis=0))
    if not top_YX.any():
        return None
    profiles = (mask_ZYX.any(axis=(1, 2)), top_YX.any(axis=1), top_YX.any(axis=0))
    z, y, x = (np.flatnonzero(profile)[[0, -1]].tolist() for profile in profiles)
    return slice(z[0], z[1] + 1), slice(y[0], y[1] + 1), slice(x[0], x[1] + 1)
