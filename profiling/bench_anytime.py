"""What a mask is worth, and when it is there, for every budget between the least and the most.

    python profiling/bench_anytime.py abdomen_ct --dataset DATASET [--loaded] [--rounds 3]
    python profiling/bench_anytime.py abdomen_ct --dataset DATASET --precision fp32
    python profiling/bench_anytime.py att_umamba_petct --pets FOLDER --bodies STS_001
    python profiling/bench_anytime.py PREDICTOR --phantoms 1 2 --quick

R is the time of a run without a budget, F that of the shortest run there is (a budget of nothing):
with a locator it writes the locator's map. Between them, `flarekit predict` runs with budgets of
F + s (R - F) for s = 1, 1/2, 1/4, 1/8 and 0. Measured from outside is the time from the start of
the process to its end; the mask is scored against the truth. `without_locator` is the run that
looks everywhere, as there was before there were locators. One process per run and scan, on the CPU,
compiled before; the first run, which nothing is known for, is not counted. `kept` counts the runs
that ended by their budget and 0.2 s. --loaded does it while two other processes keep two cores
busy. On a machine that others use, look at `load_before` and at `cpu_s` beside `taken_s`.

Scans are the cases that the predictor's recipe holds out of DATASET, phantoms, or real whole bodies
of accuracy_real_body.py, with their own CT and with a flat one (with --quick every fourth voxel).
Results go to anytime_PREDICTOR.json (with _PRECISION, where that is named, and _loaded): of every
scan and budget the mean Dice, how much later than the budget the process ended, tiles, what was
given up, organs of over 50 ml that were lost, and the curve.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_cases import Trial, held_out_petct, held_out_scans, unseen_phantoms
from accuracy_real_body import FLAT_HU, bodies, lay_out_body
from measured import machine, parser_of, run, write

from flarekit.core.errors import UsageError
from flarekit.core.spec import PredictorFolder
from flarekit.evaluation.masks import read_mask
from flarekit.segmentation.compiling import compile_predictor
from flarekit.segmentation.predictors import find_predictor
from flarekit.training.recipe import read_recipe

SHARES = (1.0, 0.5, 0.25, 0.125, 0.0)
QUICK = (1.0, 0.0)
_NOTHING_S = 0.001  # a budget in which nothing can be done but what is always done
_LARGE_ML = 50.0
_TOLERANCE_S = 0.2
_COMMAND = "import sys; from flarekit.cli.main import main; sys.exit(main())"
_BUSY = "while True: pass"


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of_scans(__doc__, rounds=1)
    parser.add_argument("--loaded", action="store_true", help="beside two busy processes")
    return parser.parse_args(line)


def parser_of_scans(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return a parser of what `trials` needs, and of how each scan is run."""
    parser = parser_of(description)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--dataset", type=Path, help="labelled scans, nnU-Net raw layout")
    parser.add_argument("--cases", nargs="+", help="of the dataset; the held-out ones by default")
    parser.add_argument("--phantoms", type=int, nargs="+", default=(), help="seeds")
    parser.add_argument("--pets", type=Path, help="real bodies, see accuracy_real_body.py")
    parser.add_argument("--bodies", nargs="+", default=(), help="of those, with lesions outlined")
    parser.add_argument("--rounds", type=int, default=rounds, help="runs of each; medians count")
    parser.add_argument("--precision", default="auto", help="fp32: a processor without bf16")
    return parser


def trials(arguments: argparse.Namespace, predictor: PredictorFolder, folder: Path) -> list[Trial]:
    """Lay out each scan by itself.

    Raises:
        UsageError: neither scans nor phantoms.
        InputError: a file is not there.
    """
    found = [
        unseen_phantoms(_made(folder / f"phantom_{seed}"), [seed], (0, 0))
        for seed in arguments.phantoms
    ]
    if arguments.dataset is not None:
        recipe = read_recipe(predictor.folder / "recipe.toml")
        lay_out = held_out_petct if predictor.spec.convention == "autopet" else held_out_scans
        case_ids = arguments.cases or recipe.training.held_out
        found += [lay_out(_made(folder / each), arguments.dataset, [each]) for each in case_ids]
    for case, hu in bodies(arguments.pets, arguments.bodies, FLAT_HU) if arguments.pets else ():
        folder_of = _made(folder / f"{case}_{'own' if hu is None else 'flat'}_ct")
        found.append(lay_out_body(folder_of, arguments.pets, case, hu, quick=arguments.quick))
    if not found:
        raise UsageError("no scans", fix="name a --dataset, --pets or seeds of --phantoms")
    return found[:1] if arguments.quick else found


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def predicted(
    predictor: PredictorFolder, trial: Trial, budget_s: float, *more: str
) -> dict[str, Any]:
    """Run `flarekit predict` on the one scan of a trial and return what it took and gave."""
    report = trial.folder / "report"
    command = [sys.executable, "-c", _COMMAND, "predict", "-p", predictor.folder]
    command += ["-i", trial.inputs, "-o", trial.outputs, "--report", report, "--no-pictures"]
    figures = run([*command, "--device", "cpu", "-q", "--time-budget", budget_s, *more])
    (line,) = (report / "ledger.jsonl").read_text().splitlines()
    case = json.loads(line)
    if case["error"] is not None:
        raise SystemExit(f"{case['case_id']}: {case['error']}")
    dice, lost = scored(predictor, Path(case["mask"]), trial)
    return {
        "taken_s": figures["wall_s"],
        "cpu_s": figures["cpu_s"],
        "peak_rss_mib": figures["peak_rss_mib"],
        "dice": dice,
        "lost": lost,
        "tiles": case["tiles"]["done"],
        "traded": case["traded"],
        "curve": [[round(at, 2), round(share, 3)] for at, share in case["curve"]],
        "case": case["case_id"],
    }


