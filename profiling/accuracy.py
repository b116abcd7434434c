"""How good a predictor is on cases it never saw.

    python profiling/accuracy.py abdomen_ct --split scans --dataset DATASET
    python profiling/accuracy.py abdomen_ct --split scans --dataset DATASET --profile exact
    python profiling/accuracy.py abdomen_ct --split altered --dataset DATASET
    python profiling/accuracy.py abdomen_ct --split phantoms
    python profiling/accuracy.py att_umamba_petct --split wholebody --material ORGAN_MAPS
    python profiling/accuracy.py mamba_ahnet_lesion --split lesions --dataset PETCT --material VOIS
    python profiling/accuracy.py mamba_ahnet_mr --split lesions --dataset SARCOMA_MR
    python profiling/accuracy.py abdomen_ct --split phantoms --quick --output FOLDER
    python profiling/accuracy.py --table

scans: the cases of DATASET (nnU-Net raw layout) that the predictor's recipe.toml holds out.
altered: the same cases, each with a large spleen or liver, lesions, less contrast medium, no
spleen, fluid, from fixed seeds. phantoms: generated CTs. wholebody: synthetic PET/CTs around organ
maps that training did not use. lesions: volumes of interest around real lesions, from MATERIAL
(X_ct.nii.gz, X_mask.nii.gz) and from the held-out cases of DATASET.

Cases run through the segmentation in the predictor's own convention, without a time budget; labels
that the recipe calls unlabelled are left out on scans. Results go to accuracy_PREDICTOR_SPLIT.json
beside this file (with _exact behind it for that profile), the worst case to pictures/; --table
writes all results into accuracy.md. --quick takes one case of a split.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accuracy_altered import altered_scans
from accuracy_bodies import whole_bodies
from accuracy_cases import Trial, held_out_petct, held_out_scans, unseen_phantoms
from accuracy_pictures import Files, draw_around_worst, draw_worst
from accuracy_scores import score, worst_case
from accuracy_table import MORE_SPLITS, SPLITS, result_path, write_table
from accuracy_vois import lesion_vois
from measured import parsed, parser_of, text_of

from flarekit.core.errors import FlarekitError, UsageError
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.records import RunRecord
from flarekit.core.spec import PredictorFolder
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import find_predictor
from flarekit.training.recipe import Recipe, read_recipe

PHANTOMS, BODIES = list(range(1, 9)), 8
EVERY_ORGAN = "abdomen_ct"  # its recipe names all organs that are changed, whoever is measured


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("predictor", nargs="?")
    parser.add_argument(
        "--split",
        choices=sorted(
            {each for table in (SPLITS, MORE_SPLITS) for row in table.values() for each in row}
        ),
    )
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--material", type=Path)
    parser.add_argument("--phantoms", type=int, nargs="+", default=PHANTOMS, help="seeds")
    parser.add_argument("--bodies", type=int, default=BODIES, help="how many")
    parser.add_argument("--predictor-folder", type=Path, help="where it lies, if not in weights/")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--profile", choices=["fast", "exact"], default="fast")
    parser.add_argument("--table", action="store_true", help="write accuracy.md and nothing else")
    told = parsed(parser, line)
    if told.quick:
        told.phantoms, told.bodies = told.phantoms[:1], 1
    return told


def make_trial(split: str, folder: Path, recipe: Recipe, arguments: argparse.Namespace) -> Trial:
    """Lay out the cases of a split.

    Raises:
        UsageError: the predictor has no such split, or data are not named.
        InputError: the data are not there.
    """
    facts, convention = recipe.training, recipe.spec.convention
    held_out = facts.held_out[:1] if arguments.quick else facts.held_out
    dataset, material = arguments.dataset, arguments.material
    if split not in (*SPLITS.get(convention, ()), *MORE_SPLITS.get(convention, ())):
        raise UsageError(
            f"{recipe.spec.name}: has no split {split!r}",
            fix=f"take {' or '.join(SPLITS.get(convention, ('a convention of accuracy_table',)))}",
        )
    if split == "lesions":
        return lesion_vois(folder, dataset=dataset, held_out=held_out, vois=material)
    if split == "phantoms":
        return unseen_phantoms(folder, arguments.phantoms, facts.phantom_seeds)
    if split == "wholebody":
        if material is None or facts.synthesis is None:
            raise UsageError("wholebody needs organ maps", fix="name their folder with --material")
        return whole_bodies(folder, material, facts.synthesis, arguments.bodies)
    if dataset is None:
        raise UsageError("scans needs the labelled cases", fix="name them with --dataset")
    if split == "altered":
        every_organ = read_recipe(find_predictor(EVERY_ORGAN).folder / "recipe.toml")
        return altered_scans(folder, dataset, held_out, every_organ)
    lay_out = held_out_petct if convention == "autopet" else held_out_scans
    return lay_out(folder, dataset, held_out)


def measure(arguments: argparse.Namespace) -> Path:
    """Run a split, write its result and its worst case, and return the result's file."""
    split: str = arguments.split
    predictor = find_predictor(str(arguments.predictor_folder or arguments.predictor))
    recipe = read_recipe(predictor.folder / "recipe.toml")
    if predictor.spec.name != arguments.predictor:
        raise UsageError(
            f"{predictor.folder}: holds {predictor.spec.name}", fix=f"not {arguments.predictor}"
        )
    options = Options(
        device=arguments.device,
        precision=arguments.precision,
        mode=arguments.profile,
        time_budget_s=0,
    )
    unlabelled = recipe.training.unlabelled if split in ("scans", "altered") else ()
    labels = {name: v for name, v in predictor.spec.labels.items() if name not in unlabelled}
    with tempfile.TemporaryDirectory() as scratch:
        trial = make_trial(split, Path(scratch), recipe, arguments)
        record = segment_folder(predictor, trial.inputs, trial.outputs, options)
        masks = trial.masks(record)
        result = score(trial, masks, predictor.spec.convention, labels)
        if split not in ("phantoms", "altered") and arguments.profile == "fast":
            worst = worst_case(result)
            picture = Path("pictures") / picture_name(predictor.spec.name, split)
            files = Files(masks=masks, truths=trial.truths, scans=trial.scans)
            draw = draw_around_worst if trial.organs else draw_worst
            draw(arguments.output / picture, worst, files, labels)
            result["worst"] = {"case": worst, "picture": picture.as_posix()}
    path = result_path(arguments.output, predictor.spec.name, split, arguments.profile)
    make_folder(path.parent)
    content = header(predictor, record, arguments) | result
    write_atomically(path, text_of(content, allow_nan=False).encode())
    return path


