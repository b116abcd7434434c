"""Training samples: which case, where in it, and how it is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flarekit.core.channels import Rescale
from flarekit.training.augment import (
    change_intensities,
    ct_window,
    fill_bowel,
    mirror,
    place,
    sample,
)
from flarekit.training.losses import Target
from flarekit.training.pathology import change_organs, reshape_organ
from flarekit.training.recipe import Recipe
from flarekit.training.tables import OrganFacts
from flarekit.training.training_case import Spacing, TrainingCase
from flarekit.training.views import View, draw_view


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


class Sampler:
    """Draws the batches of a run on a device; cases are brought there when they are first drawn.

    Another seed draws other samples.
    """

    def __init__(
        self,
        recipe: Recipe,
        pools: Sequence[Pool],
        device: torch.device | None = None,
        seed: int = 0,
    ) -> None:
        self._seed = seed
        self._recipe, self._pools = recipe, pools
        self._device = device or torch.device("cpu")
        self._held: dict[int, tuple[TrainingCase, OnDevice]] = {}

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; it depends on nothing else."""
        rng = np.random.default_rng([7, step, self._seed] if self._seed else [7, step])
        images, classes, possible = [], [], []
        for _ in range(self._recipe.training.batch):
            case = _case(self._pools, rng)
            image, labels = draw_sample(case, self._recipe, rng, self._on_device(case))
            images.append(image)
            classes.append(labels)
            possible.append(torch.from_numpy(case.possible_K))
        image, target = torch.stack(images), torch.stack(classes)
        if self._recipe.flat:
            image, target = image[:, :, 0], target[:, 0]
        possible_BK = torch.stack(possible).to(self._device)
        return Batch(image=image, target=Target(target, possible_BK))

    def _on_device(self, case: TrainingCase) -> OnDevice:
        if id(case) not in self._held:
            self._held[id(case)] = (case, OnDevice.of(case, self._device))
        return self._held[id(case)][1]


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """The voxels of a case on a device: image float16, classes uint8, each channel's lowest."""

    image_CZYX: torch.Tensor
    classes_ZYX: torch.Tensor
    lowest_C: torch.Tensor

    @classmethod
    def of(cls, case: TrainingCase, device: torch.device) -> OnDevice:
        """Bring a case to a device."""
        lowest = case.image_CZYX.reshape(len(case.image_CZYX), -1).min(axis=1)
        return cls(
            image_CZYX=torch.from_numpy(case.image_CZYX).to(device),
            classes_ZYX=torch.from_numpy(case.classes_ZYX).to(device),
            lowest_C=torch.from_numpy(lowest.astype(np.float32)).to(device),
        )

    def within(self, view: View, rescaled: Sequence[bool]) -> OnDevice:
        """Return the part of a case that a view's scan has.

        Args:
            view: the window.
            rescaled: of each channel, whether its intensities are stretched by each volume's own.
        """
        image = self.image_CZYX[(slice(None), slice(None), *view.box_YX)]
        lowest, highest = image.amin(dim=(1, 2, 3)).float(), image.amax(dim=(1, 2, 3)).float()
        if any(rescaled):
            chosen = torch.tensor(rescaled, device=image.device)
            base = torch.where(chosen, lowest, 0).view(-1, 1, 1, 1)
            span = torch.where(chosen, (highest - lowest).clamp_min(1e-6), 1).view(-1, 1, 1, 1)
            image, lowest = (image.float() - base) / span, torch.where(chosen, 0, lowest)
        classes = self.classes_ZYX[(slice(None), *view.box_YX)]
        return OnDevice(image_CZYX=image, classes_ZYX=classes, lowest_C=lowest)


def draw_sample(
    case: TrainingCase,
    recipe: Recipe,
    rng: np.random.Generator,
    voxels: OnDevice | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read one augmented sample from a case.

    Most samples are centred near a voxel of a class drawn evenly, so that small organs are seen as
    often as large ones. Along axes where a tile is the whole scan (spacing `fit`) they are centred
    on the scan, as in prediction, or show a window that is drawn anew each time (`ViewFacts`).

    Args:
        case: on the network's grid, or on its scan's.
        recipe: size of the sample, and how far it is changed.
        rng: what decides.
        voxels: the case on the device where the sample is wanted; the CPU by default.

    Returns:
        image (C, Z, Y, X) float32 and class indices (Z, Y, X) int64.
    """
    facts = recipe.training
    augmentation, organs = facts.augmentation, facts.augmentation.organs
    voxels = voxels or OnDevice.of(case, torch.device("cpu"))
    case_mm, spacing_mm = case.spacing_mm_ZYX, sample_spacing(case, recipe)
    centre = _centre(case, recipe, spacing_mm, rng)
    if facts.views is not None:
        view = draw_view(case, facts.views, facts.tile_ZYX[1:], rng)
        channels = recipe.spec.channels
        voxels = voxels.within(view, [isinstance(each.intensity, Rescale) for each in channels])
        spacing_mm = (spacing_mm[0], *view.spacing_mm_YX)
        centre[1:] = np.subtract(view.middle_YX, [side.start for side in view.box_YX])
    centre_mm = centre * np.array(case_mm)
    device = voxels.image_CZYX.device
    positions = place(facts.tile_ZYX, spacing_mm, centre_mm, augmentation, rng, device)
    if organs.changed:
        names = recipe.organ_names
        positions = reshape_organ(positions, case.centres, case_mm, organs, names, rng)
    image, classes = sample(
        voxels.image_CZYX, voxels.classes_ZYX, positions, case_mm, voxels.lowest_C
    )
    image, classes = mirror(image, classes, augmentation, rng)
    if organs != OrganFacts():
        window = ct_window(recipe.spec.channels[0])
        image, classes = change_organs(
            image, classes, window, spacing_mm, organs, recipe.class_names, rng
        )
    if augmentation.oral_contrast and rng.random() < augmentation.oral_contrast:
        image = fill_bowel(image, classes, recipe.spec.channels[0], spacing_mm, rng)
    image = change_intensities(image, augmentation, rng)
    names = tuple(channel.name for channel in recipe.spec.channels)
    for name, chance in augmentation.hidden.items():
        if rng.random() < chance:
            hidden = image[names.index(name)]
            hidden[:] = hidden.min()
    return image, classes


def sample_spacing(case: TrainingCase, recipe: Recipe) -> Spacing:
    """Return the spacing (Z, Y, X) in mm of the network's grid on a case."""
    z, y, x = (
        mm if isinstance(mm, float) else own
        for mm, own in zip(recipe.spec.grid.spacing_mm_ZYX, case.spacing_mm_ZYX, strict=True)
    )
    return z, y, x


def _centre(
    case: TrainingCase, recipe: Recipe, spacing_mm: Spacing, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the middle of a sample in voxels of the case, (Z, Y, X).

    A sample that is not augmented lies on the case's own voxels where the spacings agree.
    """
    tile, shape = np.array(recipe.training.tile_ZYX), np.array(case.classes_ZYX.shape)
    voxels = _voxels_to_see(case, recipe, rng)
    if voxels is None:
        centre = rng.uniform(0, shape)
    else:
        sigma = tile / 8 * np.array(spacing_mm) / np.array(case.spacing_mm_ZYX)
        centre = voxels[rng.integers(len(voxels))] + rng.normal(0, sigma)
    whole = np.array([value == "fit" for value in recipe.spec.grid.spacing_mm_ZYX])
    centre = np.where(whole, shape / 2, centre)
    inside = np.clip(np.round(centre), 0, shape - 1)
    middle: NDArray[np.float64] = inside - tile // 2 + (tile - 1) / 2
    return middle


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
