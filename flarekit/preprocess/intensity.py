"""Intensities as the network was trained on them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.channels import (
    Intensity,
    PercentileZScore,
    Rescale,
    Scale,
    SliceRescale,
    SliceZScore,
    Window,
    ZScore,
)

Voxels = NDArray[np.float32] | NDArray[np.integer[Any]]


def normalise(
    voxels_ZYX: Voxels, how: Intensity, *, inside: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Return normalised intensities, float32; see `normaliser`."""
    return normaliser(voxels_ZYX, how, inside=inside)(slice(None))


def normaliser(
    voxels_ZYX: Voxels, how: Intensity, *, inside: NDArray[np.bool_] | None = None
) -> Callable[[slice], NDArray[np.float32]]:
    """Return what gives the normalised intensities of a range of Z.

    What depends on the whole volume is computed here, once; floats exist for that range only. For
    `SliceZScore` and `SliceRescale`, which come after resampling, intensities stay as they are.

    Args:
        voxels_ZYX: one channel, finite.
        how: from the predictor's facts.
        inside: what a masked z-score looks at; all voxels where None.
    """
    if isinstance(how, Window):
        low, high, mean, std = (np.float32(x) for x in (how.low_hu, how.high_hu, how.mean, how.std))
        return lambda part: (np.clip(_floats(voxels_ZYX[part]), low, high) - mean) / std
    if isinstance(how, Scale):
        divisor = np.float32(how.divisor)
        return lambda part: _floats(voxels_ZYX[part]) / divisor
    if isinstance(how, Rescale):
        lowest = np.float32(voxels_ZYX.min())
        span = np.float32(max(float(voxels_ZYX.max()) - float(lowest), 1e-8))
        return lambda part: (_floats(voxels_ZYX[part]) - lowest) / span
    if isinstance(how, PercentileZScore):
        return _percentile_z_scorer(voxels_ZYX, how)
    if isinstance(how, ZScore):
        return _z_scorer(voxels_ZYX, inside if how.masked else None)
    return lambda part: _floats(voxels_ZYX[part])


def _floats(voxels_ZYX: Voxels) -> NDArray[np.float32]:
    return voxels_ZYX.astype(np.float32, copy=False)


def normalise_slices(
    voxels_ZYX: NDArray[np.float32], how: SliceZScore | SliceRescale
) -> NDArray[np.float32]:
    """Normalise every axial slice by what is in it; a flat slice becomes 0."""
    normalised = np.empty_like(voxels_ZYX)
    if isinstance(how, SliceRescale):
        for slice_YX, out_YX in zip(voxels_ZYX, normalised, strict=True):
            lowest, highest = float(slice_YX.min()), float(slice_YX.max())
            out_YX[:] = (slice_YX - lowest) / max(highest - lowest, 1e-8)
        return normalised
    percentiles = (how.low_percentile, how.high_percentile)
    for slice_YX, out_YX in zip(voxels_ZYX, normalised, strict=True):
        low, high = np.percentile(slice_YX, percentiles)
        clipped = np.clip(slice_YX, low, high)
        out_YX[:] = (clipped - clipped.mean()) / max(float(clipped.std()), 1e-8)
    return normalised


def _percentile_z_scorer(
    voxels_ZYX: Voxels, how: PercentileZScore
) -> Callable[[slice], NDArray[np.float32]]:
    low, high = np.percentile(voxels_ZYX, (how.low_percentile, how.high_percentile))
    low, high = np.float32(low), np.float32(high)
    mean, std = how.mean, how.std
    if mean is None or std is None:
        clipped = np.clip(_floats(voxels_ZYX), low, high)
        mean, std = float(clipped.mean(dtype=np.float64)), float(clipped.std(dtype=np.float64))
    shift, scale = np.float32(mean), np.float32(max(std, 1e-8))
    return lambda part: (np.clip(_floats(voxels_ZYX[part]), low, high) - shift) / scale


def _z_scorer(
    voxels_ZYX: Voxels, inside: NDArray[np.bool_] | None
) -> Callable[[slice], NDArray[np.float32]]:
    where = inside if inside is not None and inside.any() else None
    seen = voxels_ZYX if where is None else voxels_ZYX[where]
    mean = np.float32(seen.mean(dtype=np.float64))
    std = np.float32(max(float(seen.std(dtype=np.float64)), 1e-8))
    if where is None:
        return lambda part: (_floats(voxels_ZYX[part]) - mean) / std
    return lambda part: np.where(
        where[part], (_floats(voxels_ZYX[part]) - mean) / std, np.float32(0)
    )
