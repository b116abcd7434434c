"""Run a command and measure it: what the benchmarks beside this file share."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from flarekit.engine._cpu import cpu_capability, cpu_name, cpu_runs_bf16

HERE = Path(__file__).parent
QUICK_MM = (8.0, 8.0, 8.0)  # voxels of a phantom in a quick run
_EVERY_S = 0.02
# pip compiles modules; where Python may not keep that, every start compiles this package again
_AS_INSTALLED = {"PYTHONDONTWRITEBYTECODE": ""}


def bare_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a script's docstring as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that most scripts have."""
    parser = bare_parser(description)
    parser.add_argument("--quick", action="store_true", help="small sizes, once: does it all run?")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the result")
    return parser


def parsed(parser: argparse.ArgumentParser, line: Sequence[str] | None) -> argparse.Namespace:
    """Parse a line; a quick run's figures mean nothing, and never replace those that do."""
    told = parser.parse_args(line)
    if told.quick and told.output == HERE:
        parser.error("--quick measures nothing: name a folder for its result with --output")
    return told


def run(command: Sequence[object], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command to its end.

    Returns:
        wall_s, cpu_s (its children included), peak_rss_mib (summed over its process tree at any one
        moment) and stdout.
    """
    began = time.monotonic()
    before = os.times()
    process = subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, **_AS_INSTALLED, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watched, peak = psutil.Process(process.pid), 0.0
    while process.poll() is None:
        peak = max(peak, _tree_rss_mib(watched))
        time.sleep(_EVERY_S)
    wall_s = time.monotonic() - began
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}:\n{err[-2000:]}")
    after = os.times()
    cpu_s = sum(
        getattr(after, k) - getattr(before, k) for k in ("children_user", "children_system")
    )
    return {
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 2),
        "peak_rss_mib": round(peak, 1),
        "stdout": out,
    }


def _tree_rss_mib(process: psutil.Process) -> float:
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0.0
    for each in family:
        try:
            total += each.memory_info().rss
        except psutil.Error:
            continue
    return total / 2**20


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "processor": cpu_name(),
        "capability": cpu_capability(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def left_out(wanted: Collection[str]) -> dict[str, str]:
    """Return which precisions are not measured on this processor and why, and say so."""
    why = f"{cpu_name()} does not compute in it"
    missing = {each: why for each in wanted if not _computes_in(each)}
    for precision in missing:
        print(f"{precision} is left out: {why}", file=sys.stderr)
    return missing


def _computes_in(precision: str) -> bool:
    if precision == "fp16":  # OpenVINO is not asked for it
        import torch

        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())  # noqa: SLF001 - no public one
    return precision == "fp32" or cpu_runs_bf16()


def text_of(result: Mapping[str, Any], *, allow_nan: bool = True) -> str:
    """Return results as JSON, what lies three levels deep or deeper on one line."""
    return re.sub(r"\n {3,}", " ", json.dumps(result, indent=1, allow_nan=allow_nan)) + "\n"


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write results as data, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(result), encoding="utf-8")
    print(path)
