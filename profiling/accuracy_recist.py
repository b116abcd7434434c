"""How well lesions are segmented from a line across each, and what it costs.

    python profiling/accuracy_recist.py mamba_ahnet_lesion --data FOLDER --vois FOLDER/lesion_vois

Labelled lesions become files of FLARE25's task 1: the CT windowed to 0..255 (--window), and across
each lesion a line along its longest diameter in an axial slice, of the validation cases of the
predictor's recipe (--split held_out for the others), and of the lesion volumes in --vois. They run
through the segmentation in the convention flare_recist with the line as a prior, and without it (no
bound to the network's mask). What is printed is the Dice of each source. --quick takes one case.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_cases import oriented
from measured import bare_parser, write
from numpy.typing import NDArray

from flarekit.core.errors import FlarekitError, InputError
from flarekit.core.spec import PredictorFolder
from flarekit.evaluation.diameters import longest_line
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import find_predictor
from flarekit.training.cases import case_ids
from flarekit.training.recipe import read_recipe
from flarekit.training.sources import labelled_folders


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = bare_parser(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--data", type=Path, required=True, help="holds the recipe's datasets")
    parser.add_argument("--vois", type=Path, help="X_ct.nii.gz and X_mask.nii.gz")
    parser.add_argument("--split", choices=["validation", "held_out"], default="validation")
    parser.add_argument("--window", type=float, nargs=2, default=(-160.0, 240.0))
    parser.add_argument("--every", type=int, default=1, help="take one case of so many")
    parser.add_argument("--set", nargs="*", default=(), help="further settings: context=2")
    parser.add_argument("--output", type=Path, help="a JSON file with the Dice of every case")
    parser.add_argument("--quick", action="store_true", help="one case")
    return parser.parse_args(line)


def lesions(arguments: argparse.Namespace) -> Iterator[tuple[str, str, Path, Path]]:
    """Yield source, case, CT and mask of each lesion."""
    recipe = read_recipe(find_predictor(arguments.predictor).folder / "recipe.toml")
    facts = recipe.training
    names = facts.validation if arguments.split == "validation" else facts.held_out
    for folder, _ in labelled_folders(recipe, arguments.data):
        for case_id in case_ids(folder, only=names)[:: arguments.every]:
            scan = folder / "imagesTr" / f"{case_id}_0000.nii.gz"
            yield folder.name, case_id, scan, folder / "labelsTr" / f"{case_id}.nii.gz"
    for scan in sorted(arguments.vois.glob("*_ct.nii.gz")) if arguments.vois else ():
        case_id = scan.name.removesuffix("_ct.nii.gz")
        yield "lesion_vois", case_id, scan, scan.with_name(f"{case_id}_mask.nii.gz")


def drawn(lesion_ZYX: NDArray[np.bool_], value: int = 1) -> NDArray[np.uint8]:
    """Draw a line along the longest diameter of a lesion."""
    z, one, other = longest_line(lesion_ZYX)
    steps = int(np.abs(other - one).max()) + 1
    rows, columns = np.rint(np.linspace(one, other, steps)).astype(int).T
    recist = np.zeros(lesion_ZYX.shape, np.uint8)
    recist[z, rows, columns] = value
    return recist


def write_case(
    path: Path, scan: Path, mask: Path, window: tuple[float, float]
) -> NDArray[np.bool_]:
    """Write a lesion as the organiser's file, and return its mask."""
    hu, spacing_mm = oriented(scan)
    lesion, _ = oriented(mask)
    low, high = window
    images = np.rint((np.clip(hu, low, high) - low) / (high - low) * 255).astype(np.uint8)
    np.savez_compressed(
        path, imgs=images, recist=drawn(lesion > 0), spacing=np.array(spacing_mm[::-1])
    )
    return lesion > 0


def dice_with(
    predictor: PredictorFolder,
    settings: dict[str, Any],
    inputs: Path,
    outputs: Path,
    truths: dict[str, NDArray[np.bool_]],
) -> tuple[dict[str, float], float, list[float]]:
    """Return the Dice of each file, seconds of the run, and mask's diameter / line's length."""
    spec = predictor.spec.model_copy(
        update={"convention": "flare_recist", "convention_settings": settings}
    )
    began = time.perf_counter()
    record = segment_folder(replace(predictor, spec=spec), inputs, outputs, Options(device="cpu"))
    seconds = time.perf_counter() - began
    found = {}
    for name, truth in truths.items():
        with np.load(outputs / f"{name}.npz", allow_pickle=False) as written:
            mask = written["segs"] == 1
        total = int(mask.sum() + truth.sum())
        found[name] = round(2 * int((mask & truth).sum()) / total, 4)
    ratios = [
        case.measured["diameter_mm"] / case.measured["line_mm"]
        for case in record.cases
        if case.measured.get("line_mm")
    ]
    return found, seconds, ratios


def main(line: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(line)
    try:
        predictor = find_predictor(arguments.predictor)
        cases = list(lesions(arguments))[: 1 if arguments.quick else None]
        if not cases:
            raise InputError(f"{arguments.data}: no {arguments.split} case", fix="see the recipe")
        given = {
            name: json.loads(value)
            for name, _, value in (entry.partition("=") for entry in arguments.set)
        }
        results: dict[str, dict[str, dict[str, float]]] = {}
        with tempfile.TemporaryDirectory() as scratch:
            inputs = Path(scratch, "inputs")
            inputs.mkdir()
            truths, sources = {}, {}
            for source, case_id, scan, mask in cases:
                name = f"{source}-{case_id}"
                truths[name] = write_case(
                    inputs / f"{name}.npz", scan, mask, tuple(arguments.window)
                )
                sources[name] = source
            for words, settings in (("with the line", {}), ("without", {"reach": 0.0})):
                outputs = Path(scratch, words)
                dice, seconds, ratios = dice_with(
                    predictor, given | settings, inputs, outputs, truths
                )
                print(
                    f"{words}: {seconds / len(dice):.2f} s a file, diameter of the mask / length "
                    f"of the line: median {np.median(ratios):.2f}"
                )
                for source in dict.fromkeys(sources.values()):
                    own = {name: d for name, d in dice.items() if sources[name] == source}
                    values = np.array(list(own.values()))
                    print(
                        f"  {source}: {len(values)} lesions, Dice mean {values.mean():.3f}, "
                        f"median {np.median(values):.3f}, 5th percentile "
                        f"{np.percentile(values, 5):.3f}, worst {values.min():.3f}"
                    )
                    results.setdefault(words, {})[source] = own
    except FlarekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.output is not None:
        write(arguments.output, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
