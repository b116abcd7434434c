"""Random changes of a sample: where it lies, how it is turned and bent, how its intensities are.

Everything is a function of the generator it is given, so that a resumed run draws what the killed
one would have drawn.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from flarekit.core.channels import Channel, Window
from flarekit.training.losses import MAYBE
from flarekit.training.tables import AugmentationFacts
from flarekit.training.training_case import Spacing

_BENDS = 4  # control points of the displacements, per axis
_LOOP_MM = 30.0  # between the middles of bowel loops


def place(
    tile_ZYX: Sequence[int],
    spacing_mm: Spacing,
    centre_mm: NDArray[np.float64],
    facts: AugmentationFacts,
    rng: np.random.Generator,
    device: torch.device,
) -> torch.Tensor:
    """Return where a sample's voxels lie in their case, turned, scaled and bent at random.

    Args:
        tile_ZYX: voxels of the sample; with Z = 1 everything stays within the plane.
        spacing_mm: of the sample's voxels before it is scaled.
        centre_mm: (Z, Y, X) of the sample's middle, from the middle of the case's first voxel.
        facts: how far.
        rng: what decides.
        device: where the positions are computed.

    Returns:
        float32 (*tile, 3): Z, Y, X in mm from the middle of the case's first voxel.
    """
    flat = tile_ZYX[0] == 1
    offsets = torch.meshgrid(
        *(
            (torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2) * mm
            for n, mm in zip(tile_ZYX, spacing_mm, strict=True)
        ),
        indexing="ij",
    )
    matrix = torch.from_numpy(_matrix(flat, facts, rng).astype(np.float32)).to(device)
    middle = torch.from_numpy(centre_mm.astype(np.float32)).to(device)
    positions = torch.stack(offsets, dim=-1) @ matrix.T + middle
    if facts.elastic_mm:
        positions = positions + _bends(tile_ZYX, facts.elastic_mm, rng, device)
    return positions


def sample(
    image_CZYX: torch.Tensor,
    classes_ZYX: torch.Tensor,
    positions: torch.Tensor,
    spacing_mm: Spacing,
    lowest_C: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a case at positions: linearly its image, the nearest voxel of its classes.

    Args:
        image_CZYX: floating point.
        classes_ZYX: uint8 of the same grid.
        positions: see `place`.
        spacing_mm: of the case.
        lowest_C: what each channel is outside the case; classes are 0 there.

    Returns:
        image (C, *tile) float32 and classes (*tile) int64.
    """
    voxels = positions / torch.tensor(spacing_mm, device=positions.device)
    if voxels.device.type == "cpu":  # converts no more of the case than the sample needs
        low = voxels.amin(dim=(0, 1, 2)).floor().int()
        high = voxels.amax(dim=(0, 1, 2)).ceil().int() + 1
        sides = []
        for axis, extent in enumerate(classes_ZYX.shape):
            first = min(max(int(low[axis]), 0), extent - 1)
            sides.append(slice(first, max(min(int(high[axis]), extent), first + 1)))
            voxels[..., axis] -= first
        image_CZYX = image_CZYX[(slice(None), *sides)]
        classes_ZYX = classes_ZYX[tuple(sides)]
    size = torch.tensor(classes_ZYX.shape, device=voxels.device)
    grid = ((2 * voxels + 1) / size - 1).flip(-1)[None]  # grids want X first
    above = image_CZYX.float() - lowest_C.view(-1, 1, 1, 1)
    image = functional.grid_sample(above[None], grid, mode="bilinear", align_corners=False)[0]
    classes = functional.grid_sample(
        classes_ZYX[None, None].float(), grid, mode="nearest", align_corners=False
    )
    return image + lowest_C.view(-1, 1, 1, 1), classes[0, 0].long()


