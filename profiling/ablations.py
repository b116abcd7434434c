"""One ablation of a paper rerun: three rows of its table, two seeds, equal steps or CPU minutes.

    python profiling/ablations.py mamba_clinix DATASET --work DIR --steps 200
    python profiling/ablations.py mamba_ahnet DATASET --work DIR --minutes 2.5

DATASET is in nnU-Net's raw layout, for the paper's recipe `--recipe` (`flarekit train recipes`);
every `--held-out`-th case, or those that `--validation` names, is for validation and never trained
on. Each row is the recipe with the row's arguments, a narrower network (`--width`) and a smaller
tile where the machine asks for it. Minutes are CPU time of the process, validation left out, so
that a busy machine takes nothing from a row; with `--steps` every row makes the same number of
them. The result, ablation_PAPER_steps.json or ablation_PAPER_minutes.json, has every run's curve
(step, CPU minutes, mean Dice on the validation cases), mean and spread of each row, and what the
paper says; the same within the CPU time of the quickest run is read off the curves. A difference
that is not larger than the spread is "undecided". Runs that are complete in `--work` are not
repeated, and those of other settings are refused; one that was cut off begins again. `--quick`
makes two steps of each with one seed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from measured import machine, parsed, parser_of, write
from torch import nn

from flarekit.training.cases import case_ids
from flarekit.training.compact import RunOptions, train
from flarekit.training.recipe import Recipe, paper_recipes, read_recipe
from flarekit.training.recipe_changes import trained_by
from flarekit.training.sources import make_all, training_pools, validation_pool
from flarekit.training.training_case import TrainingCase
from flarekit.training.validation import Measured, Validation


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Rows of a paper's table: name -> arguments, and the paper's figure."""

    recipe: str
    claim: str
    rows: Mapping[str, tuple[Mapping[str, Any], float]]


ABLATIONS = {
    "mamba_clinix": Ablation(
        recipe="mamba_clinix/abdomen_ct",
        claim="Table 4, DSC (%) of LiverT: HGCN helps, and HGCN with Mamba stage by stage more",
        rows={
            "baseline": ({"blocks": ["conv"] * 6}, 48.64),
            "only HGCN [2, 3, 4, 5, 6, 6]": (
                {"blocks": ["hgcn"] * 6, "orders": [2, 3, 4, 5, 6, 6]},
                70.47,
            ),
            "HGCN [2, 3, 4] + Mamba": (
                {"blocks": ["hgcn"] * 3 + ["mamba"] * 3, "orders": [2, 3, 4, 0, 0, 0]},
                71.37,
            ),
        },
    ),
    "mamba_ahnet": Ablation(
        recipe="mamba_ahnet/deeplesion3d",
        claim="Table II, DSC of DeepLesion3D: attention and residual blocks help, and Mamba more",
        rows={
            "HUNet": ({"attention": False, "residual": False, "mamba": False}, 0.8789),
            "AHNet": ({"mamba": False}, 0.9676),
            "Mamba-AHNet": ({}, 0.9874),
        },
    ),
}


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("paper", choices=ABLATIONS)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--recipe", help="another of flarekit train recipes")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes per run")
    parser.add_argument("--steps", type=int, help="per run, in place of minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--width", type=float, default=0.5, help="of the paper's network")
    parser.add_argument("--tile", type=int, nargs=3, help="voxels of a sample; the recipe's else")
    parser.add_argument("--spacing", type=float, nargs=3, help="mm, Z first; the recipe's else")
    parser.add_argument("--batch", type=int, help="samples of a step; the recipe's else")
    parser.add_argument("--rate", type=float, help="learning rate; the recipe's else")
    parser.add_argument("--unlabelled", nargs="+", default=[], help="labels that no case has")
    parser.add_argument("--held-out", type=int, default=4, help="every how many cases")
    parser.add_argument("--validation", nargs="+", help="patterns of case ids, in their place")
    parser.add_argument("--device", default="auto")
    told = parsed(parser, line)
    if told.quick:
        told.steps, told.seeds = 2, told.seeds[:1]
    found, ablation = [], ABLATIONS[told.paper]
    ids = case_ids(told.dataset)
    aside = [each for each in ids if fits(each, told.validation)] if told.validation else []
    aside = aside or ids[:: told.held_out]
    for name, (arguments, paper) in ablation.rows.items():
        runs = [run(told, ablation, name, arguments, seed, aside) for seed in told.seeds]
        found.append({"row": name, "paper": paper, "runs": runs, **summary(runs)})
        print(f"{name}: {found[-1]['mean']:.4f}, spread {found[-1]['spread']:.4f}", flush=True)
    at_equal_minutes(found)
    each = {"steps": told.steps} if told.steps else {"cpu_minutes": told.minutes}
    result = {
        "claim": ablation.claim,
        "dataset": told.dataset.resolve().name,
        "cases": len(ids),
        "validation": told.validation or aside,
        "validation_cases": len(aside),
        "recipe": told.recipe or ablation.recipe,
        "each": each,
        "width": told.width,
        "tile_ZYX": told.tile,
        "spacing_mm_ZYX": told.spacing,
        "batch": told.batch,
        "learning_rate": told.rate,
        "unlabelled": told.unlabelled,
        "machine": machine(),
        "rows": found,
        "verdicts": verdicts(found),
        "verdicts_at_equal_minutes": verdicts([each["at_equal_minutes"] for each in found]),
    }
    kind = "steps" if told.steps else "minutes"
    write(told.output / f"ablation_{told.paper}_{kind}.json", result)


