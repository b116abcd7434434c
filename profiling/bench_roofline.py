"""How much of the processor the network gets: its FLOP/s against the largest product's.

    python profiling/bench_roofline.py [abdomen_ct ...] [--rounds 15] [--quick --output FOLDER]

The peak is the best of square bf16 (and fp32) products in PyTorch and in OpenVINO, measured in the
same run, tile and product in turns. FLOP of a tile are counted by torch.utils.flop_counter
(products and convolutions only; a multiply-add is 2). Medians go to roofline_cpu.json, which says
what is left out where the processor does not compute in bf16.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino
import torch
from measured import left_out, machine, parsed, parser_of, write
from openvino import opset13 as ops
from torch.utils.flop_counter import FlopCounterMode

import flarekit
from flarekit.engine import Precision
from flarekit.engine.openvino import input_shape
from flarekit.segmentation.predictors import build_networks, find_predictor

SIZES, QUICK_SIZES = (2048, 4096), (128,)
HINTS: dict[Precision, str] = {"bf16": "bf16", "fp32": "f32"}


def product_in_openvino(size: int, precision: str) -> Callable[[], object]:
    a = ops.parameter([size, size], np.float32)
    weights = ops.constant(np.ones((size, size), np.float32))
    model = openvino.Model([ops.matmul(a, weights, False, False)], [a])
    settings = {"INFERENCE_PRECISION_HINT": HINTS[precision]}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    request.get_input_tensor().data[:] = 1
    return request.infer


def product_in_torch(size: int, precision: str) -> Callable[[], object]:
    a = torch.ones(size, size, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    b = a.clone()
    return lambda: a @ b


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def tile_flop(name: str) -> float:
    predictor = find_predictor(name)
    grid, channels = predictor.spec.grid, len(predictor.spec.channels)
    total = 0
    for network in build_networks(predictor):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            # the counter follows gradients of what modules take, also where none are computed
            network.eval().requires_grad_(False)(torch.zeros(input_shape(grid, channels)))
        total += counter.get_total_flops()
    return float(total)


def tile_work(name: str, precision: Precision) -> Callable[[], object]:
    segmenter = flarekit.load(name, engine="openvino", precision=precision)
    spec, compute = segmenter.spec, segmenter.start().engine
    shape = input_shape(spec.grid, len(spec.channels))  # batch and channels first; 2D: slices first
    depth = shape[2] if len(shape) == 5 else shape[0]
    rng = np.random.default_rng(0)
    tile = rng.normal(size=(shape[1], depth, *shape[-2:])).astype(np.float32)
    return lambda: [slab.z for slab in compute.sweep(tile)]


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("predictors", nargs="*", default=["abdomen_ct"])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parsed(parser, line)
    sizes, rounds = (QUICK_SIZES, 1) if arguments.quick else (SIZES, arguments.rounds)
    missing = left_out(HINTS)
    result: dict[str, Any] = machine() | ({"left_out": missing} if missing else {})
    for precision in [each for each in HINTS if each not in missing]:
        work: dict[str, Callable[[], object]] = {
            f"{maker.__name__} {size}": maker(size, precision)
            for maker in (product_in_openvino, product_in_torch)
            for size in sizes
        }
        work |= {name: tile_work(name, precision) for name in arguments.predictors}
        flop = {key: 2.0 * int(key.split()[-1]) ** 3 for key in work if " " in key}
        flop |= {name: tile_flop(name) for name in arguments.predictors}
        for each in work.values():
            each()  # warm
        seconds: dict[str, list[float]] = {key: [] for key in work}
        for _ in range(rounds):
            for key, each in work.items():
                seconds[key].append(seconds_of(each))
        gflops = {key: flop[key] / statistics.median(seconds[key]) / 1e9 for key in work}
        peak = max(value for key, value in gflops.items() if " " in key)
        result[precision] = {
            "peak_gflops": round(peak, 1),
            "products_gflops": {key: round(v, 1) for key, v in gflops.items() if " " in key},
            "tiles": {
                name: {
                    "gflop": round(flop[name] / 1e9, 2),
                    "seconds": round(statistics.median(seconds[name]), 4),
                    "gflops": round(gflops[name], 1),
                    "of_peak": round(gflops[name] / peak, 3),
                }
                for name in arguments.predictors
            },
        }
    write(arguments.output / "roofline_cpu.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
