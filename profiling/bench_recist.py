"""What a file of FLARE25's task 1 costs: time, processor time and memory of `flarekit predict`.

    python profiling/bench_recist.py mamba_ahnet_lesion --scan CT.nii.gz --output profiling

The CT becomes `.npz` files with one, three and ten lines at places from a seed, of 10 to 40 mm, its
slices repeated to --slices. Each file is a run of its own, as the organiser's container makes it;
on a busy machine the processor time tells more than the wall time. --quick takes a phantom and one
line.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine, parsed, parser_of, run, write
from numpy.typing import NDArray

from flarekit.segmentation.compiling import compile_predictor
from flarekit.segmentation.predictors import find_predictor

_LINES = (1, 3, 10)


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--scan", type=Path, help="a CT; a phantom by default")
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    return parsed(parser, line)


def volume(arguments: argparse.Namespace) -> tuple[NDArray[Any], tuple[float, float, float]]:
    """Return a CT in HU and its spacing (Z, Y, X)."""
    if arguments.scan is not None and not arguments.quick:
        from accuracy_cases import oriented

        hu, (_, y, x) = oriented(arguments.scan)
        times = max(1, round(arguments.slices / len(hu)))
        return np.repeat(hu, times, axis=0), (1.5, y, x)
    from flarekit.phantom.scan import abdomen_phantom

    phantom = abdomen_phantom(1, spacing_mm_ZYX=(5.0, 3.0, 3.0), shape_ZYX=(46, 92, 124))
    return phantom.hu_ZYX, phantom.spacing_mm_ZYX


def drawn(
    hu: NDArray[Any], spacing_mm: Sequence[float], count: int, seed: int
) -> NDArray[np.int32]:
    """Draw lines along X at places that are body."""
    rng = np.random.default_rng(seed)
    recist = np.zeros(hu.shape, np.int32)
    body = np.argwhere(hu[::4, ::8, ::8] > -50) * (4, 8, 8)
    for value in range(1, count + 1):
        z, y, x = body[rng.integers(len(body))]
        half = int(rng.uniform(10, 40) / spacing_mm[2] / 2)
        recist[z, y, max(0, x - half) : x + half + 1] = value
    return recist


def cost(predictor: str, inputs: Path, outputs: Path) -> dict[str, Any]:
    """Run the command on a folder and return what it cost."""
    script = Path(sys.executable).with_name("flarekit")
    line = [script, "predict", "-p", predictor, "--convention", "flare_recist"]
    found = run([*line, "-i", inputs, "-o", outputs, "--device", "cpu"], {"FLAREKIT_STATE": ""})
    del found["stdout"]
    return found


def main(line: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(line)
    hu, spacing_mm = volume(arguments)
    images = np.rint((np.clip(hu, -160, 240) + 160) / 400 * 255).astype(np.uint8)
    compile_predictor(find_predictor(str(arguments.predictor)))  # as in an image
    rows, facts = list[dict[str, Any]](), machine()
    with tempfile.TemporaryDirectory() as scratch:
        for count in _LINES[:1] if arguments.quick else _LINES:
            inputs = Path(scratch, f"in_{count}")
            inputs.mkdir()
            recist = drawn(hu, spacing_mm, count, arguments.seed)
            spacing = np.array(spacing_mm[::-1])
            np.savez_compressed(inputs / "a.npz", imgs=images, recist=recist, spacing=spacing)
            row = cost(arguments.predictor, inputs, Path(scratch, f"out_{count}"))
            rows.append({"lines": count, "voxels": list(images.shape), **row})
            print(rows[-1])
    found = facts | {"predictor": Path(arguments.predictor).name, "files": rows}
    write(arguments.output / "recist_cpu.json", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