def scored(predictor: PredictorFolder, mask: Path, trial: Trial) -> tuple[float, list[str]]:
    """Return the mean Dice over the labels that the truth has, and large ones not found at all."""
    (truth,) = trial.truths.iterdir()
    return scored_labels(predictor.spec.labels, read_mask(mask).values_ZYX, truth)


def scored_labels(
    labels: Mapping[str, int], found_ZYX: np.ndarray, truth_file: Path
) -> tuple[float, list[str]]:
    """Return the same of a label map."""
    truth = read_mask(truth_file)
    voxel_ml = float(np.prod(truth.geometry.spacing_mm_ZYX)) / 1000
    dice, lost = [], []
    for name, value in labels.items():
        there, here = truth.values_ZYX == value, found_ZYX == value
        if not there.any():
            continue
        score = 2 * int((there & here).sum()) / int(there.sum() + here.sum())
        dice.append(score)
        if score < 0.1 and there.sum() * voxel_ml > _LARGE_ML:  # noqa: PLR2004 - as good as none
            lost.append(name)
    return round(float(np.mean(dice)), 4) if dice else 1.0, lost


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep some cores busy."""
    loops = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measured(
    predictor: PredictorFolder, trial: Trial, shares: Sequence[float], how: argparse.Namespace
) -> dict[str, Any]:
    """Return F, R and every budget between them for one scan."""
    rounds, precision = how.rounds, ("--precision", how.precision)
    predicted(
        predictor, trial, 0, *precision
    )  # so that speeds are known, as they are from the second run on
    full = median_run([predicted(predictor, trial, 0, *precision) for _ in range(rounds)])
    least = median_run([predicted(predictor, trial, _NOTHING_S, *precision) for _ in range(rounds)])
    rows = []
    for share in shares:
        budget_s = least["taken_s"] + share * max(0.0, full["taken_s"] - least["taken_s"])
        runs = [predicted(predictor, trial, round(budget_s, 3), *precision) for _ in range(rounds)]
        row = median_run(runs)
        late_s = [round(each["taken_s"] - budget_s, 2) for each in runs]
        told = {
            "s": share,
            "budget_s": round(budget_s, 2),
            "late_s": max(late_s),
            "all_late_s": late_s,
        }
        rows.append({**told, **row})
    result = {"full": full, "least": least, "budgets": rows}
    if predictor.locator is not None:
        result["without_locator"] = median_run(
            [predicted(predictor, trial, 0, "--no-locator", *precision) for _ in range(rounds)]
        )
    return result


def median_run(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the run of median time."""
    middle = statistics.median_low(each["taken_s"] for each in runs)
    return next(each for each in runs if each["taken_s"] == middle)


def summary(scans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for every budget, means over the scans and what was worst."""
    rows = []
    for index, share in enumerate(row["s"] for row in scans[0]["budgets"]):
        each = [scan["budgets"][index] for scan in scans]
        below = [scan["full"]["dice"] - row["dice"] for scan, row in zip(scans, each, strict=True)]
        rows.append(
            {
                "s": share,
                "dice": round(statistics.mean(row["dice"] for row in each), 4),
                "below_full": round(statistics.mean(below), 4),
                "latest_s": max(row["late_s"] for row in each),
                "kept": _kept(each),
                "used": round(
                    statistics.median(row["taken_s"] / row["budget_s"] for row in each), 3
                ),
                "lost": sorted({name for row in each for name in row["lost"]}),
            }
        )
    return rows


def _kept(rows: Sequence[dict[str, Any]]) -> str:
    """Return how many runs ended by their budget and the tolerance, of how many."""
    late_s = [late for row in rows for late in row["all_late_s"]]
    return f"{sum(late <= _TOLERANCE_S for late in late_s)} of {len(late_s)}"


def main(line: Sequence[str] | None = None) -> Path:
    arguments = parse_arguments(line)
    predictor = find_predictor(arguments.predictor)
    if not arguments.quick:
        compile_predictor(predictor, arguments.precision)
    facts = {"predictor": predictor.spec.name, "precision": arguments.precision}
    result: dict[str, Any] = machine() | facts
    shares = QUICK if arguments.quick else SHARES
    with tempfile.TemporaryDirectory() as name:
        every = trials(arguments, predictor, Path(name))
        title, loops = ("loaded", 2) if arguments.loaded else ("idle", 0)
        with busy(loops):
            scans = [measured(predictor, trial, shares, arguments) for trial in every]
        result[title] = {"summary": summary(scans), "scans": scans}
        print(title, json.dumps(result[title]["summary"], indent=1))
    suffix = "" if arguments.precision == "auto" else f"_{arguments.precision}"
    suffix += "_loaded" if arguments.loaded else ""
    path: Path = arguments.output / f"anytime_{predictor.spec.name}{suffix}.json"
    write(path, result)
    return path


if __name__ == "__main__":
    main()
