"""From a scan as stored to the network's input, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError
from flarekit.core.spec import BodyCrop, Intensity, PredictorSpec, SliceZScore
from flarekit.core.volume import Geometry, Volume, largest_shift_mm, orientation_of
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
    first = orientation.apply(volumes[0].voxels_ZYX)
    box = (slice(0, first.shape[0]), slice(0, first.shape[1]), slice(0, first.shape[2]))
    if isinstance(spec.crop, BodyCrop):
        box = body_box(
            first, spacing_mm, threshold=spec.crop.threshold, margin_mm=spec.crop.margin_mm
        )
    elif spec.crop is not None:
        box = nonzero_box(nonzero_mask([orientation.apply(v.voxels_ZYX) for v in volumes]))
    cropped_shape = first[box].shape
    full_shape = first.shape
    grid_shape = resampled_shape(
        cropped_shape, spacing_mm, target_spacing(spec.grid, spacing_mm, cropped_shape)
    )
    channels = [
        _on_grid(orientation.apply(volume.voxels_ZYX)[box], channel.intensity, grid_shape)
        for volume, channel in zip(volumes, spec.channels, strict=True)
    ]

    def restore(label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_label_map(label_map_ZYX, grid_shape)
        oriented = np.zeros(full_shape, np.uint8)
        oriented[box] = resample_nearest(label_map_ZYX, cropped_shape)
        return np.ascontiguousarray(orientation.undo(oriented))

    def restore_logits(
        logits_KZYX: NDArray[np.float32], class_values: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        check_logits(logits_KZYX, grid_shape, class_values)
        oriented = np.zeros(full_shape, np.uint8)
        oriented[box] = argmax_resampled(logits_KZYX, cropped_shape, class_values)
        return np.ascontiguousarray(orientation.undo(oriented))

    def grid_labels(label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        check_label_map(label_map_ZYX, geometry.shape_ZYX)
        return resample_nearest(orientation.apply(label_map_ZYX)[box], grid_shape)

    voxel_ml = float(np.prod(spacing_mm) * np.prod(cropped_shape) / np.prod(grid_shape)) / 1000.0
    return Prepared(
        tensor_CZYX=np.stack(channels),
        restore=restore,
        restore_logits=restore_logits if spec.grid.decide == "scan" else None,
        grid_labels=grid_labels,
        voxel_ml=voxel_ml,
        stored_voxel_ml=float(np.prod(spacing_mm)) / 1000.0,
    )


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
