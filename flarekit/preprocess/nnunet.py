"""Exactly what nnU-Net (2.8) does around its network: transpose, crop, normalise, splines.

Isensee et al., Nature Methods 18 (2021), online methods; where they are silent, nnunetv2 decides.
Slow on purpose of being the same; the default preparation is in `flarekit.preprocess`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import Nnunet, PredictorSpec
from flarekit.core.volume import Volume
from flarekit.preprocess.crop import nonzero_box, nonzero_mask
from flarekit.preprocess.intensity import normalise
from flarekit.preprocess.prepared import Prepared, check_label_map, check_logits
from flarekit.preprocess.resample import Shape, resample_nearest, resampled_shape, target_spacing

_ANISOTROPIC = 3.0  # from this ratio on, the coarsest axis is resampled by itself


def prepare_nnunet(volumes: Sequence[Volume], spec: PredictorSpec, how: Nnunet) -> Prepared:
    """Prepare one case as nnU-Net does.

    Args:
        volumes: one per channel, on one grid.
        spec: the predictor's facts.
        how: nnU-Net's plans.
    """
    geometry = volumes[0].geometry
    stored = [volume.voxels_ZYX.transpose(how.transpose) for volume in volumes]
    stored_mm = geometry.spacing_mm_ZYX
    spacing_mm = (
        stored_mm[how.transpose[0]], stored_mm[how.transpose[1]], stored_mm[how.transpose[2]]
    )  # fmt: skip
    mask = nonzero_mask(stored)
    box = nonzero_box(mask)
    inside = mask[box]
    cropped_shape: Shape = inside.shape
    target_mm = target_spacing(spec.grid, spacing_mm, cropped_shape)
    grid_shape = resampled_shape(cropped_shape, spacing_mm, target_mm)
    axis = separate_axis(how, spacing_mm, target_mm)
    channels = [
        resample_spline(
            normalise(voxels[box], channel.intensity, inside=inside),
            grid_shape,
            order=how.image_order,
            axis=axis,
            axis_order=how.image_order_z,
        )
        for voxels, channel in zip(stored, spec.channels, strict=True)
    ]
    padding = [max(0, tile - n) for tile, n in zip(spec.grid.tile_ZYX, grid_shape, strict=True)]
    sides = [(n // 2, n - n // 2) for n in padding]
    real = tuple(slice(low, low + n) for (low, _), n in zip(sides, grid_shape, strict=True))
    z, y, x = (n + more for n, more in zip(grid_shape, padding, strict=True))
    padded_shape: Shape = (z, y, x)

    def uncropped(label_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
        full = np.zeros(stored[0].shape, np.uint8)
        full[box] = label_map
        back = tuple(int(k) for k in np.argsort(how.transpose))
        return np.ascontiguousarray(full.transpose(back))

    def restore(label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_label_map(label_map_ZYX, padded_shape)
        return uncropped(resample_nearest(label_map_ZYX[real], cropped_shape))

    def restore_logits(
        logits_KZYX: NDArray[np.float32], class_values: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        check_logits(logits_KZYX, padded_shape, class_values)
        back_axis = separate_axis(how, target_mm, spacing_mm)
        best = np.full(cropped_shape, -np.inf, np.float32)
        label_map = np.zeros(cropped_shape, np.uint8)
        for logits_ZYX, value in zip(logits_KZYX, class_values, strict=True):
            resampled = resample_spline(
                logits_ZYX[real],
                cropped_shape,
                order=how.logits_order,
                axis=back_axis,
                axis_order=how.logits_order_z,
            )
            if how.region_values:  # a region is where its sigmoid is above one half
                label_map[resampled > 0] = value
                continue
            better = resampled > best
            label_map[better] = value
            np.maximum(best, resampled, out=best)
        return uncropped(label_map)

    def grid_labels(label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_label_map(label_map_ZYX, geometry.shape_ZYX)
        gridded = resample_nearest(label_map_ZYX.transpose(how.transpose)[box], grid_shape)
        return np.pad(gridded, sides)

    return Prepared(
        tensor_CZYX=np.stack([np.pad(channel, sides) for channel in channels]),
        restore=restore,
        restore_logits=restore_logits,
        grid_labels=grid_labels,
        voxel_ml=float(np.prod(target_mm)) / 1000.0,
        stored_voxel_ml=float(np.prod(stored_mm)) / 1000.0,
    )


def separate_axis(
    how: Nnunet, spacing_mm: tuple[float, float, float], target_mm: tuple[float, float, float]
) -> int | None:
    """Return the axis that is resampled by itself, None where all go together.

    nnU-Net's choice: the coarsest axis of the first of the two spacings that is anisotropic; never
    where two axes share the coarsest spacing.
    """
    if how.separate_z is False:
        return None
    for spacing in (spacing_mm, target_mm):
        if how.separate_z or max(spacing) / min(spacing) > _ANISOTROPIC:
            coarsest = np.flatnonzero(np.array(spacing) == max(spacing))
            return int(coarsest[0]) if len(coarsest) == 1 else None
    return None


def resample_spline(
    voxels_ZYX: NDArray[np.float32],
    shape_ZYX: Shape,
    *,
    order: int,
    axis: int | None,
    axis_order: int,
) -> NDArray[np.float32]:
    """Resample with splines, outer voxel edges kept; in plane, values stay in the input's range.

    Args:
        voxels_ZYX: float32.
        shape_ZYX: voxel counts wanted.
        order: of the splines.
        axis: to be resampled by itself after the others, slice by slice; None for all at once.
        axis_order: of the splines along that axis.
    """
    if voxels_ZYX.shape == shape_ZYX:
        return voxels_ZYX
    if axis is None:
        return _zoomed(voxels_ZYX, shape_ZYX, order)
    in_plane = np.moveaxis(voxels_ZYX, axis, 0)
    wanted = tuple(n for k, n in enumerate(shape_ZYX) if k != axis)
    if in_plane.shape[1:] != wanted:
        in_plane = np.stack([_zoomed(plane, wanted, order) for plane in in_plane])
    if len(in_plane) != shape_ZYX[axis]:
        in_plane = _along_first(in_plane, shape_ZYX[axis], axis_order)
    return np.moveaxis(in_plane, 0, axis)


def _zoomed(voxels: NDArray[np.float32], shape: tuple[int, ...], order: int) -> NDArray[np.float32]:
    from scipy.ndimage import zoom

    if order == 1 and voxels.ndim == 3:
        from flarekit.preprocess.resample import resample_linear

        return resample_linear(voxels, (shape[0], shape[1], shape[2]))
    factors = [wanted / n for wanted, n in zip(shape, voxels.shape, strict=True)]
    zoomed = zoom(voxels, factors, order=order, mode="nearest", grid_mode=True)
    clipped: NDArray[np.float32] = np.clip(zoomed, voxels.min(), voxels.max())
    return clipped


def _along_first(voxels: NDArray[np.float32], count: int, order: int) -> NDArray[np.float32]:
    from scipy.ndimage import map_coordinates

    positions = (np.arange(count) + 0.5) * len(voxels) / count - 0.5
    if order == 0:
        nearest: NDArray[np.float32] = voxels[
            np.clip(np.floor(positions + 0.5).astype(np.intp), 0, len(voxels) - 1)
        ]
        return nearest
    grid = np.meshgrid(positions, *(np.arange(n) for n in voxels.shape[1:]), indexing="ij")
    mapped: NDArray[np.float32] = map_coordinates(voxels, grid, order=order, mode="nearest")
    return mapped
