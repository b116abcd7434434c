"""From a scan as stored to the network's input, and the way back.

Shapes come before voxels: `locate` looks at the geometry and the body, `Located.placement` tells
how the scan would lie on a grid, for as many grids as somebody wants to weigh up, and `place`
brings the voxels onto the one that was chosen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.core.channels import (
    BodyCrop,
    Channel,
    Scale,
    SliceRescale,
    SliceZScore,
    Window,
    ZScore,
)
from flarekit.core.errors import InputError
from flarekit.core.same_grid import grid_difference
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Geometry, Orientation, Volume, orientation_of
from flarekit.preprocess.axis_maps import LANCZOS
from flarekit.preprocess.crop import (
    Body,
    filled_mask,
    find_body,
    nonzero_box,
    nonzero_mask,
    whole_box,
)
from flarekit.preprocess.decide import Box
from flarekit.preprocess.intensity import Voxels, normalise, normalise_slices, normaliser
from flarekit.preprocess.nnunet import padding_to, separate_axis, spline_orders
from flarekit.preprocess.prepared import Placement, Prepared
from flarekit.preprocess.resample import resampled_shape, target_spacing
from flarekit.preprocess.route import Route

__all__ = ["Box", "Located", "Placement", "Prepared", "locate", "middle_tile", "place", "prepare"]

_UNSEEN = 0.05  # of the slices of a body may lack a channel unsaid: PET blurs its ends
_FEW = 0.5  # a share of the voxels that is worth the trouble of picking them
_SAME_GRID_VOXELS = 0.1  # headers round: channels this close are taken as one grid


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where in a scan there is something to look at.

    Attributes:
        geometry: of the scan as stored.
        orientation: stored axes -> the network's.
        spacing_mm_ZYX: the scan's, in the network's axes.
        box: what is kept of the scan, in the network's axes.
        body: where the body is; None where the predictor does not ask.
        inside_ZYX: within the box, what masked intensities look at; None for everything.
        notes: what is odd about the channels beside each other, each with its file.
    """

    geometry: Geometry
    orientation: Orientation
    spacing_mm_ZYX: tuple[float, float, float]
    box: Box
    body: Body | None
    inside_ZYX: NDArray[np.bool_] | None
    notes: tuple[str, ...] = ()

    def placement(self, spec: PredictorSpec) -> Placement:
        """Return how the scan lies on a predictor's grid; nothing is resampled.

        Args:
            spec: the facts that it was located with, at this or any other spacing.
        """
        route = _route(self.geometry, self.orientation, self.box, self.spacing_mm_ZYX, spec)
        z_mm, y_mm, x_mm = (
            mm * n / m
            for mm, n, m in zip(
                self.spacing_mm_ZYX, route.cropped_shape, route.grid_shape, strict=True
            )
        )
        return Placement(
            **vars(route),
            channels=len(spec.channels),
            spacing_mm_ZYX=(z_mm, y_mm, x_mm),
            voxel_ml=z_mm * y_mm * x_mm / 1000.0,
            stored_voxel_ml=float(np.prod(self.spacing_mm_ZYX)) / 1000.0,
            needed_ZYX=self.body.at(*route.scan_index()) if self.body is not None else None,
        )


def prepare(volumes: Sequence[Volume], spec: PredictorSpec) -> Prepared:
    """Orient, crop to the body, normalise and resample one case.

    Args:
        volumes: one per channel of the predictor, on one grid.
        spec: the predictor's facts.

    Raises:
        InputError: not one volume per channel, or the channels do not share one grid.
    """
    located = locate(volumes, spec)
    return place(volumes, located, located.placement(spec), spec)


