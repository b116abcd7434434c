"""Time networks and the selective scan in PyTorch and in OpenVINO on the CPU, side by side.

    python profiling/bench_openvino.py [NETWORK ...] [--rounds 5] [--quick --output FOLDER]

Networks are small ones of every architecture with fresh weights, a tile of 48x128x128 voxels or 4
slices of 256x256. Alternating rounds; the result goes to openvino_cpu.json beside this file, which
says what is left out where the processor does not compute in bf16. Peak memory is that of a process
of its own that reads the converted network, compiles it and runs two tiles.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from bench_scan import CHANNELS, STATES, TOKENS, inputs
from measured import left_out, parsed, parser_of, write
from openvino import opset15 as ops

from flarekit import models
from flarekit.engine._cpu import cpu_name
from flarekit.engine._openvino_convert import to_openvino
from flarekit.engine._openvino_scan import ScanShape, selective_scan
from flarekit.models.selective_scan import selective_scan as torch_scan

CLASSES = 5
NNUNET: dict[str, Any] = {
    "input_channels": 1, "num_classes": CLASSES, "n_stages": 4,
    "features_per_stage": [16, 32, 64, 64], "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2,
}  # fmt: skip
SMALL: dict[str, Any] = {"input_channels": 1, "num_classes": CLASSES}
NETWORKS: dict[str, dict[str, Any]] = {
    "nnunet": {**NNUNET, "n_conv_per_stage": [2] * 4, "n_conv_per_stage_decoder": [2] * 3},
    "umamba": NNUNET,
    "att_umamba": NNUNET,
    "mamba_clinix": NNUNET,
    "mpu_net": {**SMALL, "width": 0.25},
    "attention_unet": {**SMALL, "width": 0.25},
    "mamba_ahnet": {**SMALL, "width": 0.25, "reconstruction": False},
}
FLAT = ("attention_unet", "mamba_ahnet")
TILE_3D, TILE_2D = (1, 1, 48, 128, 128), (4, 1, 256, 256)
QUICK_3D, QUICK_2D = (1, 1, 16, 32, 32), (4, 1, 64, 64)
HINTS = {"fp32": "f32", "bf16": "bf16"}
PEAK = """
import re, sys
from pathlib import Path
import numpy as np, openvino
core = openvino.Core()
compiled = core.compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": sys.argv[2]})
for _ in range(2):
    compiled([np.zeros(compiled.input().shape, np.float32)])
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def alternating(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the least seconds of each (others use the cores too), after one run not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - began)
    return {name: round(min(values), 4) for name, values in times.items()}


def compiled_scan(tensors: list[torch.Tensor], tokens: int) -> openvino.CompiledModel:
    u, delta, A, B, C, D = (tensor.numpy() for tensor in tensors)
    parameters = [ops.parameter(list(each.shape), np.float32) for each in (u, delta, B, C)]
    shape = ScanShape(batch=1, channels=CHANNELS, states=STATES, tokens=tokens)
    outputs = [parameter.output(0) for parameter in parameters]
    y = selective_scan(
        *outputs[:2], ops.constant(A).output(0), *outputs[2:], ops.constant(D).output(0),
        shape=shape,
    )  # fmt: skip
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(openvino.Model([y], parameters), "CPU", settings)


def bench_scans(lengths: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for tokens in lengths:
        tensors = inputs(tokens, "cpu")
        compiled = compiled_scan(tensors, tokens)
        arrays = [tensors[index].numpy() for index in (0, 1, 3, 4)]
        expected = torch_scan(*tensors).numpy()
        error = np.abs(compiled(arrays)[0] - expected).max() / np.abs(expected).max()
        runs = {
            "torch": lambda tensors=tensors: torch_scan(*tensors),
            "openvino": lambda compiled=compiled, arrays=arrays: compiled(arrays),
        }
        rows.append({"tokens": tokens, "error": float(error), "seconds": alternating(runs, rounds)})
        print(rows[-1], flush=True)
    return rows


def bench_network(
    name: str, tile: tuple[int, ...], rounds: int, missing: Collection[str]
) -> dict[str, Any]:
    torch.manual_seed(0)
    network = models.create(name, **NETWORKS[name]).eval().requires_grad_(False)
    image = torch.randn(tile)
    layout = torch.channels_last if name in FLAT else torch.channels_last_3d
    began = time.perf_counter()
    model = to_openvino(network, tuple(image.shape))
    row: dict[str, Any] = {"convert_s": round(time.perf_counter() - began, 2)}
    expected = network(image)
    runs: dict[str, Callable[[], Any]] = {"torch_fp32": lambda: network(image)}
    core, peaks = openvino.Core(), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        row["ir_mib"] = round(sum(p.stat().st_size for p in path.parent.iterdir()) / 2**20, 2)
        row["parameters_m"] = round(sum(p.numel() for p in network.parameters()) / 1e6, 2)
        for precision in [each for each in HINTS if each not in missing]:
            hint = HINTS[precision]
            settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
            began = time.perf_counter()
            compiled = core.compile_model(path, "CPU", settings)
            row[f"compile_{precision}_s"] = round(time.perf_counter() - began, 2)
            output = torch.from_numpy(compiled([image.numpy()])[0])
            difference = (output - expected).abs().max() / expected.abs().max()
            row[f"error_{precision}"] = float(difference)
            agree = (output.argmax(1) == expected.argmax(1)).float().mean()
            row[f"classes_equal_{precision}"] = round(float(agree), 5)
            runs[f"openvino_{precision}"] = lambda compiled=compiled: compiled([image.numpy()])
            command = [sys.executable, "-c", PEAK, str(path), hint]
            output_text = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[precision] = round(float(output_text.stdout))
    halved = models.create(name, **NETWORKS[name]).eval().requires_grad_(False)
    halved.load_state_dict(network.state_dict())
    halved.to(memory_format=layout)  # type: ignore[call-overload]

    def torch_bf16() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: torch.Tensor = halved(image.contiguous(memory_format=layout))
        return logits

    if "bf16" not in missing:
        agree = (torch_bf16().argmax(1) == expected.argmax(1)).float().mean()
        row["classes_equal_torch_bf16"] = round(float(agree), 5)
        runs["torch_bf16"] = torch_bf16
    row |= {"peak_rss_mib": peaks, "seconds": alternating(runs, rounds)}
    return row


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("networks", nargs="*", help="all, or nnunet where --quick")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parsed(parser, line)
    networks, rounds, lengths = arguments.networks or list(NETWORKS), arguments.rounds, TOKENS
    flat, volume = TILE_2D, TILE_3D
    if arguments.quick:
        networks, rounds, lengths = arguments.networks or ["nnunet"], 1, TOKENS[:1]
        flat, volume = QUICK_2D, QUICK_3D
    path = arguments.output / "openvino_cpu.json"
    rows = json.loads(path.read_text())["networks"] if path.exists() else {}
    missing = left_out(HINTS)
    with torch.inference_mode():
        scans = bench_scans(lengths, rounds)
    with torch.no_grad():
        for name in networks:
            rows[name] = bench_network(name, flat if name in FLAT else volume, rounds, missing)
            print(name, rows[name], flush=True)
            result = {
                "processor": cpu_name(), "threads": torch.get_num_threads(),
                "torch": torch.__version__, "openvino": openvino.get_version(),
                "scan": scans, "networks": rows, **({"left_out": missing} if missing else {}),
            }  # fmt: skip
            write(path, result)


if __name__ == "__main__":
    main()
