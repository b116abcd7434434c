"""Exactly what nnU-Net (2.8) does around its network: transpose, crop, normalise, splines.

Isensee et al., Nature Methods 18 (2021), online methods; where they are silent, nnunetv2 decides.
Slow on purpose of being the same; the default preparation is in `flarekit.preprocess`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import Nnunet, PredictorSpec
from flarekit.core.volume import Volume
from flarekit.preprocess.crop import nonzero_box, nonzero_mask
from flarekit.preprocess.intensity import normalise
from flarekit.preprocess.prepared import Prepared, check_label_map, check_logits
from flarekit.preprocess.resample import Shape, resample_nearest, resampled_shape, target_spacing

T = TypeVar("T", int, float)
_ANISOTROPIC = 3.0  # from this ratio on, the coarsest axis is resampled by itself


def prepare_nnunet(volumes: Sequence[Volume], spec: PredictorSpec, how: Nnunet) -> Prepared:
    """Prepare one case as nnU-Net does.

    Args:
        volumes: one per channel, on one grid.
        spec: the predictor's facts.
        how: nnU-Net's plans.
    """
    geometry = volumes[0].geometry
    transposed = [volume.voxels_ZYX.transpose(how.transpose) for volume in volumes]
    spacing_mm = _in_order(geometry.spacing_mm_ZYX, how.transpose)
    mask = nonzero_mask(transposed)
    box = nonzero_box(mask)
    cropped: Shape = mask[box].shape
    target_mm = target_spacing(spec.grid, spacing_mm, cropped)
    grid_shape = resampled_shape(cropped, spacing_mm, target_mm)
    missing = [max(0, tile - n) for tile, n in zip(spec.grid.tile_ZYX, grid_shape, strict=True)]
    way = _Way(
        how=how,
        stored_shape=geometry.shape_ZYX,
        box=box,
        cropped_shape=cropped,
        grid_shape=grid_shape,
        padding=tuple((n // 2, n - n // 2) for n in missing),
        spacing_mm=spacing_mm,
        target_mm=target_mm,
    )
    channels = [
        way.on_grid(normalise(voxels[box], channel.intensity, inside=mask[box]))
        for voxels, channel in zip(transposed, spec.channels, strict=True)
    ]
    return Prepared(
        tensor_CZYX=np.stack(channels),
        restore=way.restore,
        restore_logits=way.restore_logits,
        grid_labels=way.grid_labels,
        voxel_ml=float(np.prod(target_mm)) / 1000.0,
        stored_voxel_ml=float(np.prod(spacing_mm)) / 1000.0,
    )


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How a case went from the stored grid to the network's padded one, both ways."""

    how: Nnunet
    stored_shape: Shape
    box: tuple[slice, slice, slice]
    cropped_shape: Shape
    grid_shape: Shape
    padding: tuple[tuple[int, int], ...]
    spacing_mm: tuple[float, float, float]
    target_mm: tuple[float, float, float]

    def on_grid(self, voxels_ZYX: NDArray[np.float32]) -> NDArray[np.float32]:
        resampled = resample_spline(
            voxels_ZYX,
            self.grid_shape,
            order=self.how.image_order,
            axis=separate_axis(self.how, self.spacing_mm, self.target_mm),
            axis_order=self.how.image_order_z,
        )
        return np.pad(resampled, self.padding)

    def restore(self, label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_label_map(label_map_ZYX, self._padded_shape)
        return self._stored(resample_nearest(label_map_ZYX[self._unpadded], self.cropped_shape))

    def restore_logits(
        self, logits_KZYX: NDArray[np.float32], class_values: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        check_logits(logits_KZYX, self._padded_shape, class_values)
        axis = separate_axis(self.how, self.target_mm, self.spacing_mm)
        best = np.full(self.cropped_shape, -np.inf, np.float32)
        label_map = np.zeros(self.cropped_shape, np.uint8)
        for logits_ZYX, value in zip(logits_KZYX, class_values, strict=True):
            resampled = resample_spline(
                logits_ZYX[self._unpadded],
                self.cropped_shape,
                order=self.how.logits_order,
                axis=axis,
                axis_order=self.how.logits_order_z,
            )
            if self.how.region_values:  # a region is where its sigmoid is above one half
                label_map[resampled > 0] = value
                continue
            label_map[resampled > best] = value
            np.maximum(best, resampled, out=best)
        return self._stored(label_map)

    def grid_labels(self, label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_label_map(label_map_ZYX, self.stored_shape)
        cropped = label_map_ZYX.transpose(self.how.transpose)[self.box]
        return np.pad(resample_nearest(cropped, self.grid_shape), self.padding)

    @property
    def _padded_shape(self) -> Shape:
        z, y, x = (
            low + n + high for (low, high), n in zip(self.padding, self.grid_shape, strict=True)
        )
        return z, y, x

    @property
    def _unpadded(self) -> tuple[slice, ...]:
        return tuple(
            slice(low, low + n) for (low, _), n in zip(self.padding, self.grid_shape, strict=True)
        )

    def _stored(self, cropped_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        full = np.zeros(_in_order(self.stored_shape, self.how.transpose), np.uint8)
        full[self.box] = cropped_ZYX
        back = tuple(int(axis) for axis in np.argsort(self.how.transpose))
        return np.ascontiguousarray(full.transpose(back))


def _in_order(values: tuple[T, T, T], axes: tuple[int, int, int]) -> tuple[T, T, T]:
    return values[axes[0]], values[axes[1]], values[axes[2]]


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
