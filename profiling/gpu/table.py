"""The last lines of a check: what a reader wants to know first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TIME_S, _MEMORY_MIB = 15.0, 4096.0
_SHOWN_S = 0.02  # stages that take less are left out


def lines(result: Mapping[str, Any]) -> list[str]:
    """Return a short table of a check's result, however little of it there is."""
    steps = result.get("steps", {})
    return [
        *_machine(steps.get("facts", {})),
        *_tests(steps.get("gpu_tests", {})),
        *_scans(steps),
        *_tiles(steps.get("tiles", {})),
        *_cases(steps),
        *_precisions(steps.get("precisions", {})),
        *_networks(steps.get("networks", {})),
        *_memory(steps.get("memory", {})),
        *_trace(steps.get("trace", {})),
        *_faults(steps),
    ]


def _machine(step: Mapping[str, Any]) -> Iterator[str]:
    machine, card = step.get("machine", {}), step.get("card", {})
    packages = machine.get("packages", {})
    yield (
        f"{card.get('name', machine.get('processor', 'unknown'))}, torch {packages.get('torch')}, "
        f"triton {packages.get('triton')}, cuDNN {card.get('cudnn')}, "
        f"driver: {machine.get('nvidia_smi')}, compilers: {machine.get('compilers')}"
    )
    first = step.get("first_use_s", {})
    if first:
        yield "first uses, s: " + ", ".join(f"{name} {value}" for name, value in first.items())
    for name, memory in step.get("memory", {}).items():
        if "v1_used_mib" in memory:
            yield f"memory, MiB, {name}: " + ", ".join(f"{k} {v}" for k, v in memory.items())
    if "ceilings" in step:
        yield f"ceilings: {step['ceilings']}"


def _tests(step: Mapping[str, Any]) -> Iterator[str]:
    if step:
        yield f"gpu tests: {step.get('state')}, {step.get('counts', {})}"
    for test in step.get("tests", ()):
        if test["outcome"] == "failed":
            last = (test.get("said") or "").strip().splitlines()[-1:]
            yield f"  failed: {test['test']}: {' '.join(last)[:160]}"


def _scans(steps: Mapping[str, Any]) -> Iterator[str]:
    for name in ("scans", "scans_without_compiler"):
        for process in steps.get(name, {}).get("processes", ()):
            for row in process.get("backends", ()):
                sizes = ", ".join(
                    f"{each['tokens']}: {each['ms']:.3f} ms, error {each['error']:.1e}"
                    for each in row.get("sizes", ())
                )
                chosen = f" = {row['chosen']}" if "chosen" in row else ""
                first = f"first {row.get('first_s')} s, second {row.get('second_s')} s"
                fault = process.get("errors", {}).get(row["backend"], process.get("killed", ""))
                told = f"{first}; {sizes} {fault}".strip()
                yield f"{name}, {row['backend']}{chosen}: {told}"[:400]
        for row in steps.get(name, {}).get("left_out", ()):
            yield f"{name}, {row['backend']}: left out: {row['why']}"


def _tiles(step: Mapping[str, Any]) -> Iterator[str]:
    for row in step.get("rows", ()):
        kinds = "; ".join(
            f"{each['precision']}: finite {each.get('finite')}, equal {each.get('equal')}, "
            f"least Dice {each.get('least_dice')}"
            for each in row.get("precisions", ())
        )
        yield f"tile of {row['predictor']}: {kinds or row.get('skipped')}"
        for layout in ("contiguous", "channels_last"):
            told = " | ".join(
                _layout(each) for each in row.get("layouts", ()) if each["layout"] == layout
            )
            if told:
                yield f"  {layout}: {told}"


def _layout(row: Mapping[str, Any]) -> str:
    if "fault" in row:
        return f"{row['batch']}: {row['fault'][:60]}"
    launches = f", {row['launches']} launches, busy {row['busy']:.2f}" if "launches" in row else ""
    peak = f", {row['peak_reserved_mib']:.0f} MiB" if "peak_reserved_mib" in row else ""
    return f"{row['batch']}: {row.get('ms_each', 0):.2f} ms each{launches}{peak}"


