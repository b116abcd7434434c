"""What an engine is made of, what it says of itself, and how much is spent on a voxel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flarekit.core.spec import HalfPrecision

if TYPE_CHECKING:
    from torch import nn

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
