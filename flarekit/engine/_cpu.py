"""What the processor is, and what its instructions can do."""

import re
from functools import cache
from pathlib import Path

# instruction sets that decide which kernels run, slowest first
_CAPABILITIES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")


def cpu_has_bf16() -> bool:
    """Return whether products of bfloat16 are an instruction."""
    return bool({"avx512_bf16", "amx_bf16"} & _flags())


def cpu_runs_bf16() -> bool:
    """Return whether OpenVINO computes in bfloat16 here, by instructions or in their place."""
    return cpu_has_bf16() or "avx512f" in _flags()


def cpu_name() -> str:
    """Return the processor's own name."""
    match = re.search(r"^model name\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    return match[1].strip() if match else "CPU"


def cpu_capability() -> str:
    """Return the instruction sets that decide which kernels run, joined by commas."""
    return ",".join(name for name in _CAPABILITIES if name in _flags()) or "baseline"


def _flags() -> set[str]:
    match = re.search(r"^flags\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    return set(match[1].split()) if match else set()


@cache
def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
