"""Engines by name: the file `flarekit/engine/x.py` is the engine `x`.

Each such file defines `create(networks, grid, *, class_count, device, precision, ...)`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import DeviceError, PredictorError, UsageError
from flarekit.core.grid import Grid
from flarekit.core.registry import Registry, near_miss
from flarekit.core.spec import HalfPrecision
from flarekit.engine._pace import TilePace
from flarekit.engine._restoration import Restoration
from flarekit.engine._schedule import Schedule, Tile
from flarekit.engine._slab import Slab
from flarekit.engine._tiles import TileRow

if TYPE_CHECKING:
    from torch import nn

    from flarekit.engine._sweep import Sweep

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

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16", "fp16")
_REGISTRY = Registry(__name__)
_LOG = logging.getLogger(__name__)
_NO_GPU_MEANT = ("", "none", "void")  # what NVIDIA's runtime takes for it
_GPU_NODES = ("/dev/nvidiactl", "/dev/dxg")  # Linux, WSL
TileProgress = Callable[[int, int], None]  # tiles done, tiles in all


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What computes, as it was chosen: never `auto`.

    Attributes:
        engine: its name.
        device: `cpu`, `cuda:0`, ...
        device_name: the processor's own name.
        precision: `fp32`, `bf16` or `fp16`.
        scan: what computes selective scans, and why nothing faster does; None where the networks
            have none, or they are compiled into the network.
    """

    engine: str
    device: str
    device_name: str
    precision: str
    scan: str | None = None


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is spent on a voxel.

    Attributes:
        step: distance between tiles as a fraction of the tile, in (0, 1].
        mirror_axes: axes (0 is Z) over whose flips, and their combinations, is averaged.
    """

    step: float
    mirror_axes: tuple[int, ...] = ()

    @property
    def runs(self) -> int:
        """How often every tile is run."""
        return 1 << len(self.mirror_axes)


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks that an engine runs as one; their logits are averaged.

    Attributes:
        build: makes them with their trained weights, on the CPU, in PyTorch.
        channels: of their input.
        identity: tells these weights and this architecture from any other.
        folders: where compiled artefacts may lie.
        keep: where new ones go; nowhere where None.
        half_precisions: those in which every activation stays finite.
        onnx: the files, where the networks are ONNX, which PyTorch does not run.
    """

    build: Callable[[], Sequence[nn.Module]]
    channels: int
    identity: str
    folders: tuple[Path, ...] = ()
    keep: Path | None = None
    half_precisions: tuple[HalfPrecision, ...] = ("fp16", "bf16")
    onnx: tuple[Path, ...] = ()


class Engine(Protocol):
    """Runs networks over volumes of any size; several threads may sweep at the same time.

    Attributes:
        grid: tile and step of the window.
        one_time_s: time spent on what later runs find ready (compiling).
    """

    grid: Grid
    one_time_s: float

    @property
    def facts(self) -> EngineFacts:
        """Facts about the engine for the record: its name, device and precision."""
        ...

    def sweep(
        self,
        tensor_CZYX: NDArray[np.float32],
        *,
        effort: Effort | None = None,
        needed_ZYX: NDArray[np.bool_] | None = None,
        pace: TilePace | None = None,
        progress: TileProgress = ...,
        schedule: Schedule | None = None,
    ) -> Sweep:
        """Start a pass over a volume; iterate it for slabs of ascending Z.

        Args:
            tensor_CZYX: float32 on the network's grid, any size.
            effort: the grid's own step and flips where None.
            needed_ZYX: tiles without any such voxel are left out: their voxels are background.
            pace: has the deadline, and is told when tiles are done; no limit where None. Tiles are
                left out for it where there is a schedule, or the window starts in the middle.
            progress: called after every tile.
            schedule: run these tiles and no others, the best of them where time is short.
        """
        ...

    def rows(
        self,
        shape_ZYX: tuple[int, int, int],
        step: float,
        needed_ZYX: NDArray[np.bool_] | None = None,
        *,
        fitted: bool = False,
    ) -> list[TileRow]:
        """Return the tiles that a sweep would run, in its order.

        Args:
            shape_ZYX: of the network's grid.
            step: largest distance between two tiles, as a fraction of the tile.
            needed_ZYX: tiles without any such voxel are left out.
            fitted: let tiles stand over the box of what is needed, instead of over everything.
        """
        ...

    def count_tiles(
        self,
        shape_ZYX: tuple[int, int, int],
        step: float,
        needed_ZYX: NDArray[np.bool_] | None = None,
    ) -> int:
        """Return how many tiles a sweep would run, flips not counted."""
        ...

    @property
    def depth_at_once(self) -> int:
        """Slices that are run together: of a tile, or of a group of them for a 2D network."""
        ...

    def warm_up(self, channels: int) -> None:
        """Run blank tiles, so that the memory they take is taken."""
        ...

    def seconds_per_tile(self, tile_CZYX: NDArray[np.float32]) -> float:
        """Run a tile of a real scan and return its time, in seconds; of a 2D network, a group's."""
        ...

    def release(self) -> None:
        """Give back what a device holds between cases."""
        ...


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
    """Find out whether a device is here and computes in a precision, without a network.

    Args:
        device: as `create` takes it.
        precision: likewise.

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
