"""Engines by name: the file `flarekit/engine/x.py` is the engine `x`.

Each such file defines `create(networks, grid, *, class_count, device, precision, ...)`.
"""

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from flarekit.core.errors import DeviceError, PredictorError, UsageError
from flarekit.core.grid import Grid
from flarekit.core.registry import Registry, near_miss
from flarekit.engine._facts import (
    PRECISIONS,
    Effort,
    EngineFacts,
    Networks,
    Precision,
    TileProgress,
)
from flarekit.engine._pace import TilePace
from flarekit.engine._slab import Restoration, Slab
from flarekit.engine._tiles import Schedule, Tile, TileRow
from flarekit.engine._window import WindowEngine

__all__ = [
    "PRECISIONS",
    "Effort",
    "Engine",
    "EngineFacts",
    "Networks",
    "Precision",
    "Restoration",
    "Schedule",
    "Slab",
    "Tile",
    "TilePace",
    "TileProgress",
    "TileRow",
    "create",
    "names",
]

Engine: TypeAlias = WindowEngine[Any]
_REGISTRY = Registry(__name__)
_LOG = logging.getLogger(__name__)
_NO_GPU_MEANT = ("", "none", "void")  # what NVIDIA's runtime takes for it
_GPU_NODES = ("/dev/nvidiactl", "/dev/dxg")  # Linux, WSL


def names() -> tuple[str, ...]:
    """Return the names of all engines, sorted."""
    return _REGISTRY.names()


def create(
    name: str,
    networks: Networks,
    grid: Grid,
    *,
    class_count: int,
    device: str = "auto",
    precision: Precision = "auto",
    memory_mib: float | None = None,
    deterministic: bool = False,
    later: bool = False,
) -> Engine:
    """Get an engine ready to predict.

    Args:
        name: one of `names()`, or `auto`: OpenVINO on a CPU where it is installed, else torch.
        networks: what to run.
        grid: tile and step of the sliding window.
        class_count: classes of the network, background included.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of the network's arithmetic; `auto` takes what the device is fastest at and
            the networks are finite in.
        memory_mib: what may be in use on a CUDA device, the driver's share included.
        deterministic: the same bits in every run on the same device, if more slowly; a CPU gives
            them anyway.
        later: networks that need nothing but to be read from disk are loaded when they first run,
            or by the engine's `load`.

    Raises:
        UsageError: no such engine.
        DeviceError: the device or the precision is not available.
        PredictorError: the network cannot be built.
    """
    if name == "auto":
        name = _engine_of_onnx(networks, device) if networks.onnx else choose_engine(device)
    if name not in names():
        raise UsageError(f"no engine {name!r}", fix=near_miss(name, ("auto", *names())))
    try:
        engine: Engine = _REGISTRY.load(name).create(
            networks,
            grid,
            class_count=class_count,
            device=device,
            precision=precision,
            memory_mib=memory_mib,
            deterministic=deterministic,
            later=later,
        )
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the engine {name!r} needs {error.name}, which is not installed",
            fix=f"pip install {error.name}",
        ) from error
    return engine


def _engine_of_onnx(networks: Networks, device: str) -> str:
    """Return the engine that reads ONNX.

    Raises:
        DeviceError: a GPU is asked for.
    """
    if device not in ("auto", "cpu"):
        raise DeviceError(
            f"{networks.onnx[0]}: an ONNX network runs with OpenVINO on the CPU, not on {device!r}",
            fix="use --device cpu, or save the network for PyTorch: see docs/own_networks.md",
        )
    if device == "auto" and sees_gpu():
        _LOG.warning("the GPU here stays unused: an ONNX network runs with OpenVINO on the CPU")
    return "openvino"


def choose_engine(device: str) -> str:
    """Return the engine that `auto` means for a device request.

    Where a GPU seems to be there it is opened, since a driver may be too old for this torch; torch,
    whose import takes a second, is not imported otherwise. A GPU that stays unused is named.

    Raises:
        DeviceError: a CUDA device is asked for and torch is not installed.
    """
    has_torch, has_openvino = (find_spec(name) is not None for name in ("torch", "openvino"))
    if not has_torch and device.startswith("cuda"):
        raise DeviceError(
            f"device {device!r} needs torch, which is not installed here",
            fix="use --device cpu, or an image that has torch (--target flare or gc)",
        )
    if device != "auto":
        return "openvino" if device == "cpu" and has_openvino else "torch"
    if not has_openvino:
        return "torch"
    if not sees_gpu():
        if os.environ.get("NVIDIA_VISIBLE_DEVICES", "none") not in _NO_GPU_MEANT:
            _LOG.warning("no GPU is visible in this container: run it with --gpus")
        return "openvino"
    if not has_torch:
        _LOG.warning("the GPU here stays unused: torch is not installed")
        return "openvino"
    from flarekit.engine.torch import choose_device

    return "torch" if choose_device("auto").type == "cuda" else "openvino"


def check_available(device: str, precision: Precision) -> None:
    """Find out whether a device is here and computes in a precision, as `create` takes them.

    Raises:
        DeviceError: it is not, or does not.
    """
    if choose_engine(device) == "openvino":
        from flarekit.engine.openvino import choose_precision

        choose_precision(precision, ("fp16", "bf16"))
    else:
        from flarekit.engine import torch

        torch.choose_precision(precision, torch.choose_device(device))


def sees_gpu() -> bool:
    """Return whether a GPU's driver seems to be here; it may not work."""
    return any(Path(node).exists() for node in _GPU_NODES)


def check_class_count(given: int, expected: int) -> None:
    """Compare the network's classes with the labels.

    Raises:
        PredictorError: they differ.
    """
    if given != expected:
        raise PredictorError(
            f"the network gives {given} classes, the labels need {expected}",
            fix="make labels and num_classes agree (background counts)",
        )
