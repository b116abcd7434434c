"""What makes cases that are not plain labelled scans: bodies, lesions, scans without a label."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from flarekit.core.boxes import box_of
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.nifti import read_nifti
from flarekit.core.volume import orientation_of
from flarekit.training.cases import on_grid, volume_of
from flarekit.training.other_ct import with_other_ct
from flarekit.training.recipe import Recipe
from flarekit.training.tables import NegativeFacts
from flarekit.training.training_case import Spacing, TrainingCase

_AROUND_ORGANS_MM = 150.0
SUV_ENDING = "_suv.nii.gz"
_NO_CT_HU = -1000.0
_SCANNER = (0.8, 1.2)  # voxels of a synthetic body, in those of the network


def _oriented(path: Path) -> tuple[NDArray[np.generic], Spacing]:
    """Return the voxels of a file in oriented axes, and their spacing."""
    volume = read_nifti(path)
    orientation = orientation_of(volume.geometry.affine)
    spacing_mm = orientation.apply_to_axes(volume.geometry.spacing_mm_ZYX)
    return orientation.apply(volume.voxels_ZYX), spacing_mm


def _affine(spacing_mm: Spacing) -> NDArray[np.float64]:
    """Return the affine of oriented axes: X to the left, Y to the back, Z up."""
    z, y, x = spacing_mm
    return np.diag([-x, -y, z, 1.0])


@dataclass(frozen=True)
class NegativeCase:
    """A scan of another part of the body."""

    path: Path
    recipe: Recipe
    facts: NegativeFacts

    def __call__(self) -> TrainingCase:
        """Make the case."""
        voxels, spacing_mm = _oriented(self.path)
        for beginning, (low, high) in self.facts.part.items():
            if self.path.name.startswith(beginning):
                voxels = voxels[int(low * len(voxels)) : max(1, int(high * len(voxels)))]
        possible = {
            name
            for beginning, names in self.facts.possible.items()
            if self.path.name.startswith(beginning)
            for name in names
        }
        anywhere = self.recipe.training.model_copy(update={"near": None})
        recipe = replace(self.recipe, training=anywhere)
        names = self.recipe.class_names
        volume = volume_of(voxels, _affine(spacing_mm), self.path.name)
        labels = np.zeros(voxels.shape, np.uint8)
        unlabelled = [names.index(name) for name in sorted(possible)]
        return on_grid(self.path.name, [volume], labels, recipe, unlabelled=unlabelled)


@dataclass(frozen=True)
class WholeBodyPet:
    """A real PET, or some of its slices; every organ may be anywhere in its background."""

    path: Path
    known_Z: tuple[int, int] | None
    copy: int
    added: int
    recipe: Recipe

    @property
    def image_paths(self) -> list[Path]:
        """The files beside the PET."""
        beside = (self._beside("_ct.nii.gz"), self._beside("_label.nii.gz"))
        return [path for path in beside if path.is_file()]

    def __call__(self) -> TrainingCase:
        """Make the case."""
        from flarekit.synthesis import add_pet_lesions

        name = self.path.name.removesuffix(SUV_ENDING)
        pet = read_nifti(self.path)
        own_ct = self._beside("_ct.nii.gz")
        ct = read_nifti(own_ct) if own_ct.is_file() else None
        lesions = np.zeros(pet.geometry.shape_ZYX, np.uint8)
        if self._beside("_label.nii.gz").is_file():
            lesions[read_nifti(self._beside("_label.nii.gz")).voxels_ZYX > 0] = 1
        hu = np.full(lesions.shape, _NO_CT_HU, np.float32) if ct is None else ct.voxels_ZYX
        if hu.shape != lesions.shape:
            raise InputError(
                f"{own_ct}: lies on another grid than the PET", fix="resample the CT to the PET"
            )
        rng = np.random.default_rng([19, self.copy, crc32(os.fsencode(name))])
        suv = pet.voxels_ZYX.astype(np.float32)
        known = slice(None) if self.known_Z is None else slice(*self.known_Z)
        if not lesions[known].size:
            raise InputError(f"{self.path}: has no slices {self.known_Z}", fix="correct known_Z")
        if self.added:
            count = int(rng.integers(1, self.added + 1))
            spacing_mm = pet.geometry.spacing_mm_ZYX
            add_pet_lesions(suv[known], lesions[known], spacing_mm, count, rng)
        volumes = [volume_of(voxels[known], pet.geometry.affine, name) for voxels in (hu, suv)]
        whole = self.recipe.spec.model_copy(update={"crop": None})  # a CT may be short, or absent
        recipe = replace(self.recipe, spec=whole)
        unlabelled = self.recipe.auxiliary_classes
        labels = lesions[known] * np.uint8(self.recipe.label_values[1])
        case = on_grid(name, volumes, labels, recipe, unlabelled=unlabelled)
        if not self.copy and ct is not None:
            return case
        return with_other_ct(case, recipe, rng, has_ct=ct is not None)

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name.removesuffix(SUV_ENDING) + ending)


@dataclass(frozen=True)
class LesionCase:
    """A lesion in a real CT."""

    path: Path
    seed: int
    recipe: Recipe

    def __call__(self) -> TrainingCase:
        """Make the case."""
        from flarekit.synthesis import ct_lesion_voi

        voxels, spacing_mm = _oriented(self.path)
        voi = ct_lesion_voi(voxels.astype(np.float32), spacing_mm, self.seed)
        name = f"{self.path.name}-lesion-{self.seed}"
        volume = volume_of(voi.hu_ZYX, _affine(spacing_mm), name)
        labels = voi.lesion_ZYX * np.uint8(self.recipe.spec.class_values[1])
        unlabelled = self.recipe.auxiliary_classes
        return on_grid(name, [volume], labels, self.recipe, unlabelled=unlabelled)


@dataclass(frozen=True)
class WholeBodyCase:
    """A PET/CT around real organs, with voxels about as large as the network's."""

    path: Path
    seed: int
    recipe: Recipe

    def __call__(self) -> TrainingCase:
        """Make the case."""
        from flarekit.preprocess.resample import resample_nearest, resampled_shape
        from flarekit.synthesis import ORGANS, wholebody_petct

        voxels, scan_mm = _oriented(self.path)
        organs = _around(voxels.astype(np.uint8), scan_mm)
        rng = np.random.default_rng([23, self.seed])
        spacing_mm = self._spacing_mm(rng)
        z, y, x = organs.shape
        organs = resample_nearest(organs, resampled_shape((z, y, x), scan_mm, spacing_mm))
        body = wholebody_petct(organs, spacing_mm, self.seed)
        name = f"{self.path.name}-body-{self.seed}"
        volumes = [
            volume_of(voxels_ZYX, _affine(spacing_mm), name)
            for voxels_ZYX in (body.hu_ZYX, body.suv_ZYX)
        ]
        values = dict(zip(self.recipe.class_names, self.recipe.label_values, strict=True))
        labels = np.zeros(organs.shape, np.uint8)
        for organ in self.recipe.spec.auxiliary:
            labels[organs == ORGANS[organ]] = values[organ]
        labels[body.lesions_ZYX > 0] = self.recipe.label_values[1]
        case = on_grid(name, volumes, labels, self.recipe, unlabelled=())
        if self.recipe.training.other_ct is None:
            return case
        return with_other_ct(case, self.recipe, rng)

    def _spacing_mm(self, rng: np.random.Generator) -> Spacing:
        """Return voxels of a scanner, somewhat smaller or larger than the network's."""
        spacing = [mm for mm in self.recipe.spec.grid.spacing_mm_ZYX if not isinstance(mm, str)]
        if len(spacing) != 3:
            raise PredictorError(
                "grid.spacing_mm_ZYX: whole bodies need a spacing in numbers",
                fix="give three, in mm",
            )
        along, in_plane = (float(rng.uniform(*_SCANNER)) for _ in range(2))
        return spacing[0] * along, spacing[1] * in_plane, spacing[2] * in_plane


def _around(organs: NDArray[np.uint8], spacing_mm: Spacing) -> NDArray[np.uint8]:
    """Crop a label map in plane to its organs and what surrounds them."""
    box = box_of(organs > 0)
    assert box is not None
    margins = [round(_AROUND_ORGANS_MM / mm) for mm in spacing_mm[1:]]
    y, x = (slice(max(0, s.start - n), s.stop + n) for s, n in zip(box[1:], margins, strict=True))
    return organs[:, y, x]