def picture_name(name: str, split: str) -> str:
    return f"{name}_wholebody_worst.webp" if split == "wholebody" else f"{name}_worst.webp"


def header(
    predictor: PredictorFolder, record: RunRecord, arguments: argparse.Namespace
) -> dict[str, Any]:
    return {
        "predictor": predictor.spec.name,
        "sha256": predictor.spec.weights.sha256,
        "split": arguments.split,
        "command": command_of(arguments),
        "profile": record.mode,
        "engine": record.engine,
        "device": record.device,
        "device_name": record.device_name,
        "precision": record.precision,
    }


def command_of(arguments: argparse.Namespace) -> str:
    """Return the command line, with names in place of this machine's folders."""
    line = f"python profiling/accuracy.py {arguments.predictor} --split {arguments.split}"
    line += " --dataset DATASET" if arguments.dataset is not None else ""
    line += " --material MATERIAL" if arguments.material is not None else ""
    if arguments.split == "phantoms" and arguments.phantoms != PHANTOMS:
        line += f" --phantoms {' '.join(map(str, arguments.phantoms))}"
    if arguments.split == "wholebody" and arguments.bodies != BODIES:
        line += f" --bodies {arguments.bodies}"
    line += f" --profile {arguments.profile}" if arguments.profile != "fast" else ""
    for name in ("device", "precision"):
        value = getattr(arguments, name)
        line += f" --{name} {value}" if value != "auto" else ""
    return line


def main(line: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(line)
    try:
        if arguments.table:
            print(write_table(arguments.output))
            return 0
        if arguments.predictor is None or arguments.split is None:
            raise UsageError("nothing to measure", fix="name a predictor and a --split; --help")
        path = measure(arguments)
    except FlarekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    result = json.loads(path.read_text())
    print(f"{path}: mean {result['mean']}")
    for name, value in result["labels"].items():
        print(f"  {name:24s} {value}")
    for name, value in result.get("false_positives_ml", {}).get("largest", {}).items():
        print(f"  largest false positive, {name:10s} {value} ml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
