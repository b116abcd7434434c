"""Lesions on real scans as ULS23 has them: 128 x 256 x 256 voxels around each, stacked in Z."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy_cases import Array, Spacing, Trial, oriented, write_mha
from numpy.typing import NDArray

from flarekit.conventions.uls23 import SHAPE_ZYX
from flarekit.core.errors import InputError
from flarekit.core.records import RunRecord
from flarekit.core.volume import orientation_of
from flarekit.evaluation.masks import read_mask, read_volume
from flarekit.training.cases import case_ids

_STACK = "lesions.mha"


@dataclass(frozen=True, kw_only=True)
class Voi:
    """One lesion in the middle of its surroundings.

    Attributes:
        group: which source it is of.
    """

    case_id: str
    group: str
    hu_ZYX: NDArray[np.int16]
    lesion_ZYX: NDArray[np.uint8]
    spacing_mm: Spacing


@dataclass(frozen=True, kw_only=True)
class VoiTrial(Trial):
    """Volumes of interest; the masks of a run are one stack.

    Attributes:
        spacings_mm: case id -> of its voxels, in the order of the stack.
    """

    spacings_mm: dict[str, Spacing]

    def masks(self, record: RunRecord) -> Path:
        """Return a folder with one mask per case, cut from the stack."""
        stack = read_mask(super().masks(record) / _STACK).values_ZYX
        folder = self._made("masks")
        volumes = stack.reshape(-1, *SHAPE_ZYX)
        for (case_id, spacing_mm), mask in zip(self.spacings_mm.items(), volumes, strict=True):
            write_mha(folder / f"{case_id}.mha", mask, spacing_mm)
        return folder


def lesion_vois(
    folder: Path, *, dataset: Path | None, held_out: Iterable[str], vois: Path | None
) -> VoiTrial:
    """Lay out lesions as ULS23 does.

    Args:
        folder: to fill.
        dataset: nnU-Net raw layout with the scan as channel 0 and one lesion label; its held-out
            cases are cut around the middle of their largest lesion, at the spacing they are stored
            with.
        held_out: their ids, or patterns of ids.
        vois: `X_ct.nii.gz` and `X_mask.nii.gz` with a lesion at the middle voxel.

    Raises:
        InputError: neither is given, or one holds nothing.
    """
    found = [*(() if vois is None else _given(vois))]
    if dataset is not None:
        found += [_of_dataset(dataset, case_id) for case_id in case_ids(dataset, only=[*held_out])]
    if not found:
        raise InputError("no lesions", fix="give --material (X_ct, X_mask) or --dataset, or both")
    return lay_out_vois(folder, found)


def lay_out_vois(folder: Path, found: Sequence[Voi]) -> VoiTrial:
    """Write volumes of interest as ULS23 hands them out, stacked in the order given."""
    trial = VoiTrial(
        folder=folder,
        groups={voi.case_id: voi.group for voi in found},
        spacings_mm={voi.case_id: voi.spacing_mm for voi in found},
    )
    stack = np.concatenate([voi.hu_ZYX for voi in found])
    stack_path = trial.inputs / "images" / "stacked-3d-ct-lesion-volumes" / _STACK
    write_mha(stack_path, stack, (1.0, 1.0, 1.0))
    spacings = [list(reversed(voi.spacing_mm)) for voi in found]
    (trial.inputs / "stacked-3d-volumetric-spacings.json").write_text(json.dumps(spacings))
    for voi in found:
        write_mha(trial.scans / f"{voi.case_id}_0000.mha", voi.hu_ZYX, voi.spacing_mm)
        write_mha(trial.truths / f"{voi.case_id}.mha", voi.lesion_ZYX, voi.spacing_mm)
    return trial


def cut_voi(hu_ZYX: Array, lesion_ZYX: Array, centre_ZYX: Iterable[int]) -> tuple[Array, Array]:
    """Cut ULS23's size around a voxel, which comes to (64, 128, 128).

    Outside the scan is the lowest value of what was cut out, as in the organiser's volumes.
    """
    source, target = [], []
    for centre, size, extent in zip(centre_ZYX, SHAPE_ZYX, hu_ZYX.shape, strict=True):
        start = centre - size // 2
        low, high = max(0, start), min(extent, start + size)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    inside = hu_ZYX[tuple(source)]
    hu = np.full(SHAPE_ZYX, round(float(inside.min())), np.int16)
    lesion = np.zeros(SHAPE_ZYX, np.uint8)
    hu[tuple(target)] = np.rint(inside)
    lesion[tuple(target)] = lesion_ZYX[tuple(source)] > 0
    return hu, lesion


def click_in(lesion_ZYX: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the voxel of the largest component nearest to the middle of its box."""
    import cc3d

    where = np.argwhere(cc3d.largest_k(lesion_ZYX, k=1, connectivity=18) > 0)
    middle = (where.min(axis=0) + where.max(axis=0)) / 2
    z, y, x = where[np.argmin(np.sum((where - middle) ** 2, axis=1))]
    return int(z), int(y), int(x)


def _given(folder: Path) -> list[Voi]:
    """Return the lesions of a folder, at the middle voxels of their files."""
    found = []
    for path in sorted(folder.glob("*_ct.nii.gz")):
        case_id = path.name.removesuffix("_ct.nii.gz")
        hu, spacing_mm = oriented(path)
        lesion, _ = oriented(path.with_name(f"{case_id}_mask.nii.gz"))
        found.append(_voi(case_id, "lesion VOIs", hu, lesion, _middle(path), spacing_mm))
    if not found:
        raise InputError(f"{folder}: no *_ct.nii.gz", fix="name the folder of lesion VOIs")
    return found


def _middle(path: Path) -> tuple[int, int, int]:
    """Return where a file's middle voxel, n // 2 of each stored axis, comes to in oriented axes."""
    volume, _ = read_volume(path)
    deep, high, wide = volume.geometry.shape_ZYX
    marked = np.zeros((deep, high, wide), np.bool_)
    marked[deep // 2, high // 2, wide // 2] = True
    z, y, x = np.argwhere(orientation_of(volume.geometry.affine).apply(marked))[0]
    return int(z), int(y), int(x)


def _of_dataset(dataset: Path, case_id: str) -> Voi:
    hu, spacing_mm = oriented(dataset / "imagesTr" / f"{case_id}_0000.nii.gz")
    lesion, _ = oriented(dataset / "labelsTr" / f"{case_id}.nii.gz")
    return _voi(case_id, dataset.name, hu, lesion, click_in(lesion > 0), spacing_mm)


def _voi(
    case_id: str,
    group: str,
    hu_ZYX: Array,
    lesion_ZYX: Array,
    centre_ZYX: tuple[int, int, int],
    spacing_mm: Spacing,
) -> Voi:
    hu, lesion = cut_voi(hu_ZYX, lesion_ZYX, centre_ZYX)
    return Voi(case_id=case_id, group=group, hu_ZYX=hu, lesion_ZYX=lesion, spacing_mm=spacing_mm)
