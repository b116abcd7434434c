"""Organs as they are in disease: larger, smaller, elsewhere, gone, full of cysts, without contrast.

Twenty scans show twenty spleens of usual size. These changes make of them spleens of three litres,
livers beside resected gallbladders, kidneys without contrast medium. A change of shape moves image
and labels together; a change of texture leaves the labels as they are; what is removed becomes
background in both. Everything is a function of the generator that it is given.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from flarekit.core.channels import Window
from flarekit.training.augment import normal, smooth, stretched
from flarekit.training.losses import MAYBE
from flarekit.training.tables import OrganFacts

_REACH = 2.5  # of a change of shape, in half sizes of the changed organ
_MOST_SHIFT = 0.35  # of the room that a moved organ has: neighbours are squeezed, never folded
_ORGAN_HU = (-20.0, 160.0)  # of a removed organ's stand-in, fat to muscle
_SOFT_HU = 40.0  # of tissue without contrast medium


def reshape_organ(
    positions: torch.Tensor,
    centres: Mapping[int, NDArray[np.int32]],
    spacing_mm: tuple[float, float, float],
    facts: OrganFacts,
    names: tuple[str, ...],
    rng: np.random.Generator,
) -> torch.Tensor:
    """Change where a sample is read, so that one organ is larger, smaller or elsewhere.

    Inside an ellipsoid around the organ lengths are multiplied; from there to 2.5 times as far out
    the change fades, so that neighbours give way and nothing is folded. Positions are those of
    `flarekit.training.augment.place`, centres voxel indices of each class of the case.
    """
    able = [index for index in centres if names[index] in facts.factor]
    if not able or rng.random() >= facts.changed:
        return positions
    chosen = able[int(rng.integers(len(able)))]
    voxels_mm = centres[chosen] * np.array(spacing_mm)
    middle = np.median(voxels_mm, axis=0)
    half_mm = np.maximum(np.quantile(np.abs(voxels_mm - middle), 0.95, axis=0), 6.0)
    least, most = facts.factor[names[chosen]]
    once = math.exp(float(rng.uniform(math.log(least), math.log(most))))
    factors = np.clip(once * np.exp(rng.normal(0, 0.1, 3)), min(least, 1.0), max(most, 1.0))
    anchor = middle + rng.uniform(-0.7, 0.7, 3) * half_mm
    shift = rng.normal(0, facts.shift_mm, 3)
    room = _MOST_SHIFT * (_REACH - 1) * half_mm * np.maximum(factors, 1.0)
    shift = np.clip(shift, -room, room) if facts.shift_mm else 0 * shift
    return _warped(positions, anchor, half_mm, factors, shift)


def _warped(
    positions: torch.Tensor,
    anchor_mm: NDArray[np.float64],
    half_mm: NDArray[np.float64],
    factors: NDArray[np.float64],
    shift_mm: NDArray[np.float64],
) -> torch.Tensor:
    """Return where each position is read, if what lies around the anchor is scaled and shifted."""

    def tensor(values: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(positions.device)

    outer = half_mm * np.maximum(factors, 1.0) * 1.4  # the organ stays inside of it
    away = positions - tensor(anchor_mm)
    radius = (away / tensor(outer)).norm(dim=-1, keepdim=True)
    share = ((_REACH - radius) / (_REACH - 1)).clamp(0, 1)  # 1 at the organ, 0 out of reach
    if positions.shape[0] == 1:  # one slice stays one slice
        factors, shift_mm = factors.copy(), shift_mm.copy()
        factors[0], shift_mm[0] = 1.0, 0.0
    scale = 1 + share * (tensor(1 / factors) - 1)
    moved: torch.Tensor = tensor(anchor_mm) + away * scale - share * tensor(shift_mm)
    return moved


def change_organs(
    image_CZYX: torch.Tensor,
    classes_ZYX: torch.Tensor,
    window: Window,
    spacing_mm: tuple[float, float, float],
    facts: OrganFacts,
    names: tuple[str, ...],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Remove organs, put lesions into them, take contrast medium away, let fluid run around them.

    The image is a CT, normalised by the window, one channel; classes are int64 of the same grid.

    Returns:
        image and classes; only what is removed changes its class.
    """
    hu = image_CZYX[0] * window.std + window.mean
    for name, chance in facts.removed.items():
        if rng.random() < chance:
            hu, classes_ZYX = _removed(hu, classes_ZYX, names.index(name), spacing_mm, rng)
    if rng.random() < facts.lesions and facts.lesion_labels:
        for _ in range(int(rng.integers(1, 4))):
            hu = _with_lesion(hu, classes_ZYX, facts.lesion_labels, names, spacing_mm, rng)
    if rng.random() < facts.contrast:
        hu = _other_phase(hu, classes_ZYX, len(names), rng)
    if rng.random() < facts.fluid:
        hu = _with_fluid(hu, classes_ZYX, spacing_mm, rng)
    hu = hu.clamp(window.low_hu, window.high_hu)
    return ((hu - window.mean) / window.std)[None], classes_ZYX


