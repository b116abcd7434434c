"""What a PET/CT predictor marks in real whole-body PETs that is not a lesion.

    python profiling/accuracy_real_body.py att_umamba_petct --pets FOLDER --case STS_001
    python profiling/accuracy_real_body.py att_umamba_petct --pets FOLDER --case A B --output FILE

FOLDER holds `X_suv.nii.gz`, `X_label.nii.gz` where there are lesions, and `X_ct.nii.gz` where there
is a CT. Every case is run with its own CT, where it has one, and with a flat one: --hu inside the
outline of the PET. Cases go through the segmentation in autoPET's layout. Printed are the Dice, and
every false component (18 neighbours, touching no lesion) of 1 ml or more: its volume, how far below
the top of the scan its middle lies, and its highest uptake; --output keeps them as JSON. Say for
every figure whether the predictor was trained on the case. --quick takes every fourth voxel.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cc3d
import numpy as np
from accuracy_cases import Array, Spacing, Trial, oriented, write_mha
from measured import bare_parser, write

from flarekit.core.errors import FlarekitError
from flarekit.evaluation.masks import read_mask
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import find_predictor
from flarekit.training.other_ct import outline

FLAT_HU = 20.0
_AIR_HU, _OUTLINE_SUV, _LEAST_ML = -1000, 0.15, 1.0


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = bare_parser(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--pets", type=Path, required=True)
    parser.add_argument("--case", required=True, nargs="+")
    parser.add_argument("--hu", type=float, default=FLAT_HU, help="of the flat CT")
    parser.add_argument("--output", type=Path, help="a JSON file with what is printed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="every fourth voxel of the scan")
    return parser.parse_args(line)


def ct_of(pets: Path, case: str, suv: Array, spacing_mm: Spacing, hu: float | None) -> Array:
    """Return the CT that the predictor gets: its own, or a flat one of `hu` inside the outline."""
    if hu is None:
        return np.asarray(oriented(pets / f"{case}_ct.nii.gz")[0]).astype(np.int16)
    inside = outline(suv, spacing_mm, _OUTLINE_SUV)
    return np.where(inside, hu, _AIR_HU).astype(np.int16)


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


def bodies(pets: Path, cases: Sequence[str], hu: float) -> Iterator[tuple[str, float | None]]:
    """Yield what is run: a case, and None for its own CT or the HU of a flat one."""
    for case in cases:
        if (pets / f"{case}_ct.nii.gz").is_file():
            yield case, None
        yield case, hu


class Body(NamedTuple):
    """A real whole body, as a predictor gets it."""

    ct: Array
    suv: Array
    truth: Array
    spacing_mm: Spacing


def body_of(pets: Path, case: str, hu: float | None, *, quick: bool = False) -> Body:
    """Read a case; its CT is its own, or a flat one of `hu`. A quick one has every fourth voxel."""
    suv, spacing_mm = oriented(pets / f"{case}_suv.nii.gz")
    label = pets / f"{case}_label.nii.gz"
    truth = np.asarray(oriented(label)[0]) > 0 if label.is_file() else np.zeros(suv.shape, bool)
    ct = ct_of(pets, case, suv, spacing_mm, hu)
    if quick:
        suv, truth, ct = (each[::4, ::4, ::4] for each in (suv, truth, ct))
        spacing_mm = (4 * spacing_mm[0], 4 * spacing_mm[1], 4 * spacing_mm[2])
    return Body(ct=ct, suv=suv, truth=truth, spacing_mm=spacing_mm)


def write_body(trial: Trial, case: str, body: Body) -> None:
    """Write what the predictor gets of a body as autoPET does."""
    for modality, voxels in (("ct", body.ct), ("pet", body.suv.astype(np.float32))):
        write_mha(trial.inputs / "images" / modality / f"{case}.mha", voxels, body.spacing_mm)


def lay_out_body(
    folder: Path, pets: Path, case: str, hu: float | None, *, quick: bool = False
) -> Trial:
    """Lay out a body and its lesions as `CASE_own_ct` or `CASE_flat_ct`, beside those there are."""
    trial = Trial(folder=folder)
    name = f"{case}_{'own' if hu is None else 'flat'}_ct"
    body = body_of(pets, case, hu, quick=quick)
    write_body(trial, name, body)
    write_mha(trial.truths / f"{name}.mha", body.truth.astype(np.uint8), body.spacing_mm)
    return trial


def measure(arguments: argparse.Namespace, case: str, hu: float | None) -> dict[str, Any]:
    """Run a case and return what there is to say."""
    predictor = find_predictor(arguments.predictor)
    body = body_of(arguments.pets, case, hu, quick=arguments.quick)
    with tempfile.TemporaryDirectory() as scratch:
        trial = Trial(folder=Path(scratch))
        write_body(trial, case, body)
        options = Options(device=arguments.device, time_budget_s=0)
        masks = trial.masks(segment_folder(predictor, trial.inputs, trial.outputs, options))
        (path,) = masks.glob(f"{case}.*")
        mask = read_mask(path).values_ZYX > 0
    truth = body.truth
    dice = 2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum())
    return {
        "case": case,
        "ct": "its own" if hu is None else f"flat, {hu:g} HU",
        "dice": round(float(dice), 4) if truth.any() else None,
        "false_positives": describe(mask, truth, body.suv, body.spacing_mm),
    }


def main(line: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(line)
    found = []
    try:
        for case, hu in bodies(arguments.pets, arguments.case, arguments.hu):
            found.append(measure(arguments, case, hu))
            body = found[-1]
            dice = "no outlined lesion" if body["dice"] is None else f"Dice {body['dice']:.3f}"
            print(f"{case}, CT {body['ct']}: {dice}", *body["false_positives"], sep="\n")
        if arguments.output is not None:
            sha256 = find_predictor(arguments.predictor).spec.weights.sha256
            write(arguments.output, {"sha256": sha256, "bodies": found})
    except FlarekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
