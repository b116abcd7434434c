"""The selective scan's backends: what the first use costs, errors, times, mapped libraries.

Each backend runs in a process of its own, which has not compiled anything before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from gpu.device import ms_each, synchronize
from gpu.supervise import WORKER, Settings
from gpu.worker import Record

# tokens, channels, batch: the first three are scans of att_umamba_petct, mamba_clinix_abdomen and
# mamba_ahnet_lesion (16 slices at once)
SIZES = ((100, 384, 1), (2_240, 256, 1), (9_216, 64, 16), (100_000, 64, 1))
_QUICK = ((100, 16, 1), (300, 16, 2))
_STATES = 16
_LEAST_S = 3.0
_SLOW = 2_240  # the reference is not asked for more tokens than this


def run(settings: Settings, record: Record, which: str = "each") -> None:
    """Try the backends that the device has.

    Args:
        settings: of the check.
        record: gets a row for every process.
        which: `each`: one after the other, with times; `first`: side by side, what the first use
            costs and whether it works; else the names of backends, in this process.
    """
    import torch

    from flarekit.core.errors import DeviceError
    from flarekit.models.selective_scan import BACKENDS, choose_backend

    if which not in ("each", "first"):
        for backend in which.split("+"):
            record.append("backends", tried := {"backend": backend})
            with record.attempt(backend):
                _try(settings, record, tried, backend)
        record.add(libraries=mapped_libraries())
        return
    record.add(path=os.environ.get("PATH", ""), cc=os.environ.get("CC"))
    processes = ["auto", "chunked+reference"] if which == "each" else ["auto"]
    for backend in BACKENDS:
        try:
            choose_backend(backend, torch.device(settings.device))
        except DeviceError as error:
            record.append("left_out", {"backend": backend, "why": error.message})
            continue
        if backend not in ("chunked", "reference"):
            processes.append(backend)
    at_once = 1 if which == "each" else len(processes)
    listed: set[str] = set()
    with ThreadPoolExecutor(at_once) as pool:
        for told in pool.map(partial(_apart, settings), processes):
            if mapped := told.get("libraries"):  # those of processes before it are not listed again
                told["libraries"] = [each for each in mapped if each not in listed]
                listed.update(mapped)
            record.append("processes", told)


def _apart(settings: Settings, backends: str) -> dict[str, Any]:
    """Run backends in a process of their own and return what it told, also if it was ended."""
    if settings.left_s < _LEAST_S:
        return {"process": backends, "skipped": "no time left"}
    place = Path(settings.work) / "steps"
    stem = f"scan_{backends}_{os.getpid()}"
    told, result = place / f"{stem}.settings", place / f"{stem}.json"
    told.write_text(json.dumps(asdict(settings)))
    line = [sys.executable, str(WORKER), "scans", str(told), str(result), backends]
    # what a step before compiled would make this first use a second one
    environment = {**os.environ, "TRITON_CACHE_DIR": str(Path(settings.work) / stem)}
    ended: dict[str, Any] = {}
    began = time.time()
    try:
        done = subprocess.run(
            line,
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=max(1.0, settings.left_s),
        )
        if done.returncode:
            ended = {"exit_code": done.returncode, "said": done.stderr[-1500:]}
    except subprocess.TimeoutExpired:
        ended = {"killed": "its time was up"}
    content = json.loads(result.read_text()) if result.is_file() else {}
    return {"process": backends, **content, **ended, "seconds": round(time.time() - began, 2)}


def _try(settings: Settings, record: Record, told: dict[str, Any], backend: Any) -> None:  # noqa: ANN401
    import torch

    from flarekit.models.selective_scan import SelectiveScan, selective_scan

    device = torch.device(settings.device)
    torch.zeros(1, device=device)
    synchronize(settings.device)
    sizes = _QUICK if settings.quick else SIZES
    with torch.inference_mode():
        given = tensors(*sizes[0][:2], settings.device)
        for name in ("first_s", "second_s"):
            began = time.perf_counter()
            selective_scan(*given, backend=backend)
            synchronize(settings.device)
            told[name] = round(time.perf_counter() - began, 4)
            record.write()
        if backend == "auto":
            told["chosen"] = SelectiveScan.computed_by(device)
        for tokens, channels, batch in sizes:
            if (backend == "reference" and tokens > _SLOW) or settings.left_s < 1:
                continue
            given = tensors(tokens, channels, settings.device, batch)
            scan = partial(selective_scan, *given, backend=backend)
            rounds = 3 if backend == "reference" or settings.quick else 20
            row = {
                "tokens": tokens,
                "channels": channels,
                "batch": batch,
                "ms": ms_each(scan, settings.device, rounds=rounds, most_s=0.5),
                "error": _error(scan(), given),
            }
            told.setdefault("sizes", []).append(row)
            record.write()


def tensors(tokens: int, channels: int, device: str, batch: int = 1) -> list[Any]:
    """Return u, delta, A, B, C, D of a scan from a seed."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, channels, tokens), (batch, channels, tokens), (channels, _STATES),
              (batch, _STATES, tokens), (batch, _STATES, tokens), (channels,))  # fmt: skip
    u, delta, A, B, C, D = (torch.randn(shape, generator=generator) for shape in shapes)
    given = (u, torch.nn.functional.softplus(delta - 2), -torch.exp(A), B, C, D)
    return [tensor.to(device) for tensor in given]


def mapped_libraries() -> list[str]:
    """Return the shared libraries that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split(maxsplit=5)[5] for line in lines if ".so" in line})


def _error(found: Any, given: list[Any]) -> float:  # noqa: ANN401
    """Return the largest error, over the largest value, against a scan in float64.

    The float64 scan is the chunked one, which needs no kernel; tests compare it with the reference.
    """
    import torch

    from flarekit.models.selective_scan import selective_scan

    exact = selective_scan(*(tensor.double() for tensor in given), backend="chunked")
    worst = (found.double() - exact).abs().max() / exact.abs().max()
    return float(worst) if torch.isfinite(worst) else float("inf")
