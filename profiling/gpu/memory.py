"""Memory of a whole run: peaks against the cap, and what happens where it does not suffice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from gpu import inputs
from gpu.device import Nvml, cuda_memory
from gpu.predicting import Prediction, agreement, find, masks_of, predict_here
from gpu.scans import mapped_libraries
from gpu.supervise import Settings
from gpu.worker import Record

_LEAST_S = 3.0
_SHARES = (0.7, 0.4)  # of what a run reserves where it may
_WATCH_S = 0.01


def run(settings: Settings, record: Record) -> None:
    """Run the default predictor and the first one with a selective scan."""
    wanted = [name for name in settings.predictors if name not in settings.untrained]
    mamba = [name for name in wanted if "mamba" in find(name).spec.architecture.name]
    for name in dict.fromkeys([*wanted[:1], *mamba[:1]]):
        row: dict[str, Any] = {"predictor": name}
        record.append("rows", row)
        with record.attempt(name):
            _look(settings, record, row, name)
        record.write()
    record.add(libraries=mapped_libraries())


def _look(settings: Settings, record: Record, row: dict[str, Any], name: str) -> None:
    size = 55 if settings.quick else 215
    folder = inputs.wait_for(settings, find(name).spec.convention, size)
    if folder is None or settings.left_s < _LEAST_S:
        row["skipped"] = "no time left"
        return
    whole, peaks = _watched(settings, name, folder, ["--gpu-memory-budget", "0"])
    row["no_limit"] = {**whole.note(), **peaks}
    record.write()
    capped, capped_peaks = _watched(settings, name, folder, [])
    row["default_limit"] = {**capped.note(), **capped_peaks}
    if settings.device != "cuda":
        row["forced"] = "a CPU has no device memory to run out of"
        return
    row["forced"] = []
    for share in _SHARES:
        if settings.left_s < _LEAST_S:
            return
        with record.attempt(f"{name} at {share}"):
            allowed_mib = share * peaks["peak_reserved_mib"]
            done, seen = _short_of_memory(settings, name, folder, allowed_mib)
            agree = agreement(masks_of(whole.masks), masks_of(done.masks))
            row["forced"].append({"allowed_mib": allowed_mib, **done.note(), **seen, **agree})
            record.write()


def _short_of_memory(
    settings: Settings, name: str, folder: Path, allowed_mib: float
) -> tuple[Prediction, dict[str, Any]]:
    """Run with so much memory for torch, which the run itself does not know of."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(allowed_mib * 2**20 / total)
    try:
        return _watched(settings, name, folder, ["--gpu-memory-budget", "0"])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _watched(
    settings: Settings, name: str, folder: Path, extra: list[str]
) -> tuple[Prediction, dict[str, Any]]:
    """Run, and return the peaks that NVML and torch saw."""
    import torch

    nvml, most, over = Nvml(), [0.0], threading.Event()

    def look() -> None:
        while not over.wait(_WATCH_S):
            most[0] = max(most[0], nvml.memory().get("v1_total_less_free_mib", 0.0))

    if settings.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = nvml.memory()
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        done = predict_here(settings, name, folder, extra)
    finally:
        over.set()
        watcher.join()
    peaks = {"before": before, "after": nvml.memory(), "peak_nvml_mib": most[0]}
    return done, peaks | (cuda_memory() if settings.device == "cuda" else {})
