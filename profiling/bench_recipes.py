"""Two published recipes for short times beside this package's own, on the same network and scans.

    python profiling/bench_recipes.py abdomen_ct --dataset DATASET [--rounds 3] [--precision fp32]
    python profiling/bench_recipes.py PREDICTOR --phantoms 1 --quick --output FOLDER

All of them look at a scan with the predictor's locator first, and then run the same network:

- `region`: the winners of FLARE21 and FLARE22 find the organs on a coarse grid, and run the whole
  network in the box around them (margin 20 mm). What lies outside is background. Tiles stand half a
  tile apart, or a whole one to be faster.
- `top_k`: NMSW (No More Sliding Window, 2025) runs the network on the k places of the window that
  the coarse network values most, each by itself; elsewhere the coarse labels stay. Its scores are
  learnt together with the network; here they are how much label the locator expects in a tile.
- `ours`: with a time budget of what the row above took, tiles in the order of what each adds to
  those before it.

Everything is loaded and warm: what is measured is from the file to the label map, on the CPU, in
one process, the median of the rounds. Dice is the mean over the labels that the truth has. Results
go to recipes_PREDICTOR.json (with _PRECISION, where that is named).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_cases import Trial
from bench_anytime import median_run, parser_of_scans, scored_labels, trials
from measured import machine, write

import flarekit
from flarekit.core.errors import UsageError
from flarekit.core.spec import PredictorFolder
from flarekit.segmentation.case import PlacedCase, compute_case, place_case
from flarekit.segmentation.context import CaseExtras
from flarekit.segmentation.limits import tiles_of
from flarekit.segmentation.loaded import load_case
from flarekit.segmentation.locator import LocatorMap
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.scans import scan_input
from flarekit.segmentation.segmenter import Segmenter

MARGIN_MM = 20.0
_FOREVER_S = 1e6
Choice = Callable[[PlacedCase], PlacedCase]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to spend less time.

    Attributes:
        name: in the results.
        choose: changes what is run of a case that is placed.
    """

    name: str
    choose: Choice


def recipes(segmenter: Segmenter) -> list[Recipe]:
    """Return the published ones, the longest first."""
    regions = [Recipe(name=f"region, step {s:g}", choose=region(segmenter, s)) for s in (0.5, 1.0)]
    tops = [Recipe(name=f"top_k, k = {k}", choose=top_k(k)) for k in (4, 2, 1)]
    return [*regions, *tops]


def region(segmenter: Segmenter, step: float) -> Choice:
    """Run every tile in the box around what the locator found, and nothing else."""

    def choose(placed: PlacedCase) -> PlacedCase:
        assert placed.found is not None
        inside = placed.placement.needed_where(box_around(placed.found), placed.found.placement)
        shape, engine = placed.placement.shape_ZYX, segmenter.start().engine
        tiles = tiles_of(engine, shape, step, inside.needed_ZYX, fitted=True)
        return replace(placed, plan=replace(placed.plan, tiles=tiles, usual=len(tiles)))

    return choose


def box_around(found: LocatorMap) -> np.ndarray:
    """Return the box around all labels, with the margin; everything where there are none."""
    labels = found.label_map_ZYX > 0
    inside = np.zeros(labels.shape, bool)
    sides = []
    for axis, mm in enumerate(found.placement.spacing_mm_ZYX):
        other = tuple(k for k in range(3) if k != axis)
        seen, margin = np.flatnonzero(labels.any(axis=other)), ceil(MARGIN_MM / mm)
        first, last = (seen[0], seen[-1]) if len(seen) else (0, labels.shape[axis])
        sides.append(slice(max(0, int(first) - margin), int(last) + 1 + margin))
    inside[tuple(sides)] = True
    return inside


def top_k(k: int) -> Choice:
    """Run the k tiles of the window in which most label is expected, each judged by itself."""

    def choose(placed: PlacedCase) -> PlacedCase:
        priorities, tiles = placed.plan.priorities, placed.plan.tiles or ()
        assert priorities is not None
        shares = [priorities.shares([tile])[0] for tile in tiles]
        best = [tiles[n] for n in np.argsort([-share for share in shares], kind="stable")[:k]]
        return replace(placed, plan=replace(placed.plan, tiles=tuple(best)))

    return choose


def measured(
    segmenter: Segmenter, trial: Trial, budget_s: float, choose: Choice | None = None
) -> dict[str, Any]:
    """Segment the one scan of a trial; return how long it took, its tiles and its Dice."""
    (scan,), (truth,) = list(trial.inputs.iterdir()), list(trial.truths.iterdir())
    context, wanted = segmenter.context(), CaseExtras()
    source = scan_input(scan, segmenter.spec)
    began = time.monotonic()
    deadline = began + budget_s
    placed = place_case(load_case(source.read, segmenter.spec), context, wanted, deadline)
    if choose is not None:
        placed = choose(placed)
    done = compute_case(placed, context, wanted, deadline)
    taken_s = time.monotonic() - began
    dice, _ = scored_labels(segmenter.spec.labels, done.label_map_ZYX, truth)
    return {"taken_s": round(taken_s, 3), "tiles": done.tiles.done, "dice": dice}


def rows_of(segmenter: Segmenter, trial: Trial, rounds: int) -> list[dict[str, Any]]:
    """Return a row for every recipe, and for this package's own in the same time."""

    def median(budget_s: float, choose: Choice | None = None) -> dict[str, Any]:
        return median_run([measured(segmenter, trial, budget_s, choose) for _ in range(rounds)])

    measured(segmenter, trial, _FOREVER_S)  # so that everything is warm and speeds are known
    rows = [{"recipe": "all tiles", **median(_FOREVER_S)}]
    for recipe in recipes(segmenter):
        row = {"recipe": recipe.name, **median(_FOREVER_S, recipe.choose)}
        rows += [row, {"recipe": "ours", "budget_s": row["taken_s"], **median(row["taken_s"])}]
    return [*rows, {"recipe": "locator alone", **median(0.001)}]


def summary(scans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over the scans."""
    return [
        {"recipe": rows[0]["recipe"]}
        | {
            key: round(statistics.mean(row[key] for row in rows), 4)
            for key in ("taken_s", "tiles", "dice")
        }
        for rows in zip(*(scan["rows"] for scan in scans), strict=True)
    ]


def main(line: Sequence[str] | None = None) -> Path:
    arguments = parser_of_scans(__doc__, rounds=3).parse_args(line)
    predictor: PredictorFolder = find_predictor(arguments.predictor)
    if predictor.locator is None:
        raise UsageError(f"{predictor.spec.name} has no locator", fix="see flarekit train locator")
    rounds = 1 if arguments.quick else arguments.rounds
    how = {"device": "cpu", "precision": arguments.precision}
    facts = {"predictor": predictor.spec.name, "precision": arguments.precision, "rounds": rounds}
    with (
        tempfile.TemporaryDirectory() as name,
        flarekit.load(predictor, **how) as segmenter,
    ):
        scans = [
            {"case": next(iter(trial.truths.iterdir())).name.removesuffix(".nii.gz")}
            | {"rows": rows_of(segmenter, trial, rounds)}
            for trial in trials(arguments, predictor, Path(name))
        ]
    result = machine() | facts | {"summary": summary(scans), "scans": scans}
    suffix = "" if arguments.precision == "auto" else f"_{arguments.precision}"
    path: Path = arguments.output / f"recipes_{predictor.spec.name}{suffix}.json"
    write(path, result)
    return path


if __name__ == "__main__":
    main()
