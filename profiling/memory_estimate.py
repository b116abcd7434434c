"""Whether the memory that a network takes is known before it runs, from shapes alone.

    python profiling/memory_estimate.py [PREDICTOR ...]
    python profiling/memory_estimate.py PREDICTOR --quick --output FOLDER

Batches on a GPU are chosen by an estimate where there is too little room to try them. Every shipped
network, locators included, runs once on the CPU over a blank tile of its own size, in float32 and
in bf16, while PyTorch's profiler counts what is allocated; the estimate has to be within 10 % of
the most that was held at any moment. The result goes to memory_estimate_cpu.json beside this file;
rows of predictors that are not named stay. bf16 is left out where the processor does not compute in
it: PyTorch would take a hundred times as long.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from half_precision import CPU, SLICES, members_of
from measured import left_out, machine, parsed, parser_of, write
from torch import nn

from flarekit import models
from flarekit.core.spec import PredictorSpec
from flarekit.engine._torch_estimate import estimated_mib
from flarekit.engine._torch_networks import placed
from flarekit.segmentation.predictors import predictor_folders

NAME = "memory_estimate_cpu.json"
PRECISIONS = ("bf16", "fp32")
FEW = {True: (2, 96, 96), False: (16, 64, 64)}  # slices of a 2D network; of a tile


def shape_of(spec: PredictorSpec, *, whole: bool = True) -> tuple[int, ...]:
    """Return the shape of a predictor's tile, or of a small one, as its network takes it."""
    depth, height, width = spec.grid.tile_ZYX
    flat, channels = depth == 1, len(spec.channels)
    z, y, x = (SLICES if flat else depth, height, width) if whole else FEW[flat]
    return (z, channels, y, x) if flat else (1, channels, z, y, x)


def mib_of(spec: PredictorSpec, shape: tuple[int, ...], precision: str) -> dict[str, float]:
    """Return what the forward of a network of random weights takes: estimated, and counted."""
    network = models.create(spec.architecture.name, **spec.architecture.arguments).eval()
    network.requires_grad_(requires_grad=False)
    once, layout = placed(network, CPU, precision, flat=spec.grid.tile_ZYX[0] == 1)
    image = torch.zeros(shape).contiguous(memory_format=layout)
    counted = counted_mib(once, image, precision)
    estimated = estimated_mib(once, shape, CPU, precision, layout)
    return {"estimated_mib": round(estimated, 2), "counted_mib": round(counted, 2)}


def counted_mib(network: nn.Module, image: torch.Tensor, precision: str) -> float:
    """Return the peak of what PyTorch's profiler counts while the network runs."""
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(), half:
        network(image)
        cpu = torch.profiler.ProfilerActivity.CPU
        with torch.profiler.profile(profile_memory=True, activities=[cpu]) as profiled:
            network(image)
    events = profiled.profiler.kineto_results.events()
    memory = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    now = peak = 0
    for event in memory:
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 2**20


def row_of(spec: PredictorSpec, precisions: Sequence[str], *, whole: bool = True) -> dict[str, Any]:
    """Return a row of the result."""
    shape = shape_of(spec, whole=whole)
    row: dict[str, Any] = {"shape": list(shape)}
    for precision in precisions:
        told = mib_of(spec, shape, precision)
        ratio = round(told["estimated_mib"] / told["counted_mib"], 4)
        row[precision] = {**told, "ratio": ratio}
    return row


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("predictors", nargs="*", help="all that are shipped where none is named")
    arguments = parsed(parser, line)
    missing = left_out(PRECISIONS)
    precisions = [each for each in PRECISIONS if each not in missing]
    path = arguments.output / NAME
    rows = json.loads(path.read_text())["networks"] if path.exists() else {}
    for name in arguments.predictors or [folder.name for folder in predictor_folders()]:
        for member, predictor in members_of(name).items():
            rows[member] = row_of(predictor.spec, precisions, whole=not arguments.quick)
            print(member, json.dumps(rows[member]), flush=True)
            write(path, {"machine": machine(), "networks": dict(sorted(rows.items()))})


if __name__ == "__main__":
    main()
