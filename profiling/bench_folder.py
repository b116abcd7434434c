"""Cases per hour over one folder: nnunetv2's own command, one process and two, and flarekit's.

    python profiling/bench_folder.py SCANS --nnunet VENV/bin/python [--predictor abdomen_ct]

The same network and weights (nnunet_folder.py), on the CPU, one way after the other, each from its
start to its last mask: nnUNetv2_predict_from_modelfolder without mirroring, over the folder or by
two processes over half of it each (it takes a thread per core in either case); `predict` in both
modes; `cohort run` with a worker per core, whose time includes Ray's start. Results go to
folder_cpu.json beside this file; --quick takes two scans.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measured import machine, parsed, parser_of, write
from nnunet_folder import both, folder_of

FLAREKIT = Path(sys.executable).parent / "flarekit"
QUICK_CASES = 2


def seconds_of(
    lines: Sequence[Sequence[object]], masks: Path, expected: int, threads: int
) -> float:
    """Run commands side by side to their end, and see that every scan has a mask.

    Raises:
        SystemExit: a command failed, or a mask is not there.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    environment |= {f"nnUNet_{name}": str(masks) for name in ("raw", "preprocessed", "results")}
    began = time.monotonic()
    running = [
        subprocess.Popen(
            [str(part) for part in line],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in lines
    ]
    said = [each.communicate()[1] for each in running]
    spent_s = time.monotonic() - began
    for each, text in zip(running, said, strict=True):
        if each.returncode:
            raise SystemExit(f"{each.args} ended with {each.returncode}:\n{text[-2000:]}")
    found = len(list(masks.glob("*.nii.gz")))
    if found != expected:
        raise SystemExit(f"{masks}: {found} masks of {expected} scans")
    return spent_s


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--nnunet", required=True, type=Path, help="interpreter with nnunetv2")
    parser.add_argument("--predictor", default="abdomen_ct")
    parser.add_argument("--cases", type=int, help="how many of the scans; all by default")
    arguments = parsed(parser, line)
    count = QUICK_CASES if arguments.quick else arguments.cases
    scans = sorted(arguments.scans.glob("*_0000.nii.gz"))[:count]
    cores = len(os.sched_getaffinity(0))
    theirs = arguments.nnunet.parent / "nnUNetv2_predict_from_modelfolder"
    result: dict[str, Any] = machine() | {"cases": len(scans), "predictor": arguments.predictor}
    ways: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        result_folder, predictor = both(arguments.predictor, scratch, ("fp32", "auto"))
        whole = folder_of(scans, scratch / "all")
        halves = [folder_of(scans[k::2], scratch / f"half_{k}") for k in range(2)]

        def measure(way: str, lines: Sequence[Sequence[object]], threads: int) -> None:
            masks = scratch / "masks" / way.replace(" ", "_")
            masks.mkdir(parents=True)
            placed = [[masks if part == "MASKS" else part for part in each] for each in lines]
            spent_s = seconds_of(placed, masks, len(scans), threads)
            ways[way] = {
                "seconds": round(spent_s, 1),
                "cases_per_hour": round(3600 * len(scans) / spent_s),
            }
            print(way, ways[way], file=sys.stderr)

        own = ["-m", result_folder, "-f", "0", "-device", "cpu", "--disable_tta"]
        own += ["-npp", "1", "-nps", "1"]
        measure("nnunetv2, one process", [[theirs, "-i", whole, "-o", "MASKS", *own]], cores)
        measure(
            "nnunetv2, two processes", [[theirs, "-i", h, "-o", "MASKS", *own] for h in halves], 1
        )
        ours = ["-i", whole, "-o", "MASKS", "-p", predictor.folder, "--device", "cpu", "-q"]
        exact = ["--mode", "exact", "--precision", "fp32", "--no-mirroring"]
        measure("predict, exact in fp32", [[FLAREKIT, "predict", *ours, *exact]], cores)
        measure("predict, fast", [[FLAREKIT, "predict", *ours]], cores)
        report = ["--workers", cores, "--report", scratch / "report", "--no-pictures"]
        measure("cohort run, fast", [[FLAREKIT, "cohort", "run", *ours, *report]], 1)
    write(arguments.output / "folder_cpu.json", result | {"ways": ways})


if __name__ == "__main__":
    main()