class Effort:
    """What a run has used: its clock, and its measurements by step and CPU time."""

    def __init__(self, steps: int | None) -> None:
        self.steps, self.made = steps, 0
        self.measuring_s = 0.0
        self.curve: list[dict[str, float]] = []
        self._began = time.process_time()

    def clock(self) -> float:
        """Return seconds of training: of CPU time, or a minute spread over the steps."""
        if self.steps:
            return 60.0 * self.made / self.steps
        return time.process_time()

    def count(self, step: int, minutes: float, loss: float) -> None:  # noqa: ARG002 - the trainer's
        """Note that a step was made."""
        self.made = step

    @property
    def cpu_minutes(self) -> float:
        """CPU time of the training so far, validation left out."""
        return (time.process_time() - self._began - self.measuring_s) / 60


class MeasuredEffort(Validation):
    """A validation that keeps every measurement, five of them whatever they take."""

    def __init__(
        self,
        recipe: Recipe,
        cases: Sequence[TrainingCase],
        folder: Path,
        effort: Effort,
        minutes: float,
    ) -> None:
        super().__init__(recipe, cases, folder)
        self._used = effort
        self._seldom_s = self.took_s = 60 * minutes / 5 / 10  # the trainer waits ten times that

    def measure(
        self, trained: nn.Module, effort: Mapping[str, Any], device: torch.device, precision: str
    ) -> Measured:
        """Measure, and note at what cost of training."""
        minutes, began = self._used.cpu_minutes, time.process_time()
        found = super().measure(trained, effort, device, precision)
        self.took_s = self._seldom_s
        self._used.measuring_s += time.process_time() - began
        point = {"step": found.step, "cpu_minutes": round(minutes, 2), "dice": round(found.mean, 4)}
        self._used.curve.append(point)
        return found


