"""Held-out scans with organs as they are in disease, from fixed seeds: what no data here shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import torch
from accuracy_cases import Trial

from flarekit.core.errors import InputError
from flarekit.training.augment import ct_window, place, sample
from flarekit.training.cases import real_cases
from flarekit.training.losses import MAYBE
from flarekit.training.pathology import change_organs, reshape_organ
from flarekit.training.recipe import Recipe
from flarekit.training.samples import OnDevice
from flarekit.training.tables import AugmentationFacts, OrganFacts
from flarekit.training.training_case import TrainingCase

_STILL = AugmentationFacts(rotation_deg_ZYX=(0, 0, 0), scale=0, intensity=0)
_SOLID = ("liver", "spleen", "right_kidney", "left_kidney")
CHANGES = {
    "large-spleen": OrganFacts(changed=1, factor={"spleen": (2.0, 2.4)}),
    "large-liver": OrganFacts(changed=1, factor={"liver": (1.25, 1.4)}),
    "lesions": OrganFacts(lesions=1, lesion_labels=_SOLID),
    "unenhanced": OrganFacts(contrast=1),
    "no-spleen": OrganFacts(removed={"spleen": 1}),
    "fluid": OrganFacts(fluid=1),
}


def altered_scans(folder: Path, dataset: Path, held_out: Iterable[str], recipe: Recipe) -> Trial:
    """Lay out every held-out CT with every change; the same changes whatever the predictor.

    Args:
        folder: gets the files.
        dataset: nnU-Net raw layout.
        held_out: the cases.
        recipe: names every organ that is changed, and its value in the label maps.

    Raises:
        InputError: a file of a case is not there.
    """
    trial = Trial(folder=folder)
    wanted = set(held_out)
    everything = {
        path.name.removesuffix(".nii.gz") for path in (dataset / "labelsTr").glob("*.nii.gz")
    }
    if not wanted or not wanted <= everything:
        raise InputError(
            f"{dataset}: lacks {', '.join(sorted(wanted - everything)) or 'held-out cases'}",
            fix="name the dataset that the recipe holds cases out of",
        )
    facts = recipe.training.model_copy(
        update={"held_out": tuple(everything - wanted), "validation": (), "case_grid": "scan"}
    )
    groups = {}
    for case in real_cases(dataset, replace(recipe, training=facts)):
        for seed, (name, change) in enumerate(CHANGES.items()):
            case_id = f"{case.case_id}-{name}"
            _write(case, recipe, change, seed, case_id, trial)
            groups[case_id] = name
    return replace(trial, groups=groups)


def _write(
    case: TrainingCase, recipe: Recipe, change: OrganFacts, seed: int, case_id: str, trial: Trial
) -> None:
    rng = np.random.default_rng([seed, len(case.classes_ZYX)])
    voxels, names = OnDevice.of(case, torch.device("cpu")), recipe.organ_names
    z, y, x = case.classes_ZYX.shape
    mm = case.spacing_mm_ZYX
    middle_mm = (np.array([z, y, x]) - 1) / 2 * np.array(mm)
    positions = place((z, y, x), mm, middle_mm, _STILL, rng, voxels.image_CZYX.device)
    positions = reshape_organ(positions, case.centres, mm, change, names, rng)
    image, classes = sample(voxels.image_CZYX, voxels.classes_ZYX, positions, mm, voxels.lowest_C)
    window = ct_window(recipe.spec.channels[0])
    image, classes = change_organs(image, classes, window, mm, change, recipe.class_names, rng)
    values = np.zeros(256, np.uint8)
    values[: len(recipe.class_names)] = recipe.label_values
    values[MAYBE] = 0
    hu = (image[0] * window.std + window.mean).round().short().numpy()
    affine = np.diag([-mm[2], -mm[1], mm[0], 1.0])
    files = ((trial.inputs, "_0000", hu), (trial.scans, "_0000", hu),
             (trial.truths, "", values[classes.numpy()]))  # fmt: skip
    for folder, suffix, array in files:
        image_XYZ = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
        image_XYZ.to_filename(folder / f"{case_id}{suffix}.nii.gz")
