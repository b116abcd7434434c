"""Synthetic whole-body PET/CTs that a predictor never saw, and what it takes for lesions in them.

The bodies stand around organ label maps of patients that the recipe's synthesis never used, with
seeds beyond the recipe's. They show whether brain, heart and bladder are left alone; how well real
lesions are found they do not show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from accuracy_cases import Array, Spacing, Trial, oriented, write_mha
from numpy.typing import NDArray

from flarekit.core.errors import InputError
from flarekit.synthesis import ORGANS, wholebody_petct
from flarekit.training.sources import material_files
from flarekit.training.tables import SynthesisFacts

LOOKED_AT = ("brain", "heart", "bladder")
_NEAR_MM = 7.0  # uptake spills this far over an organ's border
_LEAST_ML = 20.0


def unseen_maps(material: Path, facts: SynthesisFacts) -> list[Path]:
    """Return the maps of patients that training did not use.

    Training takes the files that it does not hold out in the order of their names, one per seed;
    where it holds out some, weights that it began with may have used any of the others. A patient
    is what stands before the second underscore of a name.

    Raises:
        InputError: no map is left.
    """
    trained = material_files(material, facts.held_out)
    used = [trained[seed % len(trained)] for seed in range(*facts.seeds) if trained]
    seen = {_patient(path) for path in (trained if facts.held_out else used)}
    unseen = [path for path in material_files(material, ()) if _patient(path) not in seen]
    if not unseen:
        raise InputError(
            f"{material}: no organ map that training did not use", fix="add maps of other patients"
        )
    return unseen


def whole_bodies(
    folder: Path, material: Path, facts: SynthesisFacts, count: int, every: int = 1
) -> Trial:
    """Lay out bodies as autoPET does, on their maps' own grids.

    Of the unseen maps with a heart and a bladder those are taken that show most of the brain, since
    many end below it.

    Args:
        folder: an empty one.
        material: organ label maps.
        facts: of the recipe, that tell which maps training did not use.
        count: of the bodies.
        every: the maps are thinned to one voxel of so many along each axis.
    """
    found = []
    for path in unseen_maps(material, facts):
        ml = volumes_ml(*_thinned(path, every))
        if min(ml["heart"], ml["bladder"]) >= _LEAST_ML:
            found.append((ml["brain"], path))
    most_brain = sorted(found, key=lambda entry: (-entry[0], entry[1].name))[:count]
    organs_by_case: dict[str, Array] = {}
    trial = Trial(folder=folder, organs=organs_by_case)
    for number, (_, path) in enumerate(most_brain):
        organs, spacing_mm = _thinned(path, every)
        seed = facts.seeds[1] + number
        body = wholebody_petct(organs, spacing_mm, seed)
        case_id = f"body_{seed}_{_patient(path)}"
        images = trial.inputs / "images"
        write_mha(images / "ct" / f"{case_id}.mha", np.rint(body.hu_ZYX).astype("i2"), spacing_mm)
        write_mha(images / "pet" / f"{case_id}.mha", body.suv_ZYX, spacing_mm)
        write_mha(trial.truths / f"{case_id}.mha", body.lesions_ZYX, spacing_mm)
        pet = images / "pet" / f"{case_id}.mha"
        (trial.scans / f"{case_id}_0000.mha").symlink_to(pet.resolve())
        organs_by_case[case_id] = organs
    return trial


def _thinned(path: Path, every: int) -> tuple[Array, Spacing]:
    """Return a map and its spacing with one voxel of so many along each axis."""
    organs, (z, y, x) = oriented(path)
    thinned = np.ascontiguousarray(organs[::every, ::every, ::every].astype(np.uint8))
    return thinned, (every * z, every * y, every * x)


def volumes_ml(organs_ZYX: Array, spacing_mm: Spacing) -> dict[str, float]:
    """Return the volume of each organ that is looked at."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return {
        name: int(np.count_nonzero(organs_ZYX == ORGANS[name])) * voxel_ml for name in LOOKED_AT
    }


def largest_false_ml(
    predicted_ZYX: NDArray[np.bool_],
    truth_ZYX: NDArray[np.bool_],
    organs_ZYX: Array,
    spacing_mm: Spacing,
) -> dict[str, float]:
    """Return the largest false positive in each organ.

    It is the largest component (18 neighbours) of the voxels that are predicted, not true, and in
    the organ or within 7 mm of it, whether or not a true lesion is attached.

    Args:
        predicted_ZYX: bool.
        truth_ZYX: bool, of the same shape.
        organs_ZYX: values of `ORGANS`.
        spacing_mm: of the voxels.
    """
    import cc3d
    from scipy.ndimage import distance_transform_edt

    voxel_ml = float(np.prod(spacing_mm)) / 1000
    false = predicted_ZYX & ~truth_ZYX
    largest = {}
    for name in LOOKED_AT:
        organ = organs_ZYX == ORGANS[name]
        box = _box(organ, spacing_mm)
        near = distance_transform_edt(~organ[box], sampling=spacing_mm) <= _NEAR_MM
        parts = cc3d.connected_components(false[box] & near & organ.any(), connectivity=18)
        sizes = np.bincount(parts.ravel())[1:]
        largest[name] = float(sizes.max() * voxel_ml) if len(sizes) else 0.0
    return largest


def worst_of(largest_by_case: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the largest false positive in each organ over all cases."""
    return {name: max(case[name] for case in largest_by_case.values()) for name in LOOKED_AT}


def _box(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """Return the box around a mask and what is near it; everything where it is empty."""
    where = np.argwhere(mask)
    if not len(where):
        return tuple(slice(None) for _ in range(mask.ndim))
    margin = [int(_NEAR_MM / mm) + 1 for mm in spacing_mm]
    low, high = where.min(axis=0) - margin, where.max(axis=0) + margin + 1
    return tuple(slice(max(0, int(a)), int(b)) for a, b in zip(low, high, strict=True))


def _patient(path: Path) -> str:
    return "_".join(path.name.split("_")[:2])
