"""What a locator saves, and what it does to masks of lesions: every case with it and without.

    python profiling/bench_locator.py att_umamba_petct --split scans --dataset DATASET
    python profiling/bench_locator.py att_umamba_petct --split validation --dataset DATASET
    python profiling/bench_locator.py att_umamba_petct --split wholebody --material ORGAN_MAPS
    python profiling/bench_locator.py att_umamba_petct --split pets --pets FOLDER --case A B
    python profiling/bench_locator.py PREDICTOR --split scans --dataset DATASET --quick --output DIR

scans: the crops of DATASET that the predictor's recipe holds out, validation: those that it sets
aside. wholebody: the synthetic bodies of accuracy.py (--every 2: on a grid twice as coarse). pets:
the real bodies of accuracy_real_body.py, with their own CT and with a flat one; say whether the
predictor was trained on them.

Every case is segmented four times in one process: `without` looks everywhere; `with` runs the tiles
that may hold a label, also of a predictor whose facts say `everywhere`; `half` runs the best half
of those, and `alone` none, as within a time budget, so that the rest of the mask is the locator's
(--ways takes some of the four). Of each there are autoPET V's figures (Dice, volumes of false
positives and of what is missed, lesions found and missed), the tiles, and the seconds of processor
time from the files to the mask; the first case is run once before, so that everything is warm. The
result goes to locator_PREDICTOR_SPLIT.json beside this file. --quick takes one case.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_bodies import whole_bodies
from accuracy_cases import Trial, held_out_petct
from accuracy_real_body import FLAT_HU, bodies, lay_out_body
from measured import machine, parsed, parser_of, write
from numpy.typing import NDArray

import flarekit
from flarekit import conventions
from flarekit.core.errors import FlarekitError, UsageError
from flarekit.core.spec import PredictorFolder, PredictorSpec
from flarekit.evaluation.masks import read_mask
from flarekit.evaluation.scheme import Settings
from flarekit.segmentation.case import PlacedCase, compute_case, place_case
from flarekit.segmentation.context import CaseExtras, Clock
from flarekit.segmentation.loaded import LoadedCase, load_case
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.scans import scan_input
from flarekit.segmentation.segmented import Segmented
from flarekit.segmentation.segmenter import Segmenter
from flarekit.training.recipe import read_recipe

BODIES = 8
_FOREVER_S = 1e6
_EDITION = "5"
_SUMMED = ("fpv_ml", "fnv_ml", "found", "missed", "spurious", "tiles", "cpu_s")
Choice = Callable[[PlacedCase], PlacedCase]


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument(
        "--split", choices=["scans", "validation", "wholebody", "pets"], required=True
    )
    parser.add_argument("--dataset", type=Path, help="PET/CTs with lesions, nnU-Net raw layout")
    parser.add_argument("--material", type=Path, help="organ maps")
    parser.add_argument("--bodies", type=int, default=BODIES, help="how many synthetic ones")
    parser.add_argument("--every", type=int, default=1, help="thin their voxels along each axis")
    parser.add_argument("--pets", type=Path, help="real bodies, see accuracy_real_body.py")
    parser.add_argument("--case", nargs="+", default=(), help="of the real bodies")
    parser.add_argument("--hu", type=float, default=FLAT_HU, help="of a flat CT")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--precision", default="auto")
    return parsed(parser, line)


def lay_out(folder: Path, predictor: PredictorFolder, arguments: argparse.Namespace) -> Trial:
    """Lay out the cases of a split as autoPET does.

    Raises:
        UsageError: data are not named.
        InputError: the data are not there.
    """
    facts = read_recipe(predictor.folder / "recipe.toml").training
    if arguments.split == "pets":
        if arguments.pets is None or not arguments.case:
            raise UsageError("pets needs real bodies", fix="name --pets and --case")
        return _real_bodies(folder, arguments)
    if arguments.split == "wholebody":
        if arguments.material is None or facts.synthesis is None:
            raise UsageError("wholebody needs organ maps", fix="name their folder with --material")
        count = 1 if arguments.quick else arguments.bodies
        return whole_bodies(folder, arguments.material, facts.synthesis, count, arguments.every)
    if arguments.dataset is None:
        raise UsageError(f"{arguments.split} needs labelled cases", fix="name --dataset")
    names = facts.held_out if arguments.split == "scans" else facts.validation
    return held_out_petct(folder, arguments.dataset, names[:1] if arguments.quick else names)


def _real_bodies(folder: Path, arguments: argparse.Namespace) -> Trial:
    cases = list(bodies(arguments.pets, arguments.case, arguments.hu))
    for case, hu in cases[:1] if arguments.quick else cases:
        lay_out_body(folder, arguments.pets, case, hu, quick=arguments.quick)
    return Trial(folder=folder)


def asking(predictor: PredictorFolder) -> PredictorFolder:
    """Return a predictor whose locator decides which tiles are run, whatever its facts say.

    Raises:
        UsageError: it has none.
    """
    spec = predictor.spec
    if spec.locator is None:
        raise UsageError(f"{spec.name} has no locator", fix="see flarekit train locator")
    facts = spec.locator.model_copy(update={"everywhere": False})
    return replace(predictor, spec=spec.model_copy(update={"locator": facts}))


def best(share: float) -> Choice:
    """Return what keeps that share of the tiles of a case, the best of them, rounded up."""

    def choose(placed: PlacedCase) -> PlacedCase:
        tiles = placed.plan.tiles or ()
        kept = tiles[: int(np.ceil(share * len(tiles)))]
        return replace(placed, plan=replace(placed.plan, tiles=kept))

    return choose


WAYS: dict[str, Choice | None] = {
    "without": None,
    "with": None,
    "half": best(0.5),
    "alone": best(0.0),
}


def segmented(
    everywhere: Segmenter, located: Segmenter, files: Sequence[Path], names: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.uint8], dict[str, float]]]:
    """Yield a case's label map, its tiles and its processor time for each way; it is read once."""
    source = scan_input(list(files), everywhere.spec)
    began = time.process_time()
    loaded = load_case(source.read, everywhere.spec)
    read_s = time.process_time() - began
    for name in names:
        segmenter, choose = everywhere if name == "without" else located, WAYS[name]
        deadline = None if choose is None else time.monotonic() + _FOREVER_S
        began = time.process_time()
        done = _segment(replace(loaded, clock=Clock()), segmenter, deadline, choose)
        cpu_s = read_s + time.process_time() - began
        yield name, done.label_map_ZYX, {"tiles": done.tiles.done, "cpu_s": round(cpu_s, 2)}


