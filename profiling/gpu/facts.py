"""What the machine is, what its first uses cost, and the ceilings that everything else is under."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu.device import Nvml, cuda_memory, mib, ms_each, synchronize
from gpu.supervise import Settings
from gpu.worker import Record

PACKAGES = ("torch", "triton", "numpy", "scipy", "safetensors", "nvidia-ml-py", "mamba-ssm", "isal")
COMPILERS = ("cc", "gcc", "g++", "clang", "nvcc", "ptxas")


def run(settings: Settings, record: Record) -> None:
    record.add(machine=machine())
    nvml = Nvml()
    memory: dict[str, Any] = {"idle": nvml.memory()}
    seconds: dict[str, float] = {}
    record.add(memory=memory, first_use_s=seconds)

    def timed(name: str, began: float) -> None:
        synchronize(settings.device)
        seconds[name] = round(time.perf_counter() - began, 4)
        memory[name] = nvml.memory() | (cuda_memory() if settings.device == "cuda" else {})
        record.write()

    began = time.perf_counter()
    import torch

    seconds["import_torch"] = round(time.perf_counter() - began, 4)
    if settings.device == "cuda":
        began = time.perf_counter()
        torch.zeros(1, device="cuda")
        timed("context", began)
        with record.attempt("card"):
            record.add(card=card())
    with torch.inference_mode():
        convolve = _convolution(settings)
        for name in ("first_convolution", "second_convolution"):
            with record.attempt(name):
                began = time.perf_counter()
                convolve()
                timed(name, began)
        scan = _scan(settings)
        for name in ("first_scan", "second_scan"):
            with record.attempt(name):
                began = time.perf_counter()
                scan()
                timed(name, began)
        with record.attempt("ceilings"):
            record.add(ceilings=ceilings(settings))


def machine() -> dict[str, Any]:
    """Return versions, compilers, processor and memory."""
    import psutil

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    found = {name: shutil.which(name) for name in COMPILERS}
    smi = shutil.which("nvidia-smi")
    asked = "name,driver_version,memory.total,memory.used,persistence_mode,mig.mode.current"
    told = None
    if smi:
        line = [smi, f"--query-gpu={asked}", "--format=csv,noheader"]
        answer = subprocess.run(line, check=False, capture_output=True, text=True, timeout=20)
        told = (answer.stdout or answer.stderr).strip()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "ram_mib": mib(psutil.virtual_memory().total),
        "packages": versions,
        "compilers": {name: path for name, path in found.items() if path} or "none",
        "cc": os.environ.get("CC"),
        "nvidia_smi": told,
    }


def card() -> dict[str, Any]:
    """Return what torch says of the card and of the libraries it brings."""
    import torch

    facts = torch.cuda.get_device_properties(0)
    return {
        "name": facts.name,
        "capability": f"{facts.major}.{facts.minor}",
        "multiprocessors": facts.multi_processor_count,
        "total_mib": mib(facts.total_memory),
        "torch_cuda": torch.version.cuda,
        "architectures": torch.cuda.get_arch_list(),
        "cudnn": torch.backends.cudnn.version(),
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
    }


def ceilings(settings: Settings) -> dict[str, float]:
    """Return copy bandwidth (read and written) and the rates of square matrix products."""
    import torch

    big = settings.device == "cuda" and not settings.quick
    count, side = (2**28, 8192) if big else (2**22, 256)
    source = torch.ones(count, device=settings.device)
    target = torch.empty_like(source)
    ms = ms_each(partial(target.copy_, source), settings.device)
    found = {"copy_gb_s": 8 * count / ms / 1e6}
    del source, target
    for name in ("float16", "bfloat16", "float32"):
        a = torch.randn(side, side, device=settings.device).to(getattr(torch, name))
        b = a.clone()
        ms = ms_each(partial(torch.matmul, a, b), settings.device)
        found[f"product_{name}_tflops"] = 2 * side**3 / ms / 1e9
    return {name: round(value, 2) for name, value in found.items()}


def _convolution(settings: Settings) -> Any:  # noqa: ANN401
    import torch

    network = torch.nn.Conv3d(16, 16, 3, padding=1).to(settings.device)
    image = torch.randn(1, 16, 16, 64, 64, device=settings.device)

    def convolve() -> None:
        with torch.autocast(settings.device, torch.bfloat16):
            network(image)

    return convolve


def _scan(settings: Settings) -> Any:  # noqa: ANN401
    from flarekit.models.selective_scan import selective_scan
    from gpu.scans import tensors

    given = tensors(100, 16, settings.device)
    return lambda: selective_scan(*given)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