def locate(volumes: Sequence[Volume], spec: PredictorSpec) -> Located:
    """Find what there is to look at in a case, from its geometry and its body.

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
    orientation = _orientation(geometry, spec)
    spacing_mm = orientation.apply_to_axes(geometry.spacing_mm_ZYX)
    oriented = [orientation.apply(volume.voxels_ZYX) for volume in volumes]
    box, body, nonzero = whole_box(oriented[0].shape), None, None
    if isinstance(spec.crop, BodyCrop):
        thresholds, margin_mm = spec.crop.thresholds, spec.crop.margin_mm
        seen = oriented[: len(thresholds)]
        body = find_body(seen, spacing_mm, thresholds=thresholds, margin_mm=margin_mm)
        box = body.box
    elif spec.crop is not None:
        nonzero = nonzero_mask(oriented)
        box = nonzero_box(nonzero)
    masked = any(isinstance(c.intensity, ZScore) and c.intensity.masked for c in spec.channels)
    return Located(
        geometry=geometry,
        orientation=orientation,
        spacing_mm_ZYX=spacing_mm,
        box=box,
        body=body,
        inside_ZYX=filled_mask(nonzero[box]) if nonzero is not None and masked else None,
        notes=() if body is None else _unseen(volumes, body, spec),
    )


def place(
    volumes: Sequence[Volume], located: Located, placement: Placement, spec: PredictorSpec
) -> Prepared:
    """Bring a case's voxels onto the network's grid.

    Intensities are normalised (and so clipped) before they are resampled: padding of -3024 HU
    would bleed into the skin otherwise. The spacing of the facts is not looked at any more.
    """
    tensor = np.empty((len(volumes), *placement.shape_ZYX), np.float32)
    for channel_ZYX, volume, channel in zip(tensor, volumes, spec.channels, strict=True):
        cropped = located.orientation.apply(volume.voxels_ZYX)[located.box]
        channel_ZYX[:] = _on_grid(cropped, channel, placement, located.inside_ZYX)
    return Prepared(**vars(placement), tensor_CZYX=tensor)


def middle_tile(
    volumes: Sequence[Volume],
    located: Located,
    placement: Placement,
    spec: PredictorSpec,
    depth: int,
) -> NDArray[np.float32]:
    """Return a tile of the middle of a case, (C, depth, Y, X), by nearest neighbours.

    It is there to be timed: masked intensities look at all of its voxels.
    """
    size_ZYX = (depth, *spec.grid.tile_ZYX[1:])
    picked = []
    for index, size in zip(placement.scan_index(), size_ZYX, strict=True):
        first = max(0, (len(index) - size) // 2)
        picked.append(index[np.minimum(np.arange(first, first + size), len(index) - 1)])
    tile = np.empty((len(volumes), *size_ZYX), np.float32)
    for channel_ZYX, volume, channel in zip(tile, volumes, spec.channels, strict=True):
        oriented = located.orientation.apply(volume.voxels_ZYX)
        channel_ZYX[:] = normalise(oriented[np.ix_(*picked)], channel.intensity)
    return tile


def _orientation(geometry: Geometry, spec: PredictorSpec) -> Orientation:
    """Anatomical axes; nnU-Net keeps the stored ones and only transposes them."""
    if spec.nnunet is None:
        return orientation_of(geometry.affine, spec.grid.axes)
    return Orientation(axes=spec.nnunet.transpose, flipped=(False, False, False))


def _route(
    geometry: Geometry,
    orientation: Orientation,
    box: Box,
    spacing_mm: tuple[float, float, float],
    spec: PredictorSpec,
) -> Route:
    z, y, x = (side.stop - side.start for side in box)
    cropped = (z, y, x)
    target_mm = target_spacing(spec.grid, spacing_mm, cropped)
    grid_shape = resampled_shape(cropped, spacing_mm, target_mm)
    order = LANCZOS if spec.grid.lanczos else spec.grid.image_order
    how = spec.nnunet
    if how is None:
        return Route(
            orientation=orientation,
            stored_shape=geometry.shape_ZYX,
            box=box,
            grid_shape=grid_shape,
            image_orders=(order, order, order),
        )
    there, back = (
        separate_axis(how, *mm) for mm in ((spacing_mm, target_mm), (target_mm, spacing_mm))
    )
    return Route(
        orientation=orientation,
        stored_shape=geometry.shape_ZYX,
        box=box,
        grid_shape=grid_shape,
        padding=padding_to(grid_shape, spec.grid.tile_ZYX),
        image_orders=spline_orders(how.image_order, there, how.image_order_z),
        logits_orders=spline_orders(how.logits_order, back, how.logits_order_z),
        apart=there,
        regions=bool(how.region_values),
    )


def _unseen(volumes: Sequence[Volume], body: Body, spec: PredictorSpec) -> tuple[str, ...]:
    """Return which channels do not show the whole body: findings there rest on the others."""
    return tuple(
        f"{volume.path}: shows nothing of the body in {part:.0%} of the slices in which other "
        f"channels show it: there, the {channel.name} tells the network nothing"
        for volume, channel, part in zip(volumes, spec.channels, body.unseen, strict=False)
        if part > _UNSEEN
    )


def _on_grid(
    voxels_ZYX: Voxels, channel: Channel, route: Route, inside: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    if _looks_at_few(route) and isinstance(channel.intensity, (Window, Scale)):
        how = channel.intensity
        return route.on_grid_of_few(voxels_ZYX, lambda few: normalise(few, how))
    normalised = normaliser(voxels_ZYX, channel.intensity, inside=inside)
    resampled = route.on_grid(normalised)
    if isinstance(channel.intensity, SliceZScore | SliceRescale):
        return normalise_slices(resampled, channel.intensity)
    return resampled


def _looks_at_few(route: Route) -> bool:
    """Return whether linear interpolation leaves most voxels of the scan out."""
    if route.apart is not None or max(route.image_orders) > 1:
        return False
    looked_at = [
        min(1.0, 2 * m / n) for n, m in zip(route.cropped_shape, route.grid_shape, strict=True)
    ]
    return math.prod(looked_at) < _FEW


def _shared_geometry(volumes: Sequence[Volume]) -> Geometry:
    first = volumes[0].geometry
    most_mm = _SAME_GRID_VOXELS * min(first.spacing_mm_ZYX)
    for volume in volumes[1:]:
        if difference := grid_difference(volume.geometry, first, most_mm):
            raise InputError(
                f"{volume.path}: lies on another grid than {volumes[0].path}: {difference}",
                fix="resample the channels to one grid",
            )
    return first
