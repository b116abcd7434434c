"""Cases that a predictor never saw, laid out as its organiser hands them to a container."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from flarekit.core.errors import InputError
from flarekit.core.records import RunRecord
from flarekit.core.volume import orientation_of
from flarekit.evaluation.masks import read_volume
from flarekit.phantom import save_phantom

Spacing = tuple[float, float, float]
Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A folder of cases, and what is known about them.

    Attributes:
        folder: an empty one.
        groups: case id -> which source it is of, where there are several.
        organs: case id -> label map of what is not a lesion, on the grid of the truth.
    """

    folder: Path
    groups: Mapping[str, str] = field(default_factory=dict)
    organs: Mapping[str, Array] = field(default_factory=dict)

    @property
    def inputs(self) -> Path:
        """The convention's input folder."""
        return self._made("inputs")

    @property
    def outputs(self) -> Path:
        """The convention's output folder."""
        return self._made("outputs")

    @property
    def truths(self) -> Path:
        """Holds `CASE` masks."""
        return self._made("truths")

    @property
    def scans(self) -> Path:
        """Holds `CASE_0000` volumes: what a picture shows behind masks."""
        return self._made("scans")

    def masks(self, record: RunRecord) -> Path:
        """Return a folder with one `CASE` mask per case of a run.

        Raises:
            InputError: a case failed.
        """
        for case in record.failed:
            raise InputError(f"{case.case_id}: {case.error}", fix=case.fix or "see above")
        masks = {case.mask for case in record.cases if case.mask is not None}
        (folder,) = {mask.parent for mask in masks}
        return folder

    def _made(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path


def held_out_scans(folder: Path, dataset: Path, held_out: Iterable[str]) -> Trial:
    """Lay out CTs of a dataset (nnU-Net raw layout) as FLARE does.

    Raises:
        InputError: a file of a case is not there.
    """
    trial = Trial(folder=folder)
    for case_id in held_out:
        scan = _existing(dataset / "imagesTr" / f"{case_id}_0000.nii.gz")
        truth = _existing(dataset / "labelsTr" / f"{case_id}.nii.gz")
        for target in (trial.inputs, trial.scans):
            (target / scan.name).symlink_to(scan)
        (trial.truths / truth.name).symlink_to(truth)
    return trial


def held_out_petct(folder: Path, dataset: Path, held_out: Iterable[str]) -> Trial:
    """Lay out PET/CTs of a dataset (channel 0 CT, 1 SUV) as autoPET does.

    Raises:
        InputError: a file of a case is not there.
    """
    trial = Trial(folder=folder)
    for case_id in held_out:
        images = [_existing(dataset / "imagesTr" / f"{case_id}_000{n}.nii.gz") for n in (0, 1)]
        for image, modality in zip(images, ("ct", "pet"), strict=True):
            target = trial.inputs / "images" / modality
            target.mkdir(parents=True, exist_ok=True)
            copied = SimpleITK.ReadImage(str(image))
            for key in copied.GetMetaDataKeys():  # a NIfTI header's, of no use in the other format
                copied.EraseMetaData(key)
            SimpleITK.WriteImage(copied, str(target / f"{case_id}.mha"))
        (trial.scans / images[0].name).symlink_to(images[1])  # the PET is what is looked at
        truth = _existing(dataset / "labelsTr" / f"{case_id}.nii.gz")
        (trial.truths / truth.name).symlink_to(truth)
    return trial


def unseen_phantoms(folder: Path, seeds: Iterable[int], trained_on: tuple[int, int]) -> Trial:
    """Lay out phantom CTs as FLARE does.

    Raises:
        InputError: a phantom was trained on.
    """
    trial = Trial(folder=folder)
    for seed in seeds:
        if seed in range(*trained_on):
            raise InputError(
                f"phantom {seed} was trained on",
                fix=f"choose seeds outside [{trained_on[0]}, {trained_on[1]})",
            )
        scan = trial.inputs / f"phantom_{seed}_0000.nii.gz"
        save_phantom(seed, scan=scan, labels=trial.truths / f"phantom_{seed}.nii.gz")
        (trial.scans / scan.name).symlink_to(scan)
    return trial


def oriented(path: Path) -> tuple[Array, Spacing]:
    """Return voxels with Z superior, Y posterior, X left, and their spacing in mm."""
    volume, _ = read_volume(path)
    orientation = orientation_of(volume.geometry.affine)
    spacing_mm = orientation.apply_to_axes(volume.geometry.spacing_mm_ZYX)
    return np.ascontiguousarray(orientation.apply(volume.voxels_ZYX)), spacing_mm


def petct_of(dataset: Path, case_id: str) -> tuple[tuple[Array, Array], Array, Spacing]:
    """Return CT and SUV of a case (nnU-Net raw layout), its lesions, and the spacing in mm."""
    images = [dataset / "imagesTr" / f"{case_id}_000{k}.nii.gz" for k in (0, 1)]
    (hu, spacing_mm), (suv, _) = map(oriented, images)
    labels, _ = oriented(dataset / "labelsTr" / f"{case_id}.nii.gz")
    return (hu, suv), labels > 0, spacing_mm


def write_mha(path: Path, voxels_ZYX: Array, spacing_mm: Spacing) -> None:
    """Write oriented voxels, the folders above them too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels_ZYX))
    image.SetSpacing([float(mm) for mm in reversed(spacing_mm)])
    SimpleITK.WriteImage(image, str(path))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: is not there", fix="name the dataset that the recipe is for")
    return path.resolve()
