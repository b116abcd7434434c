"""Training samples: which case, where in it, and how it is changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flarekit.training.augment import ROOM, change_intensities, fill_bowel, move
from flarekit.training.cases import TrainingCase
from flarekit.training.losses import Target
from flarekit.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Cases of one kind, and the fraction of samples that they give."""

    cases: Sequence[TrainingCase]
    share: float


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step sees: image (B, C, Z, Y, X), (B, C, Y, X) for a 2D network, and its target."""

    image: torch.Tensor
    target: Target

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        target = Target(
            self.target.classes.to(device, non_blocking=True),
            self.target.possible_BK.to(device, non_blocking=True),
        )
        return Batch(image=self.image.to(device, non_blocking=True), target=target)


def draw_batch(recipe: Recipe, pools: Sequence[Pool], step: int) -> Batch:
    """Return the batch of a step; it depends on nothing else."""
    rng = np.random.default_rng([7, step])
    images, classes, possible = [], [], []
    for _ in range(recipe.training.batch):
        case = _case(pools, rng)
        image, labels = draw_sample(case, recipe, rng)
        images.append(image)
        classes.append(labels)
        possible.append(torch.from_numpy(case.possible_K))
    image, target = torch.stack(images), torch.stack(classes)
    if recipe.flat:
        image, target = image[:, :, 0], target[:, 0]
    return Batch(image=image, target=Target(target, torch.stack(possible)))


def draw_sample(
    case: TrainingCase, recipe: Recipe, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut one augmented sample.

    Most samples are centred near a voxel of a class drawn evenly, so that small organs are seen as
    often as large ones. Along axes where a tile is the whole scan (spacing `fit`) they are centred
    on the scan, as in prediction.

    Returns:
        image (C, Z, Y, X) float32 and class indices (Z, Y, X) int64.
    """
    facts, spacing = recipe.training, recipe.spec.grid.spacing_mm_ZYX
    tile = facts.tile_ZYX
    shape = np.array(case.classes_ZYX.shape)
    voxels = _voxels_to_see(case, recipe, rng)
    if voxels is None:
        centre = rng.uniform(0, shape)
    else:
        jitter = rng.normal(0, np.array(tile) / 8)
        centre = voxels[rng.integers(len(voxels))] + jitter
    whole = np.array([value == "fit" for value in spacing])
    centre = np.where(whole, shape / 2, centre)
    image, classes = _cut(case, np.round(centre).astype(int), tile)
    image, classes = move(image, classes, tile, case.spacing_mm_ZYX, facts.augmentation, rng)
    if facts.augmentation.oral_contrast and rng.random() < facts.augmentation.oral_contrast:
        image = fill_bowel(image, classes, recipe.spec.channels[0], case.spacing_mm_ZYX, rng)
    image = change_intensities(image, facts.augmentation, rng)
    names = [channel.name for channel in recipe.spec.channels]
    for name, chance in facts.augmentation.hidden.items():
        if rng.random() < chance:
            hidden = image[names.index(name)]
            hidden[:] = hidden.min()
    return image, classes


def _voxels_to_see(
    case: TrainingCase, recipe: Recipe, rng: np.random.Generator
) -> NDArray[np.int32] | None:
    """Return the voxels that a sample is centred on one of; None for anywhere."""
    facts = recipe.training
    if case.centres and rng.random() < facts.foreground:
        return case.centres[int(rng.choice(list(case.centres)))]
    hard = facts.hard_negatives
    if hard is not None and case.hard_negatives:
        share = hard.share / (1 - facts.foreground) if case.centres else hard.share
        if rng.random() < share:
            sizes = np.sqrt([len(part) for part in case.hard_negatives])
            return case.hard_negatives[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
    return None


def _case(pools: Sequence[Pool], rng: np.random.Generator) -> TrainingCase:
    """Return a case of a pool drawn by its share."""
    shares = np.array([pool.share if len(pool.cases) else 0.0 for pool in pools])
    pool = pools[int(rng.choice(len(pools), p=shares / shares.sum()))]
    return pool.cases[int(rng.integers(len(pool.cases)))]


def _cut(
    case: TrainingCase, centre: NDArray[np.int_], tile_ZYX: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut the surroundings of a tile; outside the scan is each channel's lowest value."""
    size = [n if n == 1 else math.ceil(n * ROOM) for n in tile_ZYX]
    lowest = case.image_CZYX.reshape(len(case.image_CZYX), -1).min(axis=1).astype(np.float32)
    image = np.empty((len(lowest), *size), np.float32)
    image[:] = lowest.reshape(-1, 1, 1, 1)
    classes = np.zeros(size, np.uint8)
    source, target = [], []
    for c, n, extent in zip(centre, size, case.classes_ZYX.shape, strict=True):
        start = int(np.clip(c, 0, extent - 1)) - n // 2
        low, high = max(0, start), min(extent, start + n)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    image[(slice(None), *target)] = case.image_CZYX[(slice(None), *source)]
    classes[tuple(target)] = case.classes_ZYX[tuple(source)]
    return torch.from_numpy(image), torch.from_numpy(classes)
