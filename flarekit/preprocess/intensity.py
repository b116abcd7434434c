"""Intensities as the network was trained on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import Intensity, Rescale, Scale, SliceZScore, Window, ZScore


def normalise(
    voxels_ZYX: NDArray[np.float32], how: Intensity, *, inside: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Return normalised intensities, float32; for `SliceZScore` see `normalise_slices`.

    Args:
        voxels_ZYX: one channel, finite.
        how: from the predictor's facts.
        inside: what a masked z-score looks at; all voxels where None.
    """
    if isinstance(how, Window):
        clipped = np.clip(voxels_ZYX, np.float32(how.low_hu), np.float32(how.high_hu))
        clipped -= np.float32(how.mean)
        clipped /= np.float32(how.std)
        return clipped
    if isinstance(how, Scale):
        scaled: NDArray[np.float32] = voxels_ZYX / np.float32(how.divisor)
        return scaled
    if isinstance(how, Rescale):
        lowest = voxels_ZYX.min()
        span = max(float(voxels_ZYX.max() - lowest), 1e-8)
        rescaled: NDArray[np.float32] = (voxels_ZYX - lowest) / np.float32(span)
        return rescaled
    if isinstance(how, ZScore):
        return _z_score(voxels_ZYX, how, inside)
    return normalise_slices(voxels_ZYX, how)


def normalise_slices(voxels_ZYX: NDArray[np.float32], how: SliceZScore) -> NDArray[np.float32]:
    """Clip every axial slice to its own percentiles and z-score it; a flat slice becomes 0."""
    normalised = np.empty_like(voxels_ZYX)
    percentiles = (how.low_percentile, how.high_percentile)
    for slice_YX, out_YX in zip(voxels_ZYX, normalised, strict=True):
        low, high = np.percentile(slice_YX, percentiles)
        clipped = np.clip(slice_YX, low, high)
        out_YX[:] = (clipped - clipped.mean()) / max(float(clipped.std()), 1e-8)
    return normalised


def _z_score(
    voxels_ZYX: NDArray[np.float32], how: ZScore, inside: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    where = inside if how.masked and inside is not None and inside.any() else None
    seen = voxels_ZYX if where is None else voxels_ZYX[where]
    mean, std = float(seen.mean(dtype=np.float64)), float(seen.std(dtype=np.float64))
    scored = (voxels_ZYX - np.float32(mean)) / np.float32(max(std, 1e-8))
    return scored if where is None else np.where(where, scored, np.float32(0))
