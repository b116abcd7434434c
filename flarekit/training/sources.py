"""Where a recipe's samples come from: a dataset, phantoms, and synthesis from material."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError, PredictorError
from flarekit.core.nifti import read_nifti
from flarekit.core.volume import orientation_of
from flarekit.training.cases import (
    LazyCases,
    Spacing,
    TrainingCase,
    matches,
    on_grid,
    phantom_cases,
    real_cases,
    volume_of,
)
from flarekit.training.other_ct import with_other_ct
from flarekit.training.recipe import DatasetFacts, NegativeFacts, Recipe, SynthesisFacts
from flarekit.training.samples import Pool

_LOG = logging.getLogger(__name__)
_AROUND_ORGANS_MM = 150.0
_SUV = "_suv.nii.gz"
_NO_CT_HU = -1000.0
_SCANNER = (0.8, 1.2)  # voxels of a synthetic body, in those of the network


def training_pools(
    recipe: Recipe,
    dataset: Path,
    material: Sequence[Path] = (),
    negatives: Sequence[Path] = (),
) -> list[Pool]:
    """Return the pools that a recipe asks for.

    Cases are made when they are first drawn, unless `make_all` of each pool makes them before.

    Args:
        recipe: shares and seeds.
        dataset: nnU-Net raw layout; where the recipe names datasets, the folder that holds them.
        material: what the recipe's synthesis works on, see `SynthesisFacts`: folders of CTs
            (`imagesTr/*_0000.nii.gz`, or `*.nii.gz` but `*_mask.nii.gz`), or of organ label maps.
        negatives: folders of CTs without a label, see `NegativeFacts`.

    Raises:
        InputError: no cases, no material, no negatives, or a file that cannot be read.
    """
    facts = recipe.training
    pools = [Pool(cases=phantom_cases(recipe), share=facts.phantom_share)]
    synthetic = 0.0
    if facts.synthesis is not None:
        synthetic = facts.synthesis.share
        cases = synthetic_cases(recipe, facts.synthesis, material)
        pools.append(Pool(cases=cases, share=synthetic))
    nothing = 0.0
    if facts.negatives is not None:
        nothing = facts.negatives.share
        pools.append(Pool(cases=negative_cases(recipe, facts.negatives, negatives), share=nothing))
    real = 1 - facts.phantom_share - synthetic - nothing
    tables = facts.datasets or (DatasetFacts(folder="unnamed", share=max(0.0, real)),)
    for folder, table in zip(dataset_folders(recipe, dataset), tables, strict=True):
        if table.share > 1e-6:
            labelled = _labelled(folder, table, recipe)
            _LOG.info("%d labelled cases of %s", len(labelled), folder)
            pools.append(Pool(cases=labelled, share=table.share))
    return [pool for pool in pools if pool.share > 0]


def make_all(pools: Sequence[Pool], folder: Path, processes: int) -> None:
    """Make every case of some pools, so that training never waits for one.

    Args:
        pools: of `training_pools`.
        folder: keeps the cases for later runs; see `flarekit.training.kept`.
        processes: that make cases at the same time.

    Raises:
        InputError: a case cannot be made.
        OutputError: the folder cannot be written.
    """
    for pool in pools:
        if isinstance(pool.cases, LazyCases):
            pool.cases.make_all(folder, processes)


def dataset_folders(recipe: Recipe, dataset: Path) -> list[Path]:
    """Return the folders of a recipe's datasets: the one that is named, or those in it.

    Args:
        recipe: `training.datasets`.
        dataset: nnU-Net raw layout; the folder that holds such folders where the recipe names them.
    """
    names = [table.folder for table in recipe.training.datasets]
    return [dataset / name for name in names] if names else [dataset]


def _labelled(folder: Path, table: DatasetFacts, recipe: Recipe) -> LazyCases:
    if table.layout == "wholebody_pet":
        return wholebody_cases(folder, table, recipe)
    return real_cases(folder, recipe)


def wholebody_cases(folder: Path, table: DatasetFacts, recipe: Recipe) -> LazyCases:
    """Return the whole-body PETs of a folder that are trained on, in as many copies as wanted.

    Raises:
        InputError: there are none.
    """
    facts = recipe.training
    not_trained_on = (*facts.held_out, *facts.validation)
    paths = [
        path
        for path in sorted(folder.glob(f"*{_SUV}"))
        if not matches(path.name.removesuffix(_SUV), not_trained_on)
    ]
    if not paths:
        raise InputError(
            f"{folder}: holds no whole-body PET to train on", fix=f"name a folder with X{_SUV}"
        )
    copies = range(1 if facts.other_ct is None else facts.other_ct.copies)
    return LazyCases(
        [
            _WholeBodyPet(path, known, copy, table.added * (copy % 2), recipe)
            for path in paths
            for known in table.known_Z.get(path.name.removesuffix(_SUV), (None,))
            for copy in copies
        ]
    )


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


def negative_cases(recipe: Recipe, facts: NegativeFacts, folders: Sequence[Path]) -> LazyCases:
    """Return scans in which nothing is to be found but what the recipe says may be there.

    Raises:
        InputError: there are none.
    """
    held_out = recipe.training.held_out
    files = [path for folder in folders for path in material_files(folder, held_out)]
    if not files:
        raise InputError(
            "the recipe takes negatives, and no folder with such scans was named",
            fix="name a folder of CTs without a label with --negatives",
        )
    return LazyCases([_NegativeCase(path, recipe, facts) for path in files])


def material_files(folder: Path, held_out: Sequence[str]) -> list[Path]:
    """Return a folder's scans (or one file), in turn, without those that are held out."""
    if folder.is_file():
        return [folder]
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
class _NegativeCase:
    """A scan of another part of the body."""

    path: Path
    recipe: Recipe
    facts: NegativeFacts

    def __call__(self) -> TrainingCase:
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
class _WholeBodyPet:
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
        from flarekit.synthesis import add_pet_lesions

        name = self.path.name.removesuffix(_SUV)
        pet = read_nifti(self.path)
        own_ct = self._beside("_ct.nii.gz")
        ct = read_nifti(own_ct) if own_ct.is_file() else None
        lesions = np.zeros(pet.geometry.shape_ZYX, np.uint8)
        if self._beside("_label.nii.gz").is_file():
            lesions[read_nifti(self._beside("_label.nii.gz")).voxels_ZYX > 0] = 1
        hu = np.full(lesions.shape, _NO_CT_HU, np.float32) if ct is None else ct.voxels_ZYX
        if hu.shape != lesions.shape:
            raise InputError(f"{own_ct}: lies on another grid than the PET", fix="resample it")
        rng = np.random.default_rng([19, self.copy, crc32(name.encode())])
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
        return self.path.with_name(self.path.name.removesuffix(_SUV) + ending)


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
    """A PET/CT around real organs, with voxels about as large as the network's."""

    path: Path
    seed: int
    recipe: Recipe

    def __call__(self) -> TrainingCase:
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
                "grid.spacing_mm_ZYX: whole bodies are made on a grid of numbers", fix="give mm"
            )
        along, in_plane = (float(rng.uniform(*_SCANNER)) for _ in range(2))
        return spacing[0] * along, spacing[1] * in_plane, spacing[2] * in_plane


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
