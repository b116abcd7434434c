"""What the Python API costs, beside bare Python and beside `flarekit predict`, in one run.

    python profiling/bench_front_door.py [--scans 5] [--rounds 3] [--many 50]
    python profiling/bench_front_door.py --quick --output FOLDER

The import: `python -c "import flarekit"` beside `python -c pass`, in turns. A second scan: the
times of the same scan on one segmenter. Scans through the API: load, segment and save beside
`flarekit predict` of the same folder, whole processes in turns. Memory: resident after 2 scans and
after many. Results go to front_door_cpu.json beside this file.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measured import parsed, parser_of, write

from flarekit.phantom import save_phantom

FLAREKIT = Path(sys.executable).parent / "flarekit"
SCANS = """
import json, sys, time
from pathlib import Path
import flarekit
inputs, outputs = map(Path, sys.argv[2:4])
began = time.perf_counter()
with flarekit.load(sys.argv[1], device="cpu") as segmenter:
    loaded = time.perf_counter()
    seconds = []
    for scan in sorted(inputs.iterdir()):
        result = segmenter.segment(scan)
        result.save(outputs / scan.name.replace("_0000", ""))
        seconds.append(result.seconds)
print(json.dumps({"load_s": loaded - began, "scan_s": seconds}))
"""
AGAIN = """
import json, sys
import flarekit
with flarekit.load(sys.argv[1], device="cpu") as segmenter:
    print(json.dumps([segmenter.segment(sys.argv[2]).seconds for _ in range(6)]))
"""
MANY = """
import json, sys
import numpy as np
import psutil
import flarekit
rng, resident = np.random.default_rng(0), []
with flarekit.load(sys.argv[1], device="cpu") as segmenter:
    for number in range(int(sys.argv[2])):
        scan = rng.integers(-200, 200, (40, 160 + number % 5, 160), np.int16)
        segmenter.segment(scan, spacing_mm=(3, 2, 2), probabilities=True)
        resident.append(psutil.Process().memory_info().rss / 2**20)
print(json.dumps(resident))
"""


def seconds_of(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def answer(script: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the script prints
    line = [sys.executable, "-c", script, *map(str, arguments)]
    out = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def importing(rounds: int) -> dict[str, Any]:
    rows: dict[str, list[float]] = {"pass": [], "import flarekit": []}
    for _ in range(rounds):
        for code, seconds in rows.items():
            seconds.append(seconds_of([sys.executable, "-c", code]))
    bare, package = (round(statistics.median(seconds), 4) for seconds in rows.values())
    return {
        "bare_python_s": bare,
        "import_flarekit_s": package,
        "beside_s": round(package - bare, 4),
    }


def beside_the_folder(predictor: str, inputs: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for number in range(rounds):
        api, folder = (scratch / f"{name}{number}" for name in ("api", "folder"))
        api.mkdir()
        began = time.perf_counter()
        told = answer(SCANS, predictor, inputs, api)
        api_s = time.perf_counter() - began
        line = [FLAREKIT, "predict", "-q", "-p", predictor, "-i", inputs, "-o", folder]
        line += ["--device", "cpu"]
        folder_s = seconds_of([*map(str, line)])
        same = all(path.read_bytes() == (folder / path.name).read_bytes() for path in api.iterdir())
        rows.append({"api_s": api_s, "folder_s": folder_s, "same_masks": same, **told})
    ratios = [row["api_s"] / row["folder_s"] for row in rows]
    return {"rounds": rows, "api_over_folder": round(statistics.median(ratios), 3)}


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--predictor", default="abdomen_ct")
    parser.add_argument("--of-memory", default="mpu_net_liver", help="predictor of the memory")
    parser.add_argument("--scans", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=50)
    arguments = parsed(parser, line)
    if arguments.quick:
        arguments.scans, arguments.rounds, arguments.many = 1, 1, 2
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        inputs = scratch / "inputs"
        inputs.mkdir()
        for seed in range(1, arguments.scans + 1):
            name = f"phantom_{seed}_0000.nii.gz"
            save_phantom(seed, scan=inputs / name, labels=scratch / "truth.nii.gz")
        scan = inputs / "phantom_1_0000.nii.gz"
        answer(AGAIN, arguments.predictor, scan)  # compiles the network where that was never done
        again = answer(AGAIN, arguments.predictor, scan)
        resident = answer(MANY, arguments.of_memory, arguments.many)
        result = {
            "import": importing(1 if arguments.quick else 15),
            "same_scan_again_s": [round(s, 3) for s in again],
            "scans": beside_the_folder(arguments.predictor, inputs, scratch, arguments.rounds),
            "resident_mib": {
                f"after_{count}": round(resident[count - 1], 1)
                for count in (2, 10, len(resident))
                if count <= len(resident)
            },
        }
    write(arguments.output / "front_door_cpu.json", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
