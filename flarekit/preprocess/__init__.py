"""From a scan as stored to the network's input, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Geometry, Volume, largest_shift_mm, orientation_of
from flarekit.preprocess.crop import body_box
from flarekit.preprocess.intensity import normalise
from flarekit.preprocess.resample import resample_linear, resample_nearest, resampled_shape

__all__ = ["Prepared", "prepare"]

_SAME_GRID_VOXELS = 0.1  # headers round: channels this close are taken as one grid


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What the network gets, and how to bring labels back.

    Attributes:
        tensor_CZYX: float32, oriented, cropped, at the predictor's spacing.
        restore: label map on the network's grid -> label map on the scan's stored grid, C-ordered.
        grid_labels: label map on the stored grid -> on the network's grid (for training).
            Both raise ValueError for a label map of another grid or not uint8.
        voxel_ml: volume of one voxel of the network's grid.
    """

    tensor_CZYX: NDArray[np.float32]
    restore: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    grid_labels: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    voxel_ml: float


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
    orientation = orientation_of(geometry.affine)
    spacing_mm = orientation.apply_to_axes(geometry.spacing_mm_ZYX)
    first = orientation.apply(volumes[0].voxels_ZYX)
    box = (slice(0, first.shape[0]), slice(0, first.shape[1]), slice(0, first.shape[2]))
    if spec.crop is not None:
        box = body_box(
            first, spacing_mm, threshold=spec.crop.threshold, margin_mm=spec.crop.margin_mm
        )
    cropped_shape = first[box].shape
    full_shape = first.shape
    grid_shape = resampled_shape(cropped_shape, spacing_mm, spec.grid.spacing_mm_ZYX)
    channels = [
        resample_linear(
            normalise(orientation.apply(volume.voxels_ZYX)[box], channel.intensity), grid_shape
        )
        for volume, channel in zip(volumes, spec.channels, strict=True)
    ]

    def restore(label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        _check_label_map(label_map_ZYX, grid_shape)
        oriented = np.zeros(full_shape, np.uint8)
        oriented[box] = resample_nearest(label_map_ZYX, cropped_shape)
        return np.ascontiguousarray(orientation.undo(oriented))

    def grid_labels(label_map_ZYX: NDArray[np.uint8]) -> NDArray[np.uint8]:
        _check_label_map(label_map_ZYX, geometry.shape_ZYX)
        return resample_nearest(orientation.apply(label_map_ZYX)[box], grid_shape)

    voxel_ml = float(np.prod(spacing_mm) * np.prod(cropped_shape) / np.prod(grid_shape)) / 1000.0
    return Prepared(
        tensor_CZYX=np.stack(channels), restore=restore, grid_labels=grid_labels, voxel_ml=voxel_ml
    )


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


def _check_label_map(label_map_ZYX: NDArray[np.uint8], shape_ZYX: tuple[int, int, int]) -> None:
    if label_map_ZYX.shape != shape_ZYX or label_map_ZYX.dtype != np.uint8:
        raise ValueError(
            f"uint8 {shape_ZYX} expected, got {label_map_ZYX.dtype} {label_map_ZYX.shape}"
        )
