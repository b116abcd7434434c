"""Where the time of a large case goes: what the device does, copies, and gaps between them.

The whole case runs under torch's profiler in a process that ran a case before, so that no first
use is among it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from gpu import inputs
from gpu.predicting import find, predict_here
from gpu.supervise import Settings
from gpu.tiles import busy_s, device_spans
from gpu.worker import Record

_LINES = 12
_LONG_GAP_S = 0.001
_LEAST_S = 5.0


def run(settings: Settings, record: Record) -> None:
    for name in settings.predictors[: 1 if settings.quick else 2]:
        if settings.left_s < _LEAST_S:
            record.append("rows", {"predictor": name, "skipped": "no time left"})
            continue
        row: dict[str, Any] = {"predictor": name}
        with record.attempt(name):
            row |= _traced(settings, name)
        record.append("rows", row)


def _traced(settings: Settings, name: str) -> dict[str, Any]:
    from torch.profiler import ProfilerActivity, profile

    convention = find(name).spec.convention
    small = inputs.wait_for(settings, convention, 55)
    large = inputs.wait_for(settings, convention, 55 if settings.quick else 554)
    if small is None or large is None:
        return {"skipped": "its input was not ready in time"}
    first = predict_here(settings, name, small)
    warm = predict_here(settings, name, small)
    plain = predict_here(settings, name, large)
    cuda = settings.device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
        traced = predict_here(settings, name, large)
    row: dict[str, Any] = {
        "first_case": first.note(),
        "same_case_warm": warm.note(),
        "large_case": plain.note(),
        "traced_s": round(traced.seconds, 3),
    }
    if cuda:
        return row | summary(device_spans(seen))
    table = seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=_LINES)
    return row | {"operations": table.splitlines()}


def summary(spans: list[tuple[float, float, str]]) -> dict[str, Any]:
    """Return seconds that the device is busy, copies and idles between its first and last span."""
    if not spans:
        return {"device": "nothing ran on it"}
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    gaps, end = [], spans[0][1]
    for first, last, name in spans:
        seconds[name] += last - first
        counts[name] += 1
        gaps.append(max(0.0, first - end))
        end = max(end, last)
    copies = {name: value for name, value in seconds.items() if name.startswith("Memcpy")}
    longest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:_LINES]
    return {
        "from_first_to_last_s": round(end - spans[0][0], 4),
        "busy_s": round(busy_s(spans), 4),
        "idle_s": round(sum(gaps), 4),
        "idle_in_gaps_over_1_ms_s": round(sum(gap for gap in gaps if gap > _LONG_GAP_S), 4),
        "longest_gaps_s": [round(gap, 4) for gap in sorted(gaps, reverse=True)[:_LINES]],
        "spans": len(spans),
        "copies_s": {name: round(value, 4) for name, value in copies.items()},
        "longest": [
            {"what": name[:120], "s": round(seconds[name], 4), "times": counts[name]}
            for name in longest
        ],
    }
