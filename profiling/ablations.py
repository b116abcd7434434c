"""One ablation of a paper rerun: three rows of its table, two seeds, equal steps or minutes.

    python profiling/ablations.py mamba_clinix DATASET --work DIR --minutes 10
    python profiling/ablations.py mamba_ahnet DATASET --work DIR --steps 2000

DATASET is in nnU-Net's raw layout, for the paper's recipe `--recipe` (`flarekit train recipes`);
every `--held-out`-th case is for validation and never trained on. Each row is the recipe with the
row's arguments, a narrower network (`--width`) and a smaller tile where the machine asks for it.
The result, ablation_PAPER.json, has every run's mean Dice on the validation cases, mean and spread
of each row, and what the paper says; a difference that is smaller than the spread is "undecided".
Runs that are complete in `--work` are not repeated, and those of other settings are refused; one
that was cut off begins again. With `--steps` every row makes the same number of them, which is up
to five fewer: validation looks at the clock, too. `--quick` makes two steps of each with one seed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from measured import machine, parsed, parser_of, write

from flarekit.training.cases import case_ids
from flarekit.training.compact import RunOptions, train
from flarekit.training.recipe import Recipe, paper_recipes, read_recipe
from flarekit.training.sources import make_all, training_pools, validation_pool
from flarekit.training.validation import Validation, read_measured


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Rows of a paper's table: name -> arguments, and the paper's figure."""

    recipe: str
    claim: str
    rows: Mapping[str, tuple[Mapping[str, Any], float]]


ABLATIONS = {
    "mamba_clinix": Ablation(
        recipe="mamba_clinix/brats",
        claim="Table 4, WT of BraTS: Mamba helps, and HGCN with Mamba stage by stage more",
        rows={
            "baseline": ({"blocks": ["conv"] * 6}, 88.43),
            "only Mamba": ({"blocks": ["mamba"] * 6}, 90.40),
            "HGCN [2, 3, 4] + Mamba": (
                {"blocks": ["hgcn"] * 3 + ["mamba"] * 3, "orders": [2, 3, 4, 0, 0, 0]},
                92.02,
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
    parser.add_argument("--minutes", type=float, default=10.0, help="per run")
    parser.add_argument("--steps", type=int, help="per run, in place of minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--width", type=float, default=0.5, help="of the paper's network")
    parser.add_argument("--tile", type=int, nargs=3, help="voxels of a sample; the recipe's else")
    parser.add_argument("--held-out", type=int, default=4, help="every how many cases")
    parser.add_argument("--device", default="auto")
    told = parsed(parser, line)
    if told.quick:
        told.steps, told.seeds = 2, told.seeds[:1]
    found, ablation = [], ABLATIONS[told.paper]
    validation = case_ids(told.dataset)[:: told.held_out]
    for name, (arguments, paper) in ablation.rows.items():
        runs = [run(told, ablation, name, arguments, seed, validation) for seed in told.seeds]
        found.append({"row": name, "paper": paper, "runs": runs, **summary(runs)})
        print(f"{name}: {found[-1]['mean']:.4f}, spread {found[-1]['spread']:.4f}", flush=True)
    result = {
        "claim": ablation.claim,
        "dataset": told.dataset.resolve().name,
        "validation": validation,
        "recipe": told.recipe or ablation.recipe,
        "each": {"steps": told.steps} if told.steps else {"minutes": told.minutes},
        "width": told.width,
        "machine": machine(),
        "rows": found,
        "verdicts": verdicts(found),
    }
    write(told.output / f"ablation_{told.paper}.json", result)


def run(
    told: Any,  # noqa: ANN401 - argparse
    ablation: Ablation,
    row: str,
    arguments: Mapping[str, Any],
    seed: int,
    validation: Sequence[str],
) -> dict[str, Any]:
    """Train one row with one seed, and return what it measured at the end."""
    recipe = read_recipe(paper_recipes()[told.recipe or ablation.recipe])
    recipe = narrowed(recipe, arguments, told.width, told.tile, validation)
    folder = told.work / f"{row.replace(' ', '_')}-{seed}"
    done, effort = folder / "done.json", [told.steps, None if told.steps else told.minutes]
    made_of = json.dumps([recipe.trained_by, str(told.dataset.resolve()), effort], sort_keys=True)
    if done.is_file():
        kept: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if kept.pop("made_of", None) != made_of:
            raise SystemExit(f"{folder}: is a run of other settings; name another --work")
        return kept
    shutil.rmtree(folder, ignore_errors=True)
    pools, aside = training_pools(recipe, told.dataset), validation_pool(recipe, told.dataset)
    make_all([*pools, aside], told.work / "cases", 2)
    options = RunOptions(minutes=1.0 if told.steps else told.minutes, device=told.device, seed=seed)
    by = Validation(recipe, aside.cases, folder)
    clock = partial(next, ticks(told.steps)) if told.steps else time.monotonic
    train(recipe, pools, folder, options, validation=by, clock=clock)
    measured = read_measured(folder)
    assert measured is not None
    result = {"seed": seed, "steps": measured.step, "dice": measured.mean}
    done.write_text(json.dumps({**result, "made_of": made_of}), encoding="utf-8")
    return result


def ticks(steps: int) -> Iterator[float]:
    """Yield the time of a clock that lets a training of a minute make so many steps."""
    seconds = 0.0
    while True:  # the trainer looks at it twice a step
        yield seconds
        seconds += 30.0 / steps


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
