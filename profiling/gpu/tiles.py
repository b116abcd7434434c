"""One tile of every predictor: finite, equal, how long, how many launches, how much memory.

The network and the tile are those of a real run, caught on their way: of all tiles of an input the
one with the largest spread. In bf16 and fp16 the network runs under autocast.
"""

from __future__ import annotations

import time
from typing import Any

from gpu import inputs
from gpu.device import cuda_memory, ms_each, synchronize
from gpu.predicting import FirstTile, find, predict_here
from gpu.supervise import Settings
from gpu.worker import Record

BATCHES = (1, 2, 4, 8)
_LEAST_S = 3.0


def run(settings: Settings, record: Record) -> None:
    for name in settings.predictors:
        if settings.left_s < _LEAST_S:
            record.append("rows", {"predictor": name, "skipped": "no time left"})
            continue
        row: dict[str, Any] = {"predictor": name}
        if name in settings.untrained:
            row["weights"] = "random: what is finite and equal says nothing of the trained ones"
        record.append("rows", row)
        with record.attempt(name):
            _look(settings, record, row, name)
        record.write()


def _look(settings: Settings, record: Record, row: dict[str, Any], name: str) -> None:
    import torch

    folder = inputs.wait_for(settings, find(name).spec.convention, 55)
    if folder is None:
        row["skipped"] = "its input was not ready in time"
        return
    with FirstTile() as seen:
        done = predict_here(settings, name, folder, ["--precision", "fp32"])
    row["run"] = done.note()
    network = seen.network.to(settings.device).float()
    tile = seen.tile[:1].to(settings.device).float()
    if settings.quick:
        tile = tile[..., : min(64, tile.shape[-2]), : min(64, tile.shape[-1])]
        tile = tile[:, :, :16] if tile.ndim == 5 else tile  # noqa: PLR2004 - B C Z Y X
    row["tile"] = list(tile.shape)
    with torch.inference_mode():
        row["precisions"] = compare(network, tile, settings.device)
        record.write()
        row["layouts"] = time_layouts(network, tile, settings)


def compare(network: Any, tile: Any, device: str) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return share of finite logits, of equal classes, and Dice against fp32 without TF32."""
    import torch

    kinds = [("fp32", torch.float32, False), ("fp32, TF32 on", torch.float32, True)]
    kinds += [("bf16", torch.bfloat16, True), ("fp16", torch.float16, True)]
    rows, exact = [], None
    for kind, dtype, tf32 in kinds:
        _allow_tf32(tf32)
        row: dict[str, Any] = {"precision": kind}
        try:
            logits = _run(network, tile, device, dtype)
            row["finite"] = float(torch.isfinite(logits).float().mean())
            row["largest"] = float(logits.abs().nan_to_num(posinf=3e38).max())
            classes = logits.argmax(1)
            if exact is None:
                exact = classes
            row["equal"] = round(float((classes == exact).float().mean()), 7)
            row["least_dice"], row["dice"] = _dice(exact, classes, logits.shape[1])
        except RuntimeError as error:
            row["fault"] = str(error)[:500]
        rows.append(row)
    _allow_tf32(False)
    return rows


def time_layouts(network: Any, tile: Any, settings: Settings) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return ms a tile, launches and the share of time in which the device computes."""
    import torch

    flat = tile.ndim == 4  # noqa: PLR2004 - B C Y X
    last = torch.channels_last if flat else torch.channels_last_3d
    half = torch.float16 if settings.device == "cuda" else torch.bfloat16
    batches = BATCHES[:1] if settings.quick else BATCHES
    unit = 16 if flat and not settings.quick else 1  # slices that a 2D network gets at once
    rows: list[dict[str, Any]] = []
    for layout, form in (("contiguous", torch.contiguous_format), ("channels_last", last)):
        network.to(memory_format=form)
        for batch in batches:
            if settings.left_s < 1:
                return rows
            given = tile.repeat(batch * unit, *[1] * (tile.ndim - 1)).contiguous(memory_format=form)
            row: dict[str, Any] = {"layout": layout, "batch": batch * unit, "precision": str(half)}
            try:
                if settings.device == "cuda":
                    torch.cuda.reset_peak_memory_stats()

                def work(given: Any = given) -> Any:  # noqa: ANN401
                    return _run(network, given, settings.device, half)

                rounds = 2 if settings.quick else 10
                ms = ms_each(work, settings.device, rounds=rounds, most_s=0.15)
                row["ms_each"] = round(ms / (batch * unit), 4)
                row |= launches(work, settings.device)
                if settings.device == "cuda":
                    row |= cuda_memory()
            except RuntimeError as error:  # out of memory, mostly
                row["fault"] = str(error)[:300]
            rows.append(row)
    network.to(memory_format=torch.contiguous_format)
    return rows


def launches(work: Any, device: str) -> dict[str, Any]:  # noqa: ANN401
    """Return kernels and copies of one call and the share of its time that they take; on CUDA."""
    if device != "cuda":
        return {}
    from torch.profiler import ProfilerActivity, profile

    synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        began = time.perf_counter()
        work()
        synchronize(device)
        spent = time.perf_counter() - began
    spans = device_spans(seen)
    return {"launches": len(spans), "busy": round(busy_s(spans) / spent, 4)}


def device_spans(seen: Any) -> list[tuple[float, float, str]]:  # noqa: ANN401 - a torch profile
    """Return start and end in seconds, and name, of everything that ran on the device."""
    from torch.autograd import DeviceType  # type: ignore[attr-defined]

    spans = [
        (event.time_range.start / 1e6, event.time_range.end / 1e6, event.name)
        for event in seen.events()
        if event.device_type == DeviceType.CUDA
    ]
    return sorted(spans)


def busy_s(spans: list[tuple[float, float, str]]) -> float:
    """Return the time that is covered by spans, which are sorted and may overlap."""
    total, end = 0.0, float("-inf")
    for first, last, _ in spans:
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def _run(network: Any, given: Any, device: str, dtype: Any) -> Any:  # noqa: ANN401
    import torch

    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        logits = network(given)
    return logits.float()


def _allow_tf32(allowed: bool) -> None:
    import torch

    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def _dice(first: Any, second: Any, classes: int) -> tuple[float | None, dict[str, float]]:  # noqa: ANN401
    found = {}
    for label in range(1, classes):
        a, b = first == label, second == label
        either = int(a.sum()) + int(b.sum())
        if either:
            found[str(label)] = round(2 * int((a & b).sum()) / either, 6)
    return min(found.values(), default=None), found