def run(
    told: Any,  # noqa: ANN401 - argparse
    ablation: Ablation,
    row: str,
    arguments: Mapping[str, Any],
    seed: int,
    validation: Sequence[str],
) -> dict[str, Any]:
    """Train one row with one seed, and return what it measured."""
    recipe = read_recipe(paper_recipes()[told.recipe or ablation.recipe])
    recipe = shortened(narrowed(recipe, arguments, told.width, told.tile, validation), told)
    kind = f"{told.steps}_steps" if told.steps else f"{told.minutes}_minutes"
    folder = told.work / kind / f"{row.replace(' ', '_')}-{seed}"
    done, asked = folder / "done.json", [told.steps, None if told.steps else told.minutes]
    made_of = json.dumps([trained_by(recipe), str(told.dataset.resolve()), asked], sort_keys=True)
    if done.is_file():
        kept: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if kept.pop("made_of", None) != made_of:
            raise SystemExit(f"{folder}: is a run of other settings; name another --work")
        return kept
    shutil.rmtree(folder, ignore_errors=True)
    pools, aside = training_pools(recipe, told.dataset), validation_pool(recipe, told.dataset)
    make_all([*pools, aside], told.work / "cases", 1)
    options = RunOptions(minutes=1.0 if told.steps else told.minutes, device=told.device, seed=seed)
    used = Effort(told.steps)
    by = MeasuredEffort(recipe, aside.cases, folder, used, options.minutes)
    train(recipe, pools, folder, options, validation=by, progress=used.count, clock=used.clock)
    last = used.curve[-1]
    result = {"seed": seed, **last, "curve": used.curve}
    done.write_text(json.dumps({**result, "made_of": made_of}), encoding="utf-8")
    print(f"{row}, seed {seed}: {last}", flush=True)
    return result


def fits(case_id: str, patterns: Sequence[str]) -> bool:
    """Return whether a case is one of those that patterns name."""
    return any(fnmatchcase(case_id, each) for each in patterns)


def shortened(recipe: Recipe, told: Any) -> Recipe:  # noqa: ANN401 - argparse
    """Return a recipe on a coarser grid, with a rate for fewer steps, of labels that there are."""
    facts: dict[str, Any] = {"unlabelled": tuple(told.unlabelled)}
    facts |= {"batch": told.batch} if told.batch else {}
    facts |= {"learning_rate": told.rate} if told.rate else {}
    spec = recipe.spec
    if told.spacing:
        grid = spec.grid.model_copy(update={"spacing_mm_ZYX": tuple(told.spacing)})
        spec = spec.model_copy(update={"grid": grid})
    return replace(recipe, spec=spec, training=recipe.training.model_copy(update=facts))


def narrowed(
    recipe: Recipe,
    arguments: Mapping[str, Any],
    width: float,
    tile: Sequence[int] | None,
    validation: Sequence[str],
) -> Recipe:
    """Return a recipe with a row's arguments, a narrower network and a smaller tile."""
    own = {**recipe.spec.architecture.arguments, **arguments}
    if "features_per_stage" in own:  # HGCN halves channels up to six times
        own["features_per_stage"] = [
            max(16, 16 * round(n * width / 16)) for n in own["features_per_stage"]
        ]
    else:
        own["width"] = width
    size = tuple(tile or recipe.training.tile_ZYX)
    grid = recipe.spec.grid.model_copy(update={"tile_ZYX": size})
    network = recipe.spec.architecture.model_copy(update={"arguments": own})
    spec = recipe.spec.model_copy(update={"grid": grid, "architecture": network})
    facts = {"tile_ZYX": size, "validation": tuple(validation)}
    return replace(recipe, spec=spec, training=recipe.training.model_copy(update=facts))


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of the seeds, and how far they lie apart."""
    dice = [each["dice"] for each in runs]
    return {"mean": sum(dice) / len(dice), "spread": max(dice) - min(dice)}


def at_equal_minutes(rows: Sequence[dict[str, Any]]) -> None:
    """Add to every row what its curves show within the CPU time that the quickest run took.

    It is the last point of each curve within that time; 0 where there is none yet.
    """
    least = min(run["cpu_minutes"] for row in rows for run in row["runs"])
    for row in rows:
        within = []
        for each in row["runs"]:
            points = [p["dice"] for p in each["curve"] if p["cpu_minutes"] <= least]
            within.append({"dice": points[-1] if points else 0.0})
        row["at_equal_minutes"] = {"row": row["row"], "cpu_minutes": least, **summary(within)}


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each row whether it is better than the one before, as the paper has it."""
    said = []
    for before, after in zip(rows, rows[1:], strict=False):
        difference = after["mean"] - before["mean"]
        most = max(before["spread"], after["spread"])
        told = "undecided" if abs(difference) <= most else "better" if difference > 0 else "worse"
        said.append(f"{after['row']} beside {before['row']}: {told} ({difference:+.4f})")
    return said


if __name__ == "__main__":
    main()
