"""Random changes of a sample: where it lies, how it is turned and bent, how its intensities are.

Everything is a function of the generator it is given, so that a resumed run draws what the killed
one would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from flarekit.core.spec import Channel, Window
from flarekit.training.cases import Spacing
from flarekit.training.losses import MAYBE
from flarekit.training.recipe import AugmentationFacts

ROOM = 1.5  # a sample is cut this much larger before it is turned and scaled
_BENDS = 4  # control points of the displacements, per axis
_LOOP_MM = 30.0  # between the middles of bowel loops


def move(
    image_CZYX: torch.Tensor,
    classes_ZYX: torch.Tensor,
    tile_ZYX: Sequence[int],
    spacing_mm: Spacing,
    facts: AugmentationFacts,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample a tile from its larger surroundings, turned, scaled, bent and mirrored at random.

    Args:
        image_CZYX: float32; with Z = 1 everything stays within the plane.
        classes_ZYX: uint8 of the same grid.
        tile_ZYX: voxels wanted, in the middle of the surroundings.
        spacing_mm: of the grid.
        facts: how far.
        rng: what decides.

    Returns:
        image (C, *tile) float32 and classes (*tile) int64.
    """
    flat = tile_ZYX[0] == 1
    kept = 2 if flat else 3
    if flat:
        image_CZYX, classes_ZYX = image_CZYX[:, 0], classes_ZYX[0]
    tile = list(tile_ZYX[3 - kept :])
    spacing = np.array(spacing_mm[3 - kept :], float)
    room = np.array(classes_ZYX.shape, float)
    matrix = _matrix(kept, facts, rng)
    theta = np.zeros((1, kept, kept + 1), np.float32)
    in_voxels = (matrix * spacing[None, :] / spacing[:, None])[::-1, ::-1]  # grids want X first
    theta[0, :, :kept] = in_voxels * np.array(tile[::-1])[None, :] / room[::-1, None]
    grid = functional.affine_grid(torch.from_numpy(theta), [1, 1, *tile], align_corners=False)
    if facts.elastic_mm:
        grid = grid + _bends(tile, 2 * facts.elastic_mm / (spacing * room), rng)
    moved = functional.grid_sample(
        image_CZYX[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0]
    moved_classes = functional.grid_sample(
        classes_ZYX[None, None].float(),
        grid,
        mode="nearest",
        padding_mode="border",
        align_corners=False,
    )[0, 0].long()
    flips = [axis - (3 - kept) for axis in facts.mirror_axes if rng.random() < 0.5]
    flips = [axis for axis in flips if axis >= 0]
    if flips:
        moved = moved.flip([axis + 1 for axis in flips])
        moved_classes = moved_classes.flip(flips)
    if flat:
        return moved[:, None], moved_classes[None]
    return moved, moved_classes


def _matrix(axes: int, facts: AugmentationFacts, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return sizes and turns about each axis, in mm, rows and columns in (Z,) Y, X."""
    sizes = np.exp(rng.normal(0, facts.scale, axes)) * math.exp(rng.normal(0, facts.scale))
    matrix = np.diag(sizes)
    about = enumerate(facts.rotation_deg_ZYX) if axes == 3 else [(None, facts.rotation_deg_ZYX[0])]
    for axis, degrees in about:
        angle = math.radians(float(rng.normal(0, degrees)))
        a, b = [other for other in range(axes) if other != axis]
        turn = np.eye(axes)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _bends(tile: list[int], reach: NDArray[np.float64], rng: np.random.Generator) -> torch.Tensor:
    """Return smooth displacements in the units of a sampling grid, last axis X first."""
    knots = rng.normal(0, 1, (len(tile), *[_BENDS] * len(tile))) * reach.reshape(
        -1, *[1] * len(tile)
    )
    mode = "trilinear" if len(tile) == 3 else "bilinear"
    field = functional.interpolate(
        torch.from_numpy(knots[::-1].astype(np.float32))[None],
        size=tile,
        mode=mode,
        align_corners=True,
    )
    return field.movedim(1, -1)


def fill_bowel(
    image_CZYX: torch.Tensor,
    classes_ZYX: torch.Tensor,
    channel: Channel,
    spacing_mm: Spacing,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Return a CT in which blobs of unlabelled soft tissue are filled with contrast medium.

    Args:
        image_CZYX: normalised, one channel.
        classes_ZYX: of the same grid.
        channel: its window.
        spacing_mm: of the grid.
        rng: what decides.

    Raises:
        TypeError: the channel has no window.
    """
    window = channel.intensity
    if not isinstance(window, Window):
        raise TypeError("the recipe was not checked")
    size = list(image_CZYX.shape[1:])
    knots = [max(2, round(n * mm / _LOOP_MM)) for n, mm in zip(size, spacing_mm, strict=True)]
    field = functional.interpolate(
        torch.from_numpy(rng.normal(0, 1, knots).astype(np.float32))[None, None],
        size=size,
        mode="trilinear",
        align_corners=True,
    )[0]
    hu = image_CZYX * window.std + window.mean
    free = (classes_ZYX == 0) | (classes_ZYX == MAYBE)
    filled = (field > float(rng.uniform(0.2, 1.0))) & free & (hu > -20) & (hu < 120)
    soft = functional.avg_pool3d(filled.float(), 3, stride=1, padding=1) * free
    bright = min(float(rng.uniform(180, 500)), window.high_hu)
    return image_CZYX + soft * ((bright - window.mean) / window.std - image_CZYX)


def change_intensities(
    image_CZYX: torch.Tensor, facts: AugmentationFacts, rng: np.random.Generator
) -> torch.Tensor:
    """Vary contrast, brightness, gamma, sharpness, resolution and noise, channel by channel."""
    if not facts.intensity and not facts.low_resolution:
        return image_CZYX
    channels = [_changed(channel[None], facts, rng) for channel in image_CZYX]
    return torch.cat(channels)


def _changed(
    image: torch.Tensor, facts: AugmentationFacts, rng: np.random.Generator
) -> torch.Tensor:
    strength = facts.intensity
    low, high = image.amin(), image.amax()
    span = (high - low).clamp_min(1e-3)
    if rng.random() < 0.3:
        gamma = math.exp(float(rng.normal(0, 0.25 * strength)))
        image = ((image - low) / span).clamp(0, 1) ** gamma * span + low
    if rng.random() < 0.6:
        contrast = math.exp(float(rng.normal(0, 0.12 * strength)))
        image = image * contrast + float(rng.normal(0, 0.12 * strength))
    if rng.random() < 0.2:
        image = functional.avg_pool3d(
            image[None], (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False
        )[0]
    if rng.random() < facts.low_resolution:
        image = _coarse(image, float(rng.uniform(0.4, 0.9)))
    if rng.random() < 0.4:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        noise = torch.randn(image.shape, generator=generator)
        image = image + float(rng.uniform(0, 0.15 * strength)) * noise
    return image


def _coarse(image: torch.Tensor, share: float) -> torch.Tensor:
    """Return an image sampled at fewer voxels and back."""
    size = list(image.shape[1:])
    fewer = [max(1, round(n * share)) for n in size]
    small = functional.interpolate(image[None], size=fewer, mode="nearest-exact")
    return functional.interpolate(small, size=size, mode="trilinear", align_corners=False)[0]