def _removed(
    hu: torch.Tensor,
    classes: torch.Tensor,
    index: int,
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put fat or soft tissue in an organ's place; its voxels become background."""
    organ = classes == index
    filling = float(rng.uniform(*_ORGAN_HU)) if rng.random() < 0.4 else float(rng.normal(-95, 8))
    texture = filling + 12 * smooth(normal(hu.shape, rng, hu.device), 1)
    weight = smooth(_grown(organ, 3.0, spacing_mm).float(), 1)
    weight = torch.where((classes != 0) & (classes != MAYBE) & ~organ, 0.0, weight)
    weight = torch.where(organ, 1.0, weight)
    return hu + weight * (texture - hu), classes.masked_fill(organ, 0)


def _with_lesion(
    hu: torch.Tensor,
    classes: torch.Tensor,
    labels: tuple[str, ...],
    names: tuple[str, ...],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> torch.Tensor:
    """Put one round cyst or tumour somewhere into an organ, which it stays a part of."""
    organ = classes == names.index(labels[int(rng.integers(len(labels)))])
    noise = torch.where(organ, normal(hu.shape, rng, hu.device), -torch.inf)
    at = int(noise.argmax())  # a voxel of the organ, if there is any
    centre = np.array(np.unravel_index(at, tuple(hu.shape))) * np.array(spacing_mm)
    half = math.exp(float(rng.uniform(math.log(4.0), math.log(45.0)))) * np.exp(
        rng.normal(0, 0.2, 3)
    )
    radius = torch.zeros((), device=hu.device)
    for axis, (n, mm) in enumerate(zip(hu.shape, spacing_mm, strict=True)):
        away = (torch.arange(n, device=hu.device) * mm - centre[axis]) / half[axis]
        shape = [1, 1, 1]
        shape[axis] = n
        radius = radius + away.square().view(shape)
    knots = _field(hu, 4, rng)
    inside = ((1.15 - radius.sqrt() - 0.2 * knots) / 0.3).clamp(0, 1) * organ
    weight = smooth(inside, 1) * organ
    dense = float(rng.uniform(0, 25)) if rng.random() < 0.4 else float(rng.uniform(30, 130))
    texture = dense + 12 * smooth(normal(hu.shape, rng, hu.device), 1)
    return hu + weight * (texture - hu)


def _other_phase(
    hu: torch.Tensor, classes: torch.Tensor, count: int, rng: np.random.Generator
) -> torch.Tensor:
    """Take contrast medium away from everything, or give every organ more or less of it."""
    kept = float(rng.uniform(0.0, 1.0))
    known = (classes != 0) & (classes != MAYBE)
    share = torch.where(known, 1.0, ((200 - hu) / 60).clamp(0, 1))  # what is brighter is bone
    enhanced = (smooth(hu, 1) - _SOFT_HU).clamp_min(0)  # a mean, so that noise stays as it is
    faded = hu - smooth(share, 1) * (1 - kept) * enhanced
    shifts = np.concatenate([[0.0], rng.normal(0, 15, count - 1)])
    table = torch.zeros(256, device=hu.device)
    table[:count] = torch.from_numpy(shifts.astype(np.float32)).to(hu.device)
    return faded + smooth(table[classes], 1)


def _with_fluid(
    hu: torch.Tensor,
    classes: torch.Tensor,
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> torch.Tensor:
    """Let fluid stand in the fat around organs, as ascites does."""
    known = (classes != 0) & (classes != MAYBE)
    near = _grown(known, float(rng.uniform(8, 25)), spacing_mm)
    fat = (hu < -30) & (hu > -160) & near & ~known
    wet = fat & (_field(hu, 5, rng) > float(rng.uniform(-0.5, 0.7)))
    fluid = float(rng.uniform(-5, 30)) + 12 * smooth(normal(hu.shape, rng, hu.device), 1)
    weight = smooth(wet.float(), 1) * ~known
    return hu + weight * (fluid - hu)


def _grown(mask: torch.Tensor, mm: float, spacing_mm: tuple[float, float, float]) -> torch.Tensor:
    """Return a mask and what lies within so many mm of it along the axes."""
    grown = mask[None, None].float()
    for axis, step in enumerate(spacing_mm):
        reach = min(math.ceil(mm / step), mask.shape[axis] - 1)
        if reach:
            size, padding = [1, 1, 1], [0, 0, 0]
            size[axis], padding[axis] = 2 * reach + 1, reach
            grown = functional.max_pool3d(grown, size, stride=1, padding=padding)
    grown_ZYX: torch.Tensor = grown[0, 0] > 0
    return grown_ZYX


def _field(like: torch.Tensor, knots: int, rng: np.random.Generator) -> torch.Tensor:
    """Return a smooth random field of about unit variance."""
    coarse = normal([min(knots, n) for n in like.shape], rng, like.device)
    return stretched(coarse[None], like.shape)[0]
