"""flarekit against nnunetv2 2.8.1: the same network, weights and scans, in turns, on the CPU.

    python profiling/bench_peers.py SCANS --nnunet VENV/bin/python [--rounds 3] [--truth LABELS]

SCANS holds *_0000.nii.gz. The predictor (abdomen_ct, or --predictor) is written as an nnU-Net
result folder and imported from there, so that `exact` has nnU-Net's tiling and arithmetic. Every
round runs nnunetv2, exact in fp32, exact in bf16, fast, and fast in the predictor's own folder,
with the locator that an import lacks, each on each scan in a process of its own. Medians, ratios
and Dice between the masks (and against LABELS, where there are any of the scan's name) go to
peers_cpu.json, which says what is left out where the processor does not compute in bf16. The
artefact that `flarekit compile` makes is made before. --quick takes the first scan, once.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from measured import HERE, left_out, machine, parsed, parser_of, run, write
from nnunet_folder import both, folder_of

from flarekit.evaluation.confusion import dice_per_label
from flarekit.segmentation.compiling import compile_predictor
from flarekit.segmentation.predictors import find_predictor

FLAREKIT = Path(sys.executable).parent / "flarekit"
OURS = {
    "exact_fp32": ["--mode", "exact", "--no-mirroring", "--precision", "fp32"],
    "exact_bf16": ["--mode", "exact", "--no-mirroring", "--precision", "bf16"],
    "fast": ["--mode", "fast"],
    "fast_located": ["--mode", "fast"],
}


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).astype(np.uint8)


def dice(one: np.ndarray, other: np.ndarray, labels: dict[str, int]) -> dict[str, float]:
    present = {n: v for n, v in labels.items() if (one == v).any() or (other == v).any()}
    return {name: round(score, 4) for name, score in dice_per_label(one, other, present).items()}


def run_ours(predictor: Path, scans: Path, masks: Path, flags: list[str]) -> dict[str, Any]:
    report = masks.parent / "report"
    folders = ["-p", predictor, "-i", scans, "-o", masks, "--report", report, "--no-pictures"]
    figures = run([FLAREKIT, "predict", *folders, "--time-budget", 0, "-q", *flags])
    record = json.loads((report / "run.json").read_text())
    case = json.loads((report / "ledger.jsonl").read_text().splitlines()[0])
    stages = {stage: round(s, 2) for stage, s in record["seconds"].items()}
    stages |= {stage: round(s, 2) for stage, s in case["seconds"].items()}
    what = {key: record[key] for key in ("engine", "precision")}
    return {**figures, "stages": stages, **what, "tiles": case["tiles"]}


def run_theirs(python: str, result: Path, scans: Path, masks: Path) -> dict[str, Any]:
    figures = run([python, HERE / "peer_nnunet.py", result, scans, masks])
    return {**figures, "stages": json.loads(figures["stdout"].strip().splitlines()[-1])}


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    keys = ("wall_s", "cpu_s", "peak_rss_mib")
    summary = {key: round(statistics.median(row[key] for row in rows), 2) for key in keys}
    last = {k: v for k, v in rows[-1].items() if k not in (*keys, "stdout")}
    return {**summary, "wall_s_of_rounds": [row["wall_s"] for row in rows], **last}


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--nnunet", required=True, help="interpreter with nnunetv2")
    parser.add_argument("--predictor", default="abdomen_ct")
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parsed(parser, line)
    rounds = 1 if arguments.quick else arguments.rounds
    version = subprocess.run(
        [
            arguments.nnunet,
            "-c",
            "from importlib.metadata import version; print(version('nnunetv2'))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    result: dict[str, Any] = machine() | {"nnunetv2": version, "cases": {}}
    missing = left_out(("fp32", "bf16"))
    ways = {key: flags for key, flags in OURS.items() if not missing.keys() & set(flags)}
    if missing:
        result["left_out"] = missing
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        result_folder, predictor = both(
            arguments.predictor, scratch, [each for each in ("fp32", "bf16") if each not in missing]
        )
        folders = dict.fromkeys(ways, predictor.folder)
        folders["fast_located"] = find_predictor(str(arguments.predictor)).folder
        compile_predictor(find_predictor(str(arguments.predictor)))
        labels = dict(predictor.spec.labels)
        scans = sorted(arguments.scans.glob("*_0000.nii.gz"))
        for scan in scans[:1] if arguments.quick else scans:
            case_id = scan.name.removesuffix("_0000.nii.gz")
            alone = folder_of([scan], scratch / case_id)
            rows: dict[str, list[dict[str, Any]]] = {"nnunetv2": [], **{key: [] for key in ways}}
            for _ in range(rounds):
                masks = scratch / "masks_nnunetv2"
                rows["nnunetv2"].append(run_theirs(arguments.nnunet, result_folder, alone, masks))
                for key, flags in ways.items():
                    ours = scratch / f"masks_{key}"
                    rows[key].append(run_ours(folders[key], alone, ours, flags))
            summary = {key: medians(values) for key, values in rows.items()}
            mask = {key: voxels(scratch / f"masks_{key}" / f"{case_id}.nii.gz") for key in rows}
            truth = arguments.truth and arguments.truth / f"{case_id}.nii.gz"
            for key, values in summary.items():
                if key != "nnunetv2":
                    theirs = summary["nnunetv2"]
                    values["times_faster"] = round(theirs["wall_s"] / values["wall_s"], 2)
                    values["of_their_peak_rss"] = round(
                        values["peak_rss_mib"] / theirs["peak_rss_mib"], 3
                    )
                    values["voxels_equal"] = round(float((mask[key] == mask["nnunetv2"]).mean()), 6)
                    values["dice_to_nnunetv2"] = dice(mask[key], mask["nnunetv2"], labels)
                if truth is not None and truth.exists():
                    values["dice_to_truth"] = dice(mask[key], voxels(truth), labels)
            result["cases"][case_id] = {"shape": nibabel.load(scan).shape, **summary}
            brief = {k: (v["wall_s"], v.get("times_faster")) for k, v in summary.items()}
            print(case_id, json.dumps(brief))
    write(arguments.output / "peers_cpu.json", result)


if __name__ == "__main__":
    main()