def _segment(
    loaded: LoadedCase, segmenter: Segmenter, deadline: float | None, choose: Choice | None
) -> Segmented:
    context, wanted = segmenter.context(), CaseExtras()
    placed = place_case(loaded, context, wanted, deadline)
    if choose is not None:
        placed = choose(placed)
    return compute_case(placed, context, wanted, deadline)


def scored(
    spec: PredictorSpec, label_map_ZYX: NDArray[np.uint8], truth_file: Path
) -> dict[str, float | None]:
    """Return autoPET's figures of a label map; None for what an empty truth does not define."""
    truth = read_mask(truth_file)
    scheme = conventions.scheme_of(spec.convention).load()
    settings = Settings(edition=_EDITION, labels=dict(spec.labels))
    predicted = replace(truth, values_ZYX=label_map_ZYX)
    (row,) = scheme.score(truth_file.stem, truth, predicted, settings)
    (figures,) = row.scores.values()
    return {name: None if np.isnan(value) else round(value, 4) for name, value in figures.items()}


def summary(cases: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> dict[str, Any]:
    """Return, of every way, the mean Dice and the sums of what can be added up."""
    result = {}
    for way in next(iter(cases.values())):
        rows = [case[way] for case in cases.values()]
        dice = [row["dice"] for row in rows if row["dice"] is not None]
        result[way] = {"dice": round(float(np.mean(dice)), 4) if dice else None} | {
            name: round(sum(row[name] or 0.0 for row in rows), 2) for name in _SUMMED
        }
    return result


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Segment every case in every way.

    Raises:
        UsageError: the predictor has no locator, or finds no lesions as autoPET wants them.
    """
    predictor = asking(find_predictor(arguments.predictor))
    spec = predictor.spec
    assert spec.locator is not None
    if spec.convention != "autopet":
        raise UsageError(
            f"{spec.name}: finds no lesions as autoPET lays them out", fix="take one that does"
        )
    how = {"device": "cpu", "precision": arguments.precision, "time_budget_s": None}
    cases: dict[str, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        flarekit.load(predictor, locator=False, **how) as everywhere,
        flarekit.load(predictor, **how) as located,
    ):
        precision = everywhere.facts.precision
        trial = lay_out(Path(name), predictor, arguments)
        for truth in sorted(trial.truths.iterdir()):
            case_id = truth.name.split(".")[0]
            files = [trial.inputs / "images" / each / f"{case_id}.mha" for each in ("ct", "pet")]
            if not cases:
                list(segmented(everywhere, located, files, arguments.ways))  # all is warm
            cases[case_id] = {
                way: scored(spec, found, truth) | took
                for way, found, took in segmented(everywhere, located, files, arguments.ways)
            }
            print(case_id, cases[case_id], flush=True)
    facts = {
        "predictor": spec.name,
        "sha256": spec.weights.sha256,
        "locator": spec.locator.model_dump(exclude={"folder", "labels", "everywhere"}),
        "split": arguments.split,
        "every": arguments.every,
        "precision": precision,
    }
    return machine() | facts | {"summary": summary(cases), "cases": cases}


def main(line: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(line)
    try:
        result = measure(arguments)
    except FlarekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    write(arguments.output / f"locator_{result['predictor']}_{arguments.split}.json", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
