"""Time and memory against the number of slices: CTs of 512 x 512 x N, one `flarekit predict` each.

    python profiling/bench_scaling.py [--predictor abdomen_ct] [--slices 55 100 ...] [--device cpu]

The scans are phantoms, 0.8 x 0.8 x 1 mm, mirrored end to end in Z until they are long enough. Each
is run without a time budget, and then with FLARE's 15 s. Results go to scaling_DEVICE.json,
scaling_cpu_fp32.json on a processor without bf16;
--quick makes one small scan.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from measured import QUICK_MM, machine, parsed, parser_of, run, write
from scipy.ndimage import zoom

from flarekit.engine._cpu import cpu_has_bf16
from flarekit.phantom import abdomen_phantom
from flarekit.segmentation.compiling import compile_predictor
from flarekit.segmentation.predictors import find_predictor

FLAREKIT = Path(sys.executable).parent / "flarekit"
SLICES = (55, 100, 150, 215, 334, 448, 499, 554, 1000)
Spacing = tuple[float, float, float]
PLANE, QUICK_PLANE = 512, 64  # voxels along X and Y
SPACING_MM = (0.8, 0.8, 1.0)


def long_phantom(slices: int, width: int, spacing_mm: Spacing | None) -> np.ndarray:
    """Return (width, width, slices) int16."""
    phantom = abdomen_phantom(1, spacing_mm_ZYX=spacing_mm)
    own_mm = np.abs(np.diag(phantom.affine))[:3]
    hu = phantom.hu_ZYX.T
    plane = width * np.array(SPACING_MM[:2]) / (np.array(hu.shape[:2]) * own_mm[:2])
    fine = zoom(hu, (width / hu.shape[0], width / hu.shape[1], own_mm[2] / SPACING_MM[2]), order=1)
    print(f"phantom {hu.shape} at {own_mm} mm, stretched by {plane.round(2)}", file=sys.stderr)
    there_and_back = np.concatenate([fine, fine[..., ::-1]], axis=2)
    times = -(-slices // there_and_back.shape[2])
    return np.concatenate([there_and_back] * times, axis=2)[..., :slices].astype(np.int16)


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--predictor", default="abdomen_ct")
    parser.add_argument("--slices", type=int, nargs="+", default=SLICES)
    parser.add_argument("--device", default="cpu")
    arguments = parsed(parser, line)
    width, lengths = (QUICK_PLANE, (20,)) if arguments.quick else (PLANE, arguments.slices)
    predictor = find_predictor(arguments.predictor)
    if arguments.device == "cpu":
        compile_predictor(predictor)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        inputs, masks, report = (scratch / each for each in ("inputs", "masks", "report"))
        inputs.mkdir()
        for slices in lengths:
            scan = inputs / "scan_0000.nii.gz"
            hu = long_phantom(slices, width, QUICK_MM if arguments.quick else None)
            nibabel.save(nibabel.Nifti1Image(hu, np.diag([*SPACING_MM, 1])), scan)
            row: dict[str, Any] = {"slices": slices}
            for title, budget in (("unlimited", 0), ("within_15_s", 15)):
                command = [FLAREKIT, "predict", "-i", inputs, "-o", masks, "-q"]
                options = ["-p", arguments.predictor, "--device", arguments.device]
                more = ["--time-budget", budget, "--report", report, "--no-pictures"]
                figures = run([*command, *options, *more])
                case = json.loads((report / "ledger.jsonl").read_text().splitlines()[0])
                row[title] = {
                    "wall_s": round(case["wall_s"], 2),
                    "process_s": figures["wall_s"],
                    "cpu_s": figures["cpu_s"],
                    "peak_rss_mib": figures["peak_rss_mib"],
                    "tiles": case["tiles"]["done"],
                    "seconds": {stage: round(s, 2) for stage, s in case["seconds"].items()},
                    "traded": case["traded"],
                }
            rows.append(row)
            print(json.dumps(row))
    spec = predictor.spec
    result = machine() | {"predictor": spec.name, "classes": len(spec.class_values), "rows": rows}
    without = "_fp32" if arguments.device == "cpu" and not cpu_has_bf16() else ""
    write(arguments.output / f"scaling_{arguments.device}{without}.json", result)


if __name__ == "__main__":
    main()
