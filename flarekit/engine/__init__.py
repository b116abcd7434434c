"""Engines by name: the file `flarekit/engine/x.py` is the engine `x`.

Each such file defines `create(build_networks, grid, *, class_count, device, precision) -> Engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import UsageError
from flarekit.core.spec import Grid

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PRECISIONS", "Engine", "EngineFacts", "Precision", "TileProgress", "create", "names"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16", "fp16")
TileProgress = Callable[[int, int], None]  # tiles done, tiles in all


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What computes, as it was chosen: never `auto`.

    Attributes:
        engine: its name.
        device: `cpu`, `cuda:0`, ...
        device_name: the processor's own name.
        precision: `fp32`, `bf16` or `fp16`.
    """

    engine: str
    device: str
    device_name: str
    precision: str


class Engine(Protocol):
    """Runs one network, or several as one, over volumes of any size."""

    @property
    def facts(self) -> EngineFacts:
        """What computes."""
        ...

    def predict(
        self, tensor_CZYX: NDArray[np.float32], progress: TileProgress
    ) -> NDArray[np.uint8]:
        """Return the class index of every voxel, (Z, Y, X).

        Args:
            tensor_CZYX: float32 on the network's grid, any size.
            progress: called after every batch of tiles.
        """
        ...

    def logits(
        self, tensor_CZYX: NDArray[np.float32], progress: TileProgress
    ) -> NDArray[np.float32]:
        """Return the mean logits of every voxel, (K, Z, Y, X): for those who resample them.

        Args:
            tensor_CZYX: float32 on the network's grid, any size.
            progress: called after every batch of tiles.
        """
        ...


def names() -> tuple[str, ...]:
    """Return the names of all engines, sorted."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def create(
    name: str,
    build_networks: Callable[[], Sequence[nn.Module]],
    grid: Grid,
    *,
    class_count: int,
    device: str = "auto",
    precision: Precision = "auto",
) -> Engine:
    """Get an engine ready to predict.

    Args:
        name: one of `names()`.
        build_networks: makes the networks with their trained weights, on the CPU; the logits of
            several are averaged.
        grid: tile and step of the sliding window.
        class_count: classes of the network, background included.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of the network's arithmetic; `auto` takes what the device is fastest at.

    Raises:
        UsageError: no such engine.
        DeviceError: the device or the precision is not available.
        PredictorError: the network cannot be built.
    """
    if name not in names():
        raise UsageError(f"no engine {name!r}", fix=f"known: {', '.join(names())}")
    module = import_module(f"flarekit.engine.{name}")
    engine: Engine = module.create(
        build_networks, grid, class_count=class_count, device=device, precision=precision
    )
    return engine
