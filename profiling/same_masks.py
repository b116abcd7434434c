"""Whether two checkouts of flarekit give the same masks, voxel by voxel, on the same machine.

    python profiling/same_masks.py run --checkout OLD --data DATA --output old.json
    python profiling/same_masks.py run --checkout NEW --data DATA --output new.json
    python profiling/same_masks.py compare old.json new.json --output same_masks.json

`run` lays out DATA's abdominal CTs, PET/CT crops and lesions as their organisers do, lets every
predictor that fits segment them, in both modes and without a budget, and notes the SHA-256 of each
mask's voxels. It goes on where it was interrupted; with --quick it takes one CT and one
predictor. `compare` lists what differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accuracy_cases import Trial, held_out_petct, held_out_scans
from accuracy_vois import lesion_vois
from measured import bare_parser, write

from flarekit.evaluation.masks import read_mask

PREDICTORS = {
    "flare": (
        "abdomen_ct",
        "mpu_net_liver",
        "attention_unet_abdomen",
        "mamba_clinix_abdomen",
    ),
    "autopet": ("att_umamba_petct",),
    "uls23": ("mamba_ahnet_lesion",),
}
MODES = ("fast", "exact")


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = bare_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--checkout", type=Path, required=True)
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--output", type=Path, required=True)
    run.add_argument("--quick", action="store_true", help="one CT, one predictor, one mode")
    compare = commands.add_parser("compare")
    compare.add_argument("results", type=Path, nargs=2)
    compare.add_argument("--output", type=Path, required=True)
    return parser.parse_args(line)


def lay_out(convention: str, data: Path, folder: Path, *, quick: bool = False) -> Trial:
    ct, petct = data / "Dataset001_Abdomen", data / "Dataset002_PETCT"
    if convention == "autopet":
        return held_out_petct(folder, petct, case_ids(petct))
    if convention == "uls23":
        some = case_ids(petct)[::6]
        return lesion_vois(folder, dataset=petct, held_out=some, vois=data / "lesion_vois")
    if quick:
        return held_out_scans(folder, ct, case_ids(ct)[:1])
    trial = held_out_scans(folder, ct, case_ids(ct))
    for scan in (data / "cases").glob("*_0000.nii.gz"):
        (trial.inputs / scan.name).symlink_to(scan)
    return trial


def case_ids(dataset: Path) -> list[str]:
    scans = sorted((dataset / "imagesTr").glob("*_0000.nii.gz"))
    return [scan.name.removesuffix("_0000.nii.gz") for scan in scans]


def run(arguments: argparse.Namespace) -> None:
    done = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    wanted = {"flare": PREDICTORS["flare"][:1]} if arguments.quick else PREDICTORS
    for convention, predictors in wanted.items():
        for name in predictors:
            for mode in MODES[:1] if arguments.quick else MODES:
                if f"{name} {mode}" in done:
                    continue
                with tempfile.TemporaryDirectory() as scratch:
                    trial = lay_out(
                        convention, arguments.data, Path(scratch), quick=arguments.quick
                    )
                    segment(arguments.checkout, name, mode, trial)
                    done[f"{name} {mode}"] = hashes(trial.outputs)
                write(arguments.output, done)
                print(name, mode, len(done[f"{name} {mode}"]), "masks", flush=True)


def segment(checkout: Path, name: str, mode: str, trial: Trial) -> None:
    option = (
        "--mode" if (checkout / "flarekit/segmentation/segmenter.py").is_file() else "--profile"
    )
    command = [sys.executable, "-m", "flarekit.cli.main", "predict", "--quiet"]
    command += ["--predictor", str(checkout / "weights" / name), option, mode]
    command += ["--input", str(trial.inputs), "--output", str(trial.outputs)]
    command += ["--time-budget", "0", "--ram-budget", "0"]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    # a failed case leaves an empty mask
    subprocess.run(command, env=environment, cwd=checkout, check=False)


def hashes(folder: Path) -> dict[str, list[object]]:
    """Return, for every mask, the hash of its voxels and how many are not background."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".gz", ".mha")):
        values = np.ascontiguousarray(read_mask(path).values_ZYX)
        digest = hashlib.sha256(values.astype(np.uint8).tobytes()).hexdigest()
        found[path.name] = [digest[:16], list(values.shape), int(np.count_nonzero(values))]
    return found


def compare(arguments: argparse.Namespace) -> None:
    old, new = (json.loads(path.read_text()) for path in arguments.results)
    result: dict[str, object] = {}
    for run_name in sorted(set(old) & set(new)):
        one, other = old[run_name], new[run_name]
        differ = sorted(case for case in {*one, *other} if one.get(case) != other.get(case))
        voxels = sum(int(row[2]) for row in one.values())
        result[run_name] = {"masks": len(one), "labelled_voxels": voxels, "different": differ}
        print(run_name, result[run_name])
    result["in_one_only"] = sorted(set(old) ^ set(new))
    write(arguments.output, result)


def main(line: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(line)
    {"run": run, "compare": compare}[arguments.command](arguments)


if __name__ == "__main__":
    main()
