"""From a scan as stored to the network's input, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError
from flarekit.core.spec import BodyCrop, Intensity, PredictorSpec, SliceZScore
from flarekit.core.volume import Geometry, Orientation, Volume, largest_shift_mm, orientation_of
from flarekit.preprocess.crop import body_box, nonzero_box, nonzero_mask
from flarekit.preprocess.intensity import normalise, normalise_slices
from flarekit.preprocess.nnunet import prepare_nnunet
from flarekit.preprocess.prepared import Prepared, check_label_map, check_logits
from flarekit.preprocess.resample import (
    Shape,
    argmax_resampled,
    resample_linear,
    resample_nearest,
    resampled_shape,
    target_spacing,
)

__all__ = ["Prepared", "prepare"]

_SAME_GRID_VOXELS = 0.1  # headers round: channels this close are taken as one grid


def prepare(volumes: Sequence[Volume], spec: PredictorSpec) -> Prepared:
    """Orient, crop to the body, normalise and resample one case.

    Intensities are normalised (and so clipped) before they are resampled: padding of -3024 HU
    would bleed into the skin otherwise.

    Args:
        volumes: one per channel of the predictor, on one grid.
        spec: the predictor's facts.

    Raises:
        InputError: not one volume per channel, or the channels do not share one grid.
    """
    if len(volumes) != len(spec.channels):
        names = ", ".join(channel.name for channel in spec.channels)
        raise InputError(
            f"{len(volumes)} volumes given, {spec.name} takes {len(spec.channels)} ({names})",
            fix="give one file per channel, or choose another predictor",
        )
    geometry = _shared_geometry(volumes)
    if spec.nnunet is not None:
        return prepare_nnunet(volumes, spec, spec.nnunet)
    orientation = orientation_of(geometry.affine, spec.grid.axes)
    spacing_mm = orientation.apply_to_axes(geometry.spacing_mm_ZYX)
    oriented = [orientation.apply(volume.voxels_ZYX) for volume in volumes]
    box = _box(oriented, spacing_mm, spec)
    cropped: Shape = oriented[0][box].shape
    target_mm = target_spacing(spec.grid, spacing_mm, cropped)
    grid_shape = resampled_shape(cropped, spacing_mm, target_mm)
    way = _Way(
        orientation=orientation,
        stored_shape=geometry.shape_ZYX,
        full_shape=oriented[0].shape,
        box=box,
        grid_shape=grid_shape,
    )
    channels = [
        _on_grid(voxels[box], channel.intensity, grid_shape)
        for voxels, channel in zip(oriented, spec.channels, strict=True)
    ]
    stored_voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    return Prepared(
        tensor_CZYX=np.stack(channels),
        restore=way.restore,
        restore_logits=way.restore_logits if spec.grid.decide == "scan" else None,
        grid_labels=way.grid_labels,
        voxel_ml=stored_voxel_ml * float(np.prod(cropped) / np.prod(grid_shape)),
        stored_voxel_ml=stored_voxel_ml,
    )


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How a case went from the stored grid to the network's, both ways."""

    orientation: Orientation
    stored_shape: Shape
    full_shape: Shape
    box: tuple[slice, slice, slice]
    grid_shape: Shape

    def restore(self, label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_label_map(label_map_ZYX, self.grid_shape)
        return self._stored(resample_nearest(label_map_ZYX, self._cropped_shape))

    def restore_logits(
        self, logits_KZYX: NDArray[np.float32], class_values: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        check_logits(logits_KZYX, self.grid_shape, class_values)
        return self._stored(argmax_resampled(logits_KZYX, self._cropped_shape, class_values))

    def grid_labels(self, label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_label_map(label_map_ZYX, self.stored_shape)
        oriented = self.orientation.apply(label_map_ZYX)
        return resample_nearest(oriented[self.box], self.grid_shape)

    @property
    def _cropped_shape(self) -> Shape:
        z, y, x = (side.stop - side.start for side in self.box)
        return z, y, x

    def _stored(self, cropped_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        oriented = np.zeros(self.full_shape, np.uint8)
        oriented[self.box] = cropped_ZYX
        return np.ascontiguousarray(self.orientation.undo(oriented))


def _box(
    oriented: Sequence[NDArray[np.float32]],
    spacing_mm: tuple[float, float, float],
    spec: PredictorSpec,
) -> tuple[slice, slice, slice]:
    if isinstance(spec.crop, BodyCrop):
        return body_box(
            oriented[0], spacing_mm, threshold=spec.crop.threshold, margin_mm=spec.crop.margin_mm
        )
    if spec.crop is not None:
        return nonzero_box(nonzero_mask(oriented))
    z, y, x = oriented[0].shape
    return slice(0, z), slice(0, y), slice(0, x)


def _on_grid(
    voxels_ZYX: NDArray[np.float32], intensity: Intensity, shape_ZYX: Shape
) -> NDArray[np.float32]:
    if isinstance(intensity, SliceZScore):
        return normalise_slices(resample_linear(voxels_ZYX, shape_ZYX), intensity)
    return resample_linear(normalise(voxels_ZYX, intensity), shape_ZYX)


def _shared_geometry(volumes: Sequence[Volume]) -> Geometry:
    first = volumes[0].geometry
    most_mm = _SAME_GRID_VOXELS * min(first.spacing_mm_ZYX)
    for volume in volumes[1:]:
        other = volume.geometry
        if (
            other.shape_ZYX != first.shape_ZYX
            or largest_shift_mm(other.affine, first.affine, first.shape_ZYX) > most_mm
        ):
            raise InputError(
                f"{volume.path}: lies on another grid than {volumes[0].path}",
                fix="resample the channels to one grid",
            )
    return first
