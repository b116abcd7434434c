"""How many of many runs end by their time budget while other processes keep every core busy.

    python profiling/bench_deadlines.py abdomen_ct --dataset DATASET --runs 1000 [--busy 2]

R is the time of a run without a budget and F that of the shortest run there is; both are measured
first, beside the same processes, as medians of five. Every run is `flarekit predict` on the next of
the scans (`bench_anytime.py` says which) in a process of its own, with a budget drawn between
F + 0.1 (R - F) and R. One is kept that has ended, its process and all, by the budget and 0.2 s.
--busy 0 adds no processes: for a machine that others load anyway, which `loads` tells. Results go
to deadlines_PREDICTOR.json, which grows while the runs go on: how many were kept, how much later
than their budgets the latest ended, and which part of its budget the median run used whose tiles
were not all run. --quick takes the first scan and
three runs.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from accuracy_cases import Trial
from bench_anytime import busy, parser_of_scans, predicted, trials
from measured import machine, write

from flarekit.core.spec import PredictorFolder
from flarekit.segmentation.compiling import compile_predictor
from flarekit.segmentation.predictors import find_predictor

_TOLERANCE_S = 0.2
_LEAST_SHARE = 0.1
_NOTHING_S = 0.001
_WRITE_EVERY = 20  # runs
_ROUNDS = 5
_QUICK_RUNS = 3


def ends_of(predictor: PredictorFolder, trial: Trial, rounds: int) -> tuple[float, float]:
    """Return the median times of the shortest run of a scan and of its full run, in s."""
    predicted(predictor, trial, 0)  # so that speeds are known
    least, full = (
        statistics.median(predicted(predictor, trial, s)["taken_s"] for _ in range(rounds))
        for s in (_NOTHING_S, 0)
    )
    return least, max(full, least)


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what counts of all runs so far."""
    late_s = [run["late_s"] for run in runs]
    used = [run["taken_s"] / run["budget_s"] for run in runs if run["traded"]]
    loads = sorted(run["load"] for run in runs)
    return {
        "runs": len(runs),
        "kept": sum(late <= _TOLERANCE_S for late in late_s),
        "latest_s": max(late_s),
        "late": sorted((late for late in late_s if late > 0), reverse=True)[:20],
        "used": round(statistics.median(used), 3) if used else None,
        "loads": [loads[0], statistics.median(loads), loads[-1]],
    }


def main(line: Sequence[str] | None = None) -> Path:
    parser = parser_of_scans(__doc__, rounds=_ROUNDS)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--busy", type=int, default=2, help="processes that keep cores busy")
    parser.add_argument("--seed", type=int, default=0, help="of the budgets")
    arguments = parser.parse_args(line)
    predictor = find_predictor(arguments.predictor)
    if not arguments.quick:
        compile_predictor(predictor)
    else:
        arguments.runs, arguments.rounds = _QUICK_RUNS, 1
    path: Path = arguments.output / f"deadlines_{predictor.spec.name}.json"
    facts = {"predictor": predictor.spec.name, "busy": arguments.busy, "seed": arguments.seed}
    draw, runs, began_on = random.Random(arguments.seed), list[dict[str, Any]](), machine()
    with tempfile.TemporaryDirectory() as name, busy(arguments.busy):
        every = trials(arguments, predictor, Path(name))
        ends = [ends_of(predictor, trial, arguments.rounds) for trial in every]
        facts |= {"ends_s": ends}
        for number, (trial, (least_s, full_s)) in enumerate(cycle(zip(every, ends, strict=True))):
            if number == arguments.runs:
                break
            share = draw.uniform(_LEAST_SHARE, 1)
            budget_s = round(least_s + share * (full_s - least_s), 3)
            run = predicted(predictor, trial, budget_s)
            runs.append(
                {"budget_s": budget_s, "late_s": round(run["taken_s"] - budget_s, 2)}
                | {key: run[key] for key in ("taken_s", "traded")}
                | {"load": round(os.getloadavg()[0], 2)}
            )
            if number % _WRITE_EVERY == 0 or number + 1 == arguments.runs:
                write(path, began_on | facts | summary(runs))
    return path


if __name__ == "__main__":
    main()
