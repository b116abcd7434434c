"""Intensities as the network was trained on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import Window, ZScore


def normalise(voxels_ZYX: NDArray[np.float32], how: Window | ZScore) -> NDArray[np.float32]:
    """Return normalised intensities, float32.

    Args:
        voxels_ZYX: one channel, finite.
        how: a fixed window (CT) or the volume's own mean and standard deviation.
    """
    if isinstance(how, Window):
        clipped = np.clip(voxels_ZYX, np.float32(how.low_hu), np.float32(how.high_hu))
        clipped -= np.float32(how.mean)
        clipped /= np.float32(how.std)
        return clipped
    mean, std = float(voxels_ZYX.mean(dtype=np.float64)), float(voxels_ZYX.std(dtype=np.float64))
    return ((voxels_ZYX - np.float32(mean)) / np.float32(max(std, 1e-8))).astype(np.float32)
