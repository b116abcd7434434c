"""Where a recipe's samples come from: a dataset, phantoms, and synthesis from material."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError, PredictorError
from flarekit.core.nifti import read_nifti
from flarekit.core.volume import orientation_of
from flarekit.training.cases import (
    LazyCases,
    Spacing,
    TrainingCase,
    on_grid,
    phantom_cases,
    real_cases,
    volume_of,
)
from flarekit.training.recipe import Recipe, SynthesisFacts
from flarekit.training.samples import Pool

_LOG = logging.getLogger(__name__)
_AROUND_ORGANS_MM = 150.0


def training_pools(recipe: Recipe, dataset: Path, material: Sequence[Path] = ()) -> list[Pool]:
    """Return the pools that a recipe asks for.

    The dataset is read at once, so that a damaged file stops the run at its start; synthetic cases
    are made when they are first drawn.

    Args:
        recipe: shares and seeds.
        dataset: nnU-Net raw layout.
        material: what the recipe's synthesis works on, see `SynthesisFacts`: folders of CTs
            (`imagesTr/*_0000.nii.gz`, or `*.nii.gz` but `*_mask.nii.gz`), or of organ label maps.

    Raises:
        InputError: no cases, no material, or a file that cannot be read.
    """
    facts = recipe.training
    pools = [Pool(cases=phantom_cases(recipe), share=facts.phantom_share)]
    synthetic = 0.0
    if facts.synthesis is not None:
        synthetic = facts.synthesis.share
        cases = synthetic_cases(recipe, facts.synthesis, material)
        pools.append(Pool(cases=cases, share=synthetic))
    real = 1 - facts.phantom_share - synthetic
    if real > 1e-6:
        cases_read = list(real_cases(dataset, recipe))
        _LOG.info("%d labelled cases of %s", len(cases_read), dataset)
        pools.append(Pool(cases=cases_read, share=real))
    return [pool for pool in pools if pool.share > 0]


def synthetic_cases(recipe: Recipe, facts: SynthesisFacts, material: Sequence[Path]) -> LazyCases:
    """Return the cases that the recipe's synthesis makes, in turn from each file of the material.

    Raises:
        InputError: there is no material.
    """
    held_out = (*recipe.training.held_out, *facts.held_out)
    files = [path for folder in material for path in material_files(folder, held_out)]
    if not files:
        what = "organ label maps" if facts.kind == "wholebody_petct" else "CTs"
        raise InputError(
            f"the recipe's synthesis ({facts.kind}) has nothing to work on",
            fix=f"name a folder of {what} with --material",
        )
    maker = _WholeBodyCase if facts.kind == "wholebody_petct" else _LesionCase
    return LazyCases(
        [maker(files[seed % len(files)], seed, recipe) for seed in range(*facts.seeds)]
    )


def material_files(folder: Path, held_out: Sequence[str]) -> list[Path]:
    """Return the files that synthesis works on, in turn, without those that are held out."""
    images = sorted((folder / "imagesTr").glob("*_0000.nii.gz"))
    files = images or [
        path for path in sorted(folder.glob("*.nii.gz")) if not path.name.endswith("_mask.nii.gz")
    ]
    return [path for path in files if not path.name.startswith(tuple(held_out))]


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
class _LesionCase:
    """A lesion in a real CT."""

    path: Path
    seed: int
    recipe: Recipe

    def __call__(self) -> TrainingCase:
        from flarekit.synthesis import ct_lesion_voi

        voxels, spacing_mm = _oriented(self.path)
        voi = ct_lesion_voi(voxels.astype(np.float32), spacing_mm, self.seed)
        name = f"{self.path.name}-lesion-{self.seed}"
        volume = volume_of(voi.hu_ZYX, _affine(spacing_mm), name)
        labels = voi.lesion_ZYX * np.uint8(self.recipe.spec.class_values[1])
        unlabelled = self.recipe.auxiliary_classes
        return on_grid(name, [volume], labels, self.recipe, unlabelled=unlabelled)


@dataclass(frozen=True)
class _WholeBodyCase:
    """A PET/CT around real organs, made on the network's own grid."""

    path: Path
    seed: int
    recipe: Recipe

    def __call__(self) -> TrainingCase:
        from flarekit.preprocess.resample import resample_nearest, resampled_shape
        from flarekit.synthesis import ORGANS, wholebody_petct

        voxels, scan_mm = _oriented(self.path)
        organs = _around(voxels.astype(np.uint8), scan_mm)
        spacing_mm = self._spacing_mm()
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
        return on_grid(name, volumes, labels, self.recipe, unlabelled=())

    def _spacing_mm(self) -> Spacing:
        spacing = [mm for mm in self.recipe.spec.grid.spacing_mm_ZYX if not isinstance(mm, str)]
        if len(spacing) != 3:
            raise PredictorError(
                "grid.spacing_mm_ZYX: whole bodies are made on a grid of numbers", fix="give mm"
            )
        return spacing[0], spacing[1], spacing[2]


def _around(organs: NDArray[np.uint8], spacing_mm: Spacing) -> NDArray[np.uint8]:
    """Crop a label map in plane to its organs and what surrounds them."""
    box = [slice(None)]
    for axis in (1, 2):
        inside = np.flatnonzero(
            organs.any(axis=tuple(other for other in range(3) if other != axis))
        )
        margin = round(_AROUND_ORGANS_MM / spacing_mm[axis])
        box.append(slice(max(0, int(inside[0]) - margin), int(inside[-1]) + margin + 1))
    return organs[tuple(box)]
