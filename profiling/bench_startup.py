"""From the start of the process to the first tile: bare, and in a container.

    python profiling/bench_startup.py [--predictor abdomen_ct] [--image flarekit:cpu] [--rounds 7]
    python profiling/bench_startup.py --quick --output FOLDER

The predictor is compiled before (`flarekit compile`), as it is in the image. Medians, in seconds
since the process (or `docker run`) was started, go to startup_cpu.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from measured import machine, parsed, parser_of, write

from flarekit.segmentation.compiling import compile_predictor
from flarekit.segmentation.predictors import find_predictor

CODE = """
import json, time
times = {"python": time.time()}
import numpy as np
import flarekit.cli.predict
times["import"] = time.time()
segmenter = flarekit.load(NAME, device="cpu")
times["load"] = time.time()
compute, spec = segmenter.start().engine, segmenter.spec
tile = np.zeros((len(spec.channels), *spec.grid.tile_ZYX), np.float32)
for slab in compute.sweep(tile):
    slab.classes()
times["first tile"] = time.time()
print(json.dumps({"engine": segmenter.facts.engine, "times": times}))
"""


def measure(command: list[str], rounds: int) -> dict[str, object]:
    rows, engine = [], ""
    for _ in range(rounds):
        began = time.time()
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        answer = json.loads(out.strip().splitlines()[-1])
        engine = answer["engine"]
        rows.append({stage: moment - began for stage, moment in answer["times"].items()})
    medians = {stage: round(statistics.median(row[stage] for row in rows), 3) for stage in rows[0]}
    return {"engine": engine, "rounds": rounds, "seconds_until": medians}


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--predictor", default="abdomen_ct")
    parser.add_argument("--image")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parsed(parser, line)
    rounds = 1 if arguments.quick else arguments.rounds
    compile_predictor(find_predictor(arguments.predictor))
    code = CODE.replace("NAME", repr(arguments.predictor))
    result = machine() | {"bare": measure([sys.executable, "-c", code], rounds)}
    if arguments.image:
        flags = ["--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp"]
        command = ["docker", "run", *flags, arguments.image, "python", "-c", code]
        inspect = ["docker", "image", "inspect", "--format", "{{.Size}}", arguments.image]
        size = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout
        result["container"] = measure(command, rounds) | {
            "image": arguments.image,
            "image_mb": round(int(size) / 1e6, 1),
        }
    write(arguments.output / "startup_cpu.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
