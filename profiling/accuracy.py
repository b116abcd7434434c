"""Dice of a predictor on labelled scans it never saw, and on phantoms it never saw.

    python profiling/accuracy.py abdomen_ct --dataset DATASET
    python profiling/accuracy.py abdomen_ct --phantoms 1 2 3 4 5 6 7 8
    python profiling/accuracy.py abdomen_ct --dataset DATASET --profile exact

The cases of DATASET (nnU-Net raw layout) are those that the predictor's recipe.toml holds out;
labels that it calls unlabelled are left out. No case has a time budget. Results go to
accuracy_PREDICTOR_scans.json or accuracy_PREDICTOR_phantoms.json beside this file, with _exact
behind them for that profile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from flarekit.core.nifti import read_nifti
from flarekit.core.records import RunRecord
from flarekit.evaluation.dice import dice_per_label
from flarekit.phantom import save_phantom
from flarekit.pipeline.predictors import find_predictor
from flarekit.pipeline.segment import Options, segment_folder
from flarekit.training.recipe import read_recipe

HERE = Path(__file__).parent


def score(record: RunRecord, truths: dict[str, Path], labels: dict[str, int]) -> dict[str, object]:
    if record.failed:
        raise SystemExit(f"failed: {record.failed[0].error}")
    cases = {}
    for case in record.cases:
        predicted, truth = (
            read_nifti(path).voxels_ZYX.astype(np.uint8)
            for path in (case.mask, truths[case.case_id])
        )
        scores = dice_per_label(predicted, truth, labels)
        cases[case.case_id] = {name: round(value, 4) for name, value in scores.items()}
    per_label = {
        name: round(float(np.mean([scores[name] for scores in cases.values()])), 4)
        for name in labels
    }
    return {
        "profile": record.profile,
        "engine": record.engine,
        "device": record.device,
        "precision": record.precision,
        "mean": round(float(np.mean(list(per_label.values()))), 4),
        "labels": per_label,
        "cases": cases,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("predictor")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", type=Path)
    source.add_argument("--phantoms", type=int, nargs="+")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--profile", choices=["fast", "exact"], default="fast")
    arguments = parser.parse_args()
    predictor = find_predictor(arguments.predictor)
    options = Options(
        device=arguments.device,
        precision=arguments.precision,
        profile=arguments.profile,
        time_budget_s=0,
    )
    labels = dict(predictor.spec.labels)
    with tempfile.TemporaryDirectory() as scratch:
        inputs, outputs = Path(scratch) / "inputs", Path(scratch) / "outputs"
        inputs.mkdir()
        truths = {}
        if arguments.dataset is not None:
            facts = read_recipe(predictor.folder / "recipe.toml").training
            labels = {name: value for name, value in labels.items() if name not in facts.unlabelled}
            for case_id in facts.held_out:
                scan = arguments.dataset / "imagesTr" / f"{case_id}_0000.nii.gz"
                (inputs / scan.name).symlink_to(scan.resolve())
                truths[case_id] = arguments.dataset / "labelsTr" / f"{case_id}.nii.gz"
        for seed in arguments.phantoms or ():
            truths[f"phantom_{seed}"] = Path(scratch) / f"truth_{seed}.nii.gz"
            save_phantom(
                seed, scan=inputs / f"phantom_{seed}_0000.nii.gz", labels=truths[f"phantom_{seed}"]
            )
        record = segment_folder(predictor, inputs, outputs, options)
        result = score(record, truths, labels)
    kind = "scans" if arguments.dataset is not None else "phantoms"
    suffix = "" if arguments.profile == "fast" else "_exact"
    path = HERE / f"accuracy_{predictor.spec.name}_{kind}{suffix}.json"
    sha256 = predictor.spec.weights.sha256
    path.write_text(
        json.dumps({"predictor": predictor.spec.name, "sha256": sha256} | result, indent=2) + "\n"
    )
    print(f"{path}: mean {result['mean']}")
    for name, value in result["labels"].items():  # type: ignore[attr-defined]
        print(f"  {name:24s} {value:.3f}")


if __name__ == "__main__":
    main()