def mirror(
    image_CZYX: torch.Tensor,
    classes_ZYX: torch.Tensor,
    facts: AugmentationFacts,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flip the axes that may be flipped, each in every other sample."""
    flips = [axis for axis in facts.mirror_axes if rng.random() < 0.5]
    return image_CZYX.flip([axis + 1 for axis in flips]), classes_ZYX.flip(flips)


def smooth(values: torch.Tensor, reach: int) -> torch.Tensor:
    """Return means over a cube of neighbours."""
    size = [min(2 * reach + 1, 2 * ((n - 1) // 2) + 1) for n in values.shape]
    padding = [(n - 1) // 2 for n in size]
    smoothed: torch.Tensor = functional.avg_pool3d(
        values[None, None], size, stride=1, padding=padding, count_include_pad=False
    )[0, 0]
    return smoothed


def normal(shape: Sequence[int], rng: np.random.Generator, device: torch.device) -> torch.Tensor:
    """Return standard normal noise on a device, told by the generator."""
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**31)))
    return torch.randn(tuple(shape), generator=generator, device=device)


def _matrix(flat: bool, facts: AugmentationFacts, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return sizes and turns about each axis, in mm, rows and columns in Z, Y, X."""
    sizes = np.exp(rng.normal(0, facts.scale, 3)) * math.exp(rng.normal(0, facts.scale))
    if flat:
        sizes[0] = 1.0
    matrix = np.diag(sizes)
    for about, degrees in enumerate(facts.rotation_deg_ZYX[:1] if flat else facts.rotation_deg_ZYX):
        angle = math.radians(float(rng.normal(0, degrees)))
        a, b = [other for other in range(3) if other != about]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _bends(
    tile_ZYX: Sequence[int], reach_mm: float, rng: np.random.Generator, device: torch.device
) -> torch.Tensor:
    """Return smooth displacements (*tile, 3) in mm; none along Z where the sample is one slice."""
    knots = rng.normal(0, reach_mm, (3, *(1 if n == 1 else _BENDS for n in tile_ZYX)))
    if tile_ZYX[0] == 1:
        knots[0] = 0
    return stretched(torch.from_numpy(knots.astype(np.float32)).to(device), tile_ZYX).movedim(0, -1)


def stretched(knots_CZYX: torch.Tensor, size_ZYX: Sequence[int]) -> torch.Tensor:
    """Return fields (C, *size) between knots that lie evenly, the outermost at the ends."""
    field: torch.Tensor = functional.interpolate(
        knots_CZYX[None], size=list(size_ZYX), mode="trilinear", align_corners=True
    )[0]
    return field


def ct_window(channel: Channel) -> Window:
    """Return the window of a CT's channel.

    Raises:
        TypeError: the channel has none.
    """
    if not isinstance(channel.intensity, Window):
        raise TypeError("the recipe was not checked")
    return channel.intensity


def fill_bowel(
    image_CZYX: torch.Tensor,
    classes_ZYX: torch.Tensor,
    channel: Channel,
    spacing_mm: Spacing,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Return a CT in which blobs of unlabelled soft tissue are filled with contrast medium.

    It is normalised, one channel; classes are of the same grid.

    Raises:
        TypeError: the channel has no window.
    """
    window = ct_window(channel)
    size = list(image_CZYX.shape[1:])
    knots = [max(2, round(n * mm / _LOOP_MM)) for n, mm in zip(size, spacing_mm, strict=True)]
    field = stretched(normal(knots, rng, image_CZYX.device)[None], size)
    hu = image_CZYX * window.std + window.mean
    free = (classes_ZYX == 0) | (classes_ZYX == MAYBE)
    filled = (field > float(rng.uniform(0.2, 1.0))) & free & (hu > -20) & (hu < 120)
    soft = smooth(filled[0].float(), 1) * free
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
        noise = normal(image.shape, rng, image.device)
        image = image + float(rng.uniform(0, 0.15 * strength)) * noise
    return image


def _coarse(image: torch.Tensor, share: float) -> torch.Tensor:
    """Return an image sampled at fewer voxels and back."""
    size = list(image.shape[1:])
    fewer = [max(1, round(n * share)) for n in size]
    small = functional.interpolate(image[None], size=fewer, mode="nearest-exact")
    return functional.interpolate(small, size=size, mode="trilinear", align_corners=False)[0]
