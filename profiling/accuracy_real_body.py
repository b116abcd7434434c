"""What a PET/CT predictor marks in a real whole-body PET that is not a lesion.

    python profiling/accuracy_real_body.py att_umamba_petct --pets FOLDER --case STS_001
    python profiling/accuracy_real_body.py att_umamba_petct --pets FOLDER --case STS_001 --hu 20

FOLDER holds `X_suv.nii.gz`, `X_label.nii.gz` where there are lesions, and `X_ct.nii.gz` where there
is a CT; in place of a missing one, or where --hu is given, the CT is that value inside the outline
of the PET. Cases go through the segmentation in autoPET's layout. Printed are the Dice, and every
false component (18 neighbours, touching no lesion) of 1 ml or more: its volume, how far below the
top of the scan its middle lies, and its highest uptake. Say for every figure whether the predictor
was trained on the case. --quick takes every fourth voxel.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cc3d
import numpy as np
from accuracy_cases import Array, Spacing, Trial, oriented, write_mha
from measured import bare_parser

from flarekit.core.errors import FlarekitError
from flarekit.evaluation.masks import read_mask
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import find_predictor
from flarekit.training.other_ct import outline

_AIR_HU, _OUTLINE_SUV, _LEAST_ML = -1000, 0.15, 1.0


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = bare_parser(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--pets", type=Path, required=True)
    parser.add_argument("--case", required=True)
    parser.add_argument("--hu", type=float, help="of a flat CT; 20 where there is no other")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="every fourth voxel of the scan")
    return parser.parse_args(line)


def ct_of(pets: Path, case: str, suv: Array, spacing_mm: Spacing, hu: float | None) -> Array:
    """Return the CT that the predictor gets."""
    own = pets / f"{case}_ct.nii.gz"
    if hu is None and own.is_file():
        return np.asarray(oriented(own)[0]).astype(np.int16)
    inside = outline(suv, spacing_mm, _OUTLINE_SUV)
    return np.where(inside, 20 if hu is None else hu, _AIR_HU).astype(np.int16)


def describe(mask: Array, truth: Array, suv: Array, spacing_mm: Spacing) -> list[str]:
    """Return one line per false component, and their sum."""
    ml = float(np.prod(spacing_mm)) / 1000
    parts = cc3d.connected_components(mask, connectivity=18)
    touching = np.unique(parts[truth])
    false = [k for k in range(1, int(parts.max()) + 1) if k not in touching]
    lines, total = [], 0.0
    for part in false:
        where = np.argwhere(parts == part)
        volume = len(where) * ml
        total += volume
        if volume >= _LEAST_ML:
            below_mm = (len(suv) - where[:, 0].mean()) * spacing_mm[0]
            peak = suv[parts == part].max()
            lines.append(f"{volume:8.1f} ml, {below_mm:5.0f} mm below the top, SUV to {peak:.1f}")
    lines.sort(key=lambda line: -float(line.split()[0]))
    return [f"false positives: {total:.1f} ml in {len(false)} components", *lines]


def measure(arguments: argparse.Namespace) -> list[str]:
    """Run the case and return what there is to say."""
    pets, case = arguments.pets, arguments.case
    predictor = find_predictor(arguments.predictor)
    suv, spacing_mm = oriented(pets / f"{case}_suv.nii.gz")
    label = pets / f"{case}_label.nii.gz"
    truth = np.asarray(oriented(label)[0]) > 0 if label.is_file() else np.zeros(suv.shape, bool)
    hu = ct_of(pets, case, suv, spacing_mm, arguments.hu)
    if arguments.quick:
        suv, truth, hu = (each[::4, ::4, ::4] for each in (suv, truth, hu))
        spacing_mm = (4 * spacing_mm[0], 4 * spacing_mm[1], 4 * spacing_mm[2])
    with tempfile.TemporaryDirectory() as scratch:
        trial = Trial(folder=Path(scratch))
        for modality, voxels in (("ct", hu), ("pet", suv.astype(np.float32))):
            write_mha(trial.inputs / "images" / modality / f"{case}.mha", voxels, spacing_mm)
        options = Options(device=arguments.device, time_budget_s=0)
        masks = trial.masks(segment_folder(predictor, trial.inputs, trial.outputs, options))
        (path,) = masks.glob(f"{case}.*")
        mask = read_mask(path).values_ZYX > 0
    dice = 2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum())
    return [f"{case}: Dice {dice:.3f}", *describe(mask, truth, suv, spacing_mm)]


def main(line: Sequence[str] | None = None) -> int:
    try:
        print("\n".join(measure(parse_arguments(line))))
    except FlarekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