def _cases(steps: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        row
        for name in ("cases", "cases_eight", "paper_sizes")
        for row in steps.get(name, {}).get("cases", ())
    ]
    if "predictor" in steps.get("cases_eight", {}).get("all_in_one", {}):
        rows.append({"size": "all", **steps["cases_eight"]["all_in_one"]})
    if rows:
        yield "predictor                size   time s  GPU MiB  area MiB s  stages"
    for row in rows:
        yield _case(row)


def _case(row: Mapping[str, Any]) -> str:
    name = f"{row['predictor'][:23]:<24} {row['size']!s:>4}"
    if "time_s" not in row:
        return f"{name}  {row.get('skipped', 'failed: see errors')}"
    over = ""
    time_s, memory, area = row["time_s"], row["max_gpu_mib"], row["gpu_area_mib_s"]
    if time_s > _TIME_S or (isinstance(memory, float) and memory > _MEMORY_MIB):
        over = "  OVER"
    bad = f"  FAILED {row['failures']}" if row["failures"] else ""
    empty = "" if any(row.get("voxels", {}).values()) else "  EMPTY MASK"
    if "weights" in row:
        empty = "  random weights"
    stages = " ".join(
        f"{key} {value:.2f}" for key, value in row.get("stages", {}).items() if value > _SHOWN_S
    )
    shown = (f"{each:.0f}" if isinstance(each, float) else "-" for each in (memory, area))
    numbers = " ".join(f"{each:>10}" for each in shown)
    return f"{name} {time_s:>8.2f} {numbers}  {stages}{over}{bad}{empty}"


def _precisions(step: Mapping[str, Any]) -> Iterator[str]:
    if "skipped" in step:
        yield f"precisions: {step['skipped']}"
    for row in step.get("rows", ()):
        if "equal" in row:
            told = f"equal {row['equal']}, least Dice {row['least_dice']}"
            yield f"{row['predictor']} {row['precision']} against fp32: {told}"


def _networks(step: Mapping[str, Any]) -> Iterator[str]:
    for row in step.get("networks", ()):
        half, full = row.get("half", {}), row.get("fp32", {})
        yield (
            f"{row['network']} {row['input']}: {half.get('ms')} ms in half, {full.get('ms')} ms in "
            f"fp32, finite {half.get('finite')}, peak {half.get('peak_reserved_mib')} MiB"
        )


def _memory(step: Mapping[str, Any]) -> Iterator[str]:
    for row in step.get("rows", ()):
        for name in ("no_limit", "default_limit"):
            each = row.get(name, {})
            told = {key: value for key, value in each.items() if key.startswith("peak")}
            yield f"{row['predictor']} {name}: exit code {each.get('exit_code')}, {told}"
        for each in row["forced"] if isinstance(row.get("forced"), list) else ():
            notes = [case.get("traded") for case in each["told"].get("cases", ())]
            equal = f"exit code {each['exit_code']}, equal {each['equal']}, {notes}"
            yield f"  with {each['allowed_mib']:.0f} MiB: {equal}"[:240]


def _trace(step: Mapping[str, Any]) -> Iterator[str]:
    for row in step.get("rows", ()):
        kept = ("traced_s", "from_first_to_last_s", "busy_s", "idle_s", "copies_s")
        yield f"trace of {row['predictor']}: { {key: row[key] for key in kept if key in row} }"
        for each in row.get("longest", ()):
            yield f"  {each['s']:.4f} s in {each['times']} x {each['what'][:90]}"


def _faults(steps: Mapping[str, Any]) -> Iterator[str]:
    for name, step in steps.items():
        for what, fault in step.get("errors", {}).items():
            yield f"ERROR in {name}, {what}: {fault[:300]}"
        if step.get("state") in ("failed", "cut", "skipped"):
            last = (step.get("log") or "").strip().splitlines()[-1:]
            yield f"{name}: {step['state']}, {step.get('why')} {' '.join(last)[:200]}"
