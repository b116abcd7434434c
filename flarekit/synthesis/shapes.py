"""Random fields and lesion shapes on a voxel grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.core.boxes import box_of

Spacing = tuple[float, float, float]
Shape = tuple[int, ...]


def smooth_noise(
    shape_ZYX: Shape, spacing_mm: Spacing, length_mm: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return Gaussian noise of mean 0 and deviation 1 that varies over some length.

    The length is the standard deviation of the smoothing.
    """
    from scipy.ndimage import gaussian_filter

    # drawn on a coarser grid where the noise is smooth, which is as good and much faster
    steps = [max(1, int(length_mm / (1.5 * mm))) for mm in spacing_mm]
    coarse = [n // step + 4 for n, step in zip(shape_ZYX, steps, strict=True)]
    white = rng.standard_normal(coarse, dtype=np.float32)
    sigma = [length_mm / (mm * step) for mm, step in zip(spacing_mm, steps, strict=True)]
    smooth: NDArray[np.float32] = gaussian_filter(white, sigma, mode="wrap")
    for axis, (n, step) in enumerate(zip(shape_ZYX, steps, strict=True)):
        smooth = _stretched(smooth, axis, n, step)
    smooth -= smooth.mean()
    smooth /= max(float(smooth.std()), 1e-6)
    return smooth


def _stretched(
    field_ZYX: NDArray[np.float32], axis: int, size: int, step: int
) -> NDArray[np.float32]:
    """Return the first voxels of a field stretched along an axis, linear between its own."""
    if step == 1:
        return np.take(field_ZYX, range(size), axis)
    at, beyond = np.divmod(np.arange(size), step)
    weight = (beyond / step).astype(np.float32).reshape(-1, *[1] * (2 - axis))
    low, high = np.take(field_ZYX, at, axis), np.take(field_ZYX, at + 1, axis)
    return low + weight * (high - low)


def box_around(
    mask_ZYX: NDArray[np.bool_], spacing_mm: Spacing, margin_mm: float
) -> tuple[slice, ...]:
    """Return the box of a mask that is not empty, with a margin of one voxel at least."""
    room = [int(margin_mm / mm) + 2 for mm in spacing_mm]
    box = box_of(mask_ZYX)
    assert box is not None
    return tuple(
        slice(max(0, side.start - n), side.stop + n) for side, n in zip(box, room, strict=True)
    )


def distance_within(
    mask_ZYX: NDArray[np.bool_], spacing_mm: Spacing, reach_mm: float
) -> NDArray[np.float32]:
    """Return the distance to a mask in mm; beyond the reach it may be infinite.

    Only the surroundings of the mask are looked at, which is much faster for small ones.
    """
    from scipy.ndimage import distance_transform_edt

    distance = np.full(mask_ZYX.shape, np.inf, np.float32)
    if mask_ZYX.any():
        box = box_around(mask_ZYX, spacing_mm, reach_mm)
        distance[box] = distance_transform_edt(~mask_ZYX[box], sampling=spacing_mm)
    return distance


@dataclass(frozen=True, kw_only=True)
class BlobLook:
    """How a lesion is formed.

    Attributes:
        diameter_mm: geometric mean of its axes.
        elongation: standard deviation of the logarithm of its axes.
        lobes: how far its surface bulges, as a fraction of the radius.
        spikes: number of thin extensions, as spiculated nodules have them.
    """

    diameter_mm: float
    elongation: float = 0.15
    lobes: float = 0.2
    spikes: int = 0


def blob_depth(
    shape_ZYX: Shape,
    spacing_mm: Spacing,
    centre_ZYX: Sequence[float],
    look: BlobLook,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return how deep each voxel lies in a lesion, in mm; negative outside, roughly a distance.

    The centre is in voxels.
    """
    axes = [
        ((np.arange(n) - c) * mm).astype(np.float32)
        for n, c, mm in zip(shape_ZYX, centre_ZYX, spacing_mm, strict=True)
    ]
    offset = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)
    sizes = np.exp(rng.normal(0, look.elongation, 3))
    sizes = (sizes / np.prod(sizes) ** (1 / 3)).astype(np.float32)
    distance = np.linalg.norm((offset @ turn) / sizes, axis=-1)
    radius = look.diameter_mm / 2
    bulges = smooth_noise(shape_ZYX, spacing_mm, max(0.45 * radius, max(spacing_mm)), rng)
    finer = smooth_noise(shape_ZYX, spacing_mm, max(0.2 * radius, 0.8 * max(spacing_mm)), rng)
    reach = radius * (1 + look.lobes * np.clip(bulges + 0.4 * finer, -2, 2) / 2)
    if look.spikes:
        directions = rng.standard_normal((look.spikes, 3)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        away = offset / np.maximum(np.linalg.norm(offset, axis=-1, keepdims=True), 1e-3)
        for direction, length in zip(directions, rng.uniform(0.2, 0.8, look.spikes), strict=True):
            reach = reach + radius * length * np.exp((away @ direction - 1) / 0.012)
    depth: NDArray[np.float32] = (reach - distance).astype(np.float32)
    return depth
