"""Datasets of a few generated cases, of the kind that a paper's recipe is for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np

from flarekit.phantom import Phantom, abdomen_phantom
from flarekit.synthesis import ORGANS, ct_lesion_voi, wholebody_petct
from tests.training.mr import abdomen_mr, brain_mr

SHAPE = (32, 56, 64)
_OF_PHANTOM = {"liver": (1,), "kidneys": (2, 13), "spleen": (3,), "stomach": (11,)}
Case = tuple[Sequence[np.ndarray], np.ndarray, np.ndarray]  # channels, labels, affine


def write_dataset(folder: Path, name: str, labels: int) -> Path:
    """Write two cases for a recipe, in nnU-Net's raw layout.

    Args:
        folder: to be made.
        name: of the recipe, such as `mamba_clinix/brats`.
        labels: how many it has; the values are 1 to that.
    """
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for seed in range(2):
        channels, truth, affine = _case(name, seed)
        truth = np.where(truth <= labels, truth, 0).astype(np.uint8)
        for index, voxels in enumerate(channels):
            _save(folder / "imagesTr" / f"case_{seed}_{index:04d}.nii.gz", voxels, affine)
        _save(folder / "labelsTr" / f"case_{seed}.nii.gz", truth, affine)
    return folder


def _case(name: str, seed: int) -> Case:
    task = name.split("/")[1]
    if task in ("brats", "glioblastoma"):
        head = brain_mr(seed, shape_ZYX=(40, 48, 48), spacing_mm=(4.0, 4.0, 4.0))
        return list(head.intensities_CZYX), head.labels_ZYX, head.affine
    phantom = abdomen_phantom(seed, shape_ZYX=SHAPE)
    if task == "abdomen_mr":
        return [abdomen_mr(phantom, seed)], phantom.labels_ZYX, phantom.affine
    if task == "psma":
        body = wholebody_petct(_organs(phantom), phantom.spacing_mm_ZYX, seed)
        return [body.hu_ZYX, body.suv_ZYX], body.lesions_ZYX, phantom.affine
    if name.startswith("mamba_ahnet"):
        voi = ct_lesion_voi(phantom.hu_ZYX.astype(np.float32), phantom.spacing_mm_ZYX, seed)
        return [voi.hu_ZYX], voi.lesion_ZYX, phantom.affine
    labels = phantom.labels_ZYX.copy()
    if task == "flare23":
        liver = np.argwhere(labels == 1)
        middle = liver[len(liver) // 2]
        near = np.linalg.norm(np.argwhere(labels == 1) - middle, axis=1) < 4
        labels[tuple(liver[near].T)] = 14
    return [phantom.hu_ZYX], labels, phantom.affine


def _organs(phantom: Phantom) -> np.ndarray:
    organs = np.zeros(phantom.labels_ZYX.shape, np.uint8)
    for name, values in _OF_PHANTOM.items():
        organs[np.isin(phantom.labels_ZYX, values)] = ORGANS[name]
    return organs


def _save(path: Path, voxels_ZYX: np.ndarray, affine: np.ndarray) -> None:
    voxels = voxels_ZYX if voxels_ZYX.dtype != np.uint16 else voxels_ZYX.astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels.T, affine), path)


def steps(count: int) -> Iterator[float]:
    """Yield the seconds of a clock that lets a training of a minute make so many steps."""
    second = 0.0
    while True:
        yield second
        second += 30.0 / count
