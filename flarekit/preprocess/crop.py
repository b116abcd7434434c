"""Crop to the body: most of a field of view is air."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.core.boxes import box_of
from flarekit.preprocess.intensity import Voxels

Index = NDArray[np.intp]

_COARSE_VOXELS = 128


@dataclass(frozen=True, kw_only=True)
class Body:
    """Where the body is.

    Attributes:
        box: around it, margin included.
        inside_ZYX: whether a voxel of the thinned grid is within the margin of the body, holes in
            axial slices filled.
        strides: how many voxels of the scan one of the thinned grid stands for.
        unseen: of each channel that was looked at, which part of the slices that show the body in
            some channel show nothing of it in this one, in [0, 1].
    """

    box: tuple[slice, slice, slice]
    inside_ZYX: NDArray[np.bool_]
    strides: tuple[int, int, int]
    unseen: tuple[float, ...]

    def at(self, index_Z: Index, index_Y: Index, index_X: Index) -> NDArray[np.bool_]:
        """Return `inside_ZYX` at some voxels of the scan along each axis."""
        thinned = [
            np.minimum(index // stride, size - 1)
            for index, stride, size in zip(
                (index_Z, index_Y, index_X), self.strides, self.inside_ZYX.shape, strict=True
            )
        ]
        return self.inside_ZYX[np.ix_(*thinned)]


def find_body(
    channels: Sequence[Voxels],
    spacing_mm_ZYX: tuple[float, float, float],
    *,
    thresholds: Sequence[float],
    margin_mm: float,
) -> Body:
    """Find the largest connected thing brighter than a threshold in any channel.

    Searched on a grid thinned to at most 128 voxels an axis, so the box is exact to one thinned
    voxel, which is added to the margin. A scan with nothing that bright is kept whole.

    Args:
        channels: (Z, Y, X) each, on one grid.
        spacing_mm_ZYX: its spacing.
        thresholds: one per channel, in its own unit (HU for CT).
        margin_mm: what to add on every side.
    """
    import cc3d

    shape = channels[0].shape
    s_Z, s_Y, s_X = (max(1, -(-n // _COARSE_VOXELS)) for n in shape)
    each = [
        voxels_ZYX[::s_Z, ::s_Y, ::s_X] > threshold
        for voxels_ZYX, threshold in zip(channels, thresholds, strict=True)
    ]
    bright: NDArray[np.bool_] = np.logical_or.reduce(each)
    if not bright.any():
        return Body(
            box=whole_box(shape),
            inside_ZYX=np.ones_like(bright),
            strides=(s_Z, s_Y, s_X),
            unseen=(0.0,) * len(each),
        )
    body = cc3d.largest_k(bright, k=1, connectivity=6) > 0
    slices = body.any(axis=(1, 2))
    shown = [(channel & body).any(axis=(1, 2)).sum() / slices.sum() for channel in each]
    box, reach = [], []
    for axis, (size, stride, spacing) in enumerate(
        zip(shape, (s_Z, s_Y, s_X), spacing_mm_ZYX, strict=True)
    ):
        others = tuple(other for other in range(3) if other != axis)
        seen = np.flatnonzero(body.any(axis=others))
        margin = stride + int(np.ceil(margin_mm / spacing))
        first, last = int(seen[0]) * stride - margin, int(seen[-1]) * stride + margin + 1
        box.append(slice(max(0, first), min(size, last)))
        reach.append(-(-margin // stride))
    filled = np.stack([_filled(slice_YX) for slice_YX in body])
    for axis, steps in enumerate(reach):
        filled = grown(filled, axis, steps)
    return Body(
        box=(box[0], box[1], box[2]),
        inside_ZYX=filled,
        strides=(s_Z, s_Y, s_X),
        unseen=tuple(1.0 - float(part) for part in shown),
    )


def _filled(mask_YX: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what the mask encloses: what is not connected to the slice's frame."""
    import cc3d

    around = np.pad(~mask_YX, 1, constant_values=True)
    components = cc3d.connected_components(around, connectivity=4)
    filled: NDArray[np.bool_] = components[1:-1, 1:-1] != components[0, 0]
    return filled


def grown(mask_ZYX: NDArray[np.bool_], axis: int, steps: int) -> NDArray[np.bool_]:
    """Dilate a mask along one axis, by a number of voxels in both directions."""
    ahead = (slice(None),) * axis
    larger = mask_ZYX.copy()
    for step in range(1, min(steps, mask_ZYX.shape[axis] - 1) + 1):
        larger[*ahead, step:] |= mask_ZYX[*ahead, :-step]
        larger[*ahead, :-step] |= mask_ZYX[*ahead, step:]
    return larger


def nonzero_mask(channels: Sequence[Voxels]) -> NDArray[np.bool_]:
    """Return where any channel is not zero (nnU-Net's mask, before its holes are filled)."""
    mask: NDArray[np.bool_] = channels[0] != 0
    for channel in channels[1:]:
        mask |= channel != 0
    return mask


def filled_mask(mask_ZYX: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what a mask encloses."""
    from scipy.ndimage import binary_fill_holes

    filled: NDArray[np.bool_] = binary_fill_holes(mask_ZYX)
    return filled


def whole_box(shape_ZYX: tuple[int, ...]) -> tuple[slice, slice, slice]:
    """Return the box of a whole volume."""
    z, y, x = (slice(0, n) for n in shape_ZYX)
    return z, y, x


def nonzero_box(mask_ZYX: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Return the box of a mask, filled or not; the whole volume where it is empty."""
    return box_of(mask_ZYX) or whole_box(mask_ZYX.shape)
