"""How good a lesion predictor is on the validation cases of its recipe's datasets.

    python profiling/accuracy_validation.py mamba_ahnet_lesion --data FOLDER_OF_DATASETS
    python profiling/accuracy_validation.py mamba_ahnet_lesion --data FOLDER --recipe OTHER.toml
    python profiling/accuracy_validation.py mamba_ahnet_lesion --data FOLDER --split held_out

Lesions are laid out as ULS23 hands them out, 128 x 256 x 256 voxels around a click, which lies in
the middle of the lesion (--click middle) or anywhere in it (--click anywhere). They run through the
segmentation in the predictor's own convention. What is printed is the Dice of each dataset: mean,
median, 5th percentile, worst case. Choices are made on these cases; held-out ones are for the end.
--quick takes one case.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from accuracy_cases import oriented
from accuracy_vois import Voi, click_in, cut_voi, lay_out_vois
from measured import bare_parser, write
from numpy.typing import NDArray

from flarekit.core.errors import FlarekitError, InputError
from flarekit.core.spec import PredictorFolder
from flarekit.evaluation.masks import read_mask
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import find_predictor
from flarekit.training.cases import case_ids
from flarekit.training.recipe import Recipe, read_recipe
from flarekit.training.sources import labelled_folders

_AT_ONCE = 64  # volumes of interest per stack: 1 GiB


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = bare_parser(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--data", type=Path, required=True, help="holds the recipe's datasets")
    parser.add_argument("--recipe", type=Path, help="whose cases; the predictor's own by default")
    parser.add_argument("--split", choices=["validation", "held_out"], default="validation")
    parser.add_argument("--click", choices=["middle", "anywhere"], default="middle")
    parser.add_argument("--every", type=int, default=1, help="take one case of so many")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="a JSON file with the Dice of every case")
    parser.add_argument("--quick", action="store_true", help="one case")
    return parser.parse_args(line)


def cases_of(recipe: Recipe, data: Path, split: str, every: int) -> Iterator[tuple[Path, str]]:
    """Yield the dataset folder and the id of each case of a split."""
    facts = recipe.training
    names = facts.validation if split == "validation" else facts.held_out
    for folder, _ in labelled_folders(recipe, data):
        for case_id in case_ids(folder, only=names)[::every]:
            yield folder, case_id


def voi_of(dataset: Path, case_id: str, click: str) -> Voi:
    """Return a case as ULS23 lays it out."""
    hu, spacing_mm = oriented(dataset / "imagesTr" / f"{case_id}_0000.nii.gz")
    lesion, _ = oriented(dataset / "labelsTr" / f"{case_id}.nii.gz")
    centre = click_in(lesion > 0) if click == "middle" else _anywhere(lesion > 0)
    hu, lesion = cut_voi(hu, lesion, centre)
    name = f"{dataset.name}-{case_id}"
    return Voi(
        case_id=name, group=dataset.name, hu_ZYX=hu, lesion_ZYX=lesion, spacing_mm=spacing_mm
    )


def _anywhere(lesion_ZYX: NDArray[np.bool_]) -> Sequence[int]:
    voxels = np.argwhere(lesion_ZYX)
    return [int(n) for n in voxels[np.random.default_rng(len(voxels)).integers(len(voxels))]]


def dice_by_case(
    predictor: PredictorFolder, cases: Sequence[tuple[Path, str]], click: str, device: str
) -> dict[str, dict[str, float]]:
    """Return dataset -> case -> Dice."""
    found: dict[str, dict[str, float]] = {}
    options = Options(device=device, time_budget_s=0)
    for first in range(0, len(cases), _AT_ONCE):
        with tempfile.TemporaryDirectory() as scratch:
            vois = [voi_of(*case, click) for case in cases[first : first + _AT_ONCE]]
            trial = lay_out_vois(Path(scratch), vois)
            masks = trial.masks(segment_folder(predictor, trial.inputs, trial.outputs, options))
            for voi in vois:
                mask = read_mask(masks / f"{voi.case_id}.mha").values_ZYX > 0
                truth = voi.lesion_ZYX > 0
                dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
                found.setdefault(voi.group, {})[voi.case_id] = round(float(dice), 4)
    return found


def main(line: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(line)
    try:
        predictor = find_predictor(arguments.predictor)
        recipe = read_recipe(arguments.recipe or predictor.folder / "recipe.toml")
        cases = list(cases_of(recipe, arguments.data, arguments.split, arguments.every))
        cases = cases[:1] if arguments.quick else cases
        if not cases:
            raise InputError(f"{arguments.data}: no {arguments.split} case", fix="see the recipe")
        found = dice_by_case(predictor, cases, arguments.click, arguments.device)
    except FlarekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for name, dice in found.items():
        values = np.array(list(dice.values()))
        worst = min(dice, key=dice.__getitem__)
        print(
            f"{name}: {len(values)} cases, mean {values.mean():.3f}, median "
            f"{np.median(values):.3f}, 5th percentile {np.percentile(values, 5):.3f}, "
            f"worst {dice[worst]:.3f} ({worst})"
        )
    if arguments.output is not None:
        write(arguments.output, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
