"""Time the selective scan's backends side by side, and its memory against the number of tokens.

    python profiling/bench_scan.py [--device cuda] [--quick --output FOLDER]

Alternating rounds; the result goes to scan_DEVICE.json beside this file.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence

import torch
from measured import parsed, parser_of, write

from flarekit.core.errors import DeviceError
from flarekit.models.selective_scan import BACKENDS, choose_backend, selective_scan

CHANNELS, STATES = 64, 16
TOKENS = (1_000, 10_000, 100_000)
ROUNDS = 5
SLOW = 20_000  # the reference is not asked for more tokens than this


def inputs(tokens: int, device: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, CHANNELS, tokens), (1, CHANNELS, tokens), (CHANNELS, STATES),
              (1, STATES, tokens), (1, STATES, tokens), (CHANNELS,))  # fmt: skip
    u, delta, A, B, C, D = (torch.randn(shape, generator=generator) for shape in shapes)
    tensors = (u, torch.nn.functional.softplus(delta - 2), -torch.exp(A), B, C, D)
    return [tensor.to(device) for tensor in tensors]


def seconds(tensors: list[torch.Tensor], backend: str, device: str) -> float:
    began = time.perf_counter()
    selective_scan(*tensors, backend=backend)  # type: ignore[arg-type]
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--device", default="cpu")
    told = parsed(parser, line)
    device = told.device
    lengths, rounds = (TOKENS[:1], 1) if told.quick else (TOKENS, ROUNDS)
    usable = []
    for backend in BACKENDS:
        try:
            usable.append(choose_backend(backend, torch.device(device)))
        except DeviceError as error:
            print(f"{backend}: left out: {error.message}")
    rows = []
    with torch.inference_mode():
        for tokens in lengths:
            tensors = inputs(tokens, device)
            names = [name for name in usable if name != "reference" or tokens <= SLOW]
            times: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    times[name].append(seconds(tensors, name, device))
            rows.append({"tokens": tokens, "seconds": times})
            print(tokens, {name: round(statistics.median(t), 4) for name, t in times.items()})
    result = {
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "machine": platform.machine(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "channels": CHANNELS, "states": STATES, "rows": rows,
    }  # fmt: skip
    write(told.output / f"scan_{device.split(':')[0]}.json", result)


if __name__ == "__main__":
    main()
