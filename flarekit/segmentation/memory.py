"""Memory that a case takes, estimated from shapes before any of it is allocated.

The estimates are upper bounds of what NumPy, the engine and the rules allocate step by step; what
is in use already (the interpreter, the network, the case that computes meanwhile) is measured.
"""

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core import nrrd
from flarekit.core.boxes import box_of
from flarekit.core.errors import BudgetError, InputError
from flarekit.core.metaheader import read_header
from flarekit.core.nifti import read_geometry
from flarekit.core.spec import PredictorSpec
from flarekit.preprocess import Placement

_LOG = logging.getLogger(__name__)
_MIB = 2**20
_FLOAT = 4
_SLICES = 16  # that a 2D network gets together, at most
_SPARE_MIB = 24.0  # what allocators, threads and small arrays take besides
_GROWING = 1.13  # a buffer that grows by appending is up to an eighth longer than its content
_UNKNOWN_FILES = 8  # bytes in memory per byte of a file whose header is not understood
_RULES_PER_VOXEL = 12  # mostly; what they take is known once there are labels
_WRITE_PER_VOXEL = 2
_MEASURE_PER_VOXEL = 16
_DRAWING_MIB = 150.0


@dataclass(kw_only=True)
class Memory:
    """What a run may take.

    Attributes:
        budget_mib: resident memory of this process; None where there is no limit.
        promised_mib: what the case that computes may still allocate; what is begun ahead of its
            turn leaves it alone.
    """

    budget_mib: float | None = None
    promised_mib: float = 0.0

    def usable_mib(self, *, ahead: bool = False) -> float:
        """Return what may still be allocated, in MiB; infinite where there is no limit.

        Args:
            ahead: by a case whose turn has not come.
        """
        if self.budget_mib is None:
            return math.inf
        promised_mib = self.promised_mib if ahead else 0.0
        return max(0.0, self.budget_mib - resident_mib() - promised_mib - _SPARE_MIB)

    def check(self, needed_mib: float, what: str) -> None:
        """Refuse what does not fit, before it is allocated.

        Args:
            needed_mib: how much it takes, at most.
            what: it is, for the message.

        Raises:
            BudgetError: it does not fit.
        """
        usable_mib = self.usable_mib()
        if needed_mib > usable_mib:
            raise BudgetError(
                f"{what} takes up to {needed_mib:.0f} MiB, and of the {self.budget_mib:.0f} MiB "
                f"that are allowed {usable_mib:.0f} MiB are left",
                fix="allow more memory (--ram-budget), or crop the scan",
            )


def resident_mib() -> float:
    """Return the resident memory of this process, in MiB."""
    import psutil

    return int(psutil.Process().memory_info().rss) / _MIB


def begin_peak() -> None:
    """Count the peak of this process's resident memory from now on, where Linux allows that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mib() -> float:
    """Return the peak of this process's resident memory since then, in MiB; 0 if not known."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def reading_mib(files: Sequence[Path]) -> float:
    """Return what reading some volumes takes at most, in MiB, from their headers.

    Files that cannot be understood count with their size; reading them will say what is wrong.
    """
    kept = peak = largest = 0.0
    for path in files:
        held, more = _volume_bytes(path)
        peak = max(peak, kept + held + more)
        kept += held
        largest = max(largest, held)
    moving = 5 * largest if len(files) > 1 else 0.0  # a channel may have to go onto another's grid
    return (peak + moving) / _MIB


def file_mib(paths: Sequence[Path]) -> float:
    """Return how large some files, and those in some folders, are on disk."""
    files = [path for path in paths if path.is_file()]
    files += [each for path in paths if path.is_dir() for each in path.rglob("*") if each.is_file()]
    return sum(path.stat().st_size for path in files) / _MIB


def _volume_bytes(path: Path) -> tuple[float, float]:
    """Return the bytes of a volume's voxels, and what reading them takes besides."""
    try:
        if path.suffix.lower() in (".mha", ".mhd"):
            header = read_header(path)
            return _held(math.prod(header.shape_ZYX), header.dtype.kind, header.dtype.itemsize)
        if path.suffix.lower() == ".nrrd":
            return _nrrd_bytes(path)
        if path.is_file():
            geometry = read_geometry(path)
            dtype, scaled = geometry.header.get_data_dtype(), _is_scaled(geometry.header)
            kind = "f" if scaled else dtype.kind
            held, more = _held(math.prod(geometry.shape_ZYX), kind, dtype.itemsize)
            compressed = path.name.endswith(".gz")
            stored = math.prod(geometry.shape_ZYX) * dtype.itemsize
            return held, more + stored * (_GROWING - 1 if compressed else 1)
    except (InputError, OSError):  # reading it will say what is wrong with it
        _LOG.debug("%s: its header does not give its size", path, exc_info=True)
    return file_mib([path]) * _MIB * _UNKNOWN_FILES, 0.0


def _nrrd_bytes(path: Path) -> tuple[float, float]:
    header = nrrd.read_header(path)
    held, more = _held(math.prod(header.shape_ZYX), header.dtype.kind, header.dtype.itemsize)
    stored = math.prod(header.shape_ZYX) * header.dtype.itemsize
    return held, more + stored * (_GROWING - 1 if header.compressed else 1)


def _held(voxels: int, kind: str, itemsize: int) -> tuple[float, float]:
    """Integers stay as they are stored; all else becomes float32 beside what was stored."""
    if kind in "iu":
        return float(voxels * itemsize), 0.0
    return float(voxels * _FLOAT), float(voxels * (itemsize + 1))


def _is_scaled(header: object) -> bool:
    slope, inter = header.get_slope_inter()  # type: ignore[attr-defined]
    return slope not in (None, 1.0) or inter not in (None, 0.0)


def resampling_mib(placement: Placement) -> float:
    """Return what bringing a case onto a grid takes: its tensor, and one channel on its way."""
    grid, (z, _, _) = placement.shape_ZYX, placement.cropped_shape
    one = math.prod(grid)
    in_plane = z * grid[1] * grid[2]
    return _FLOAT * (placement.channels * one + in_plane + 2 * one) / _MIB


def computing_mib(placement: Placement, spec: PredictorSpec, *, logits: bool = False) -> float:
    """Return what tiles and labels take: the tensor, sums, the slab that leaves them, the mask.

    Args:
        placement: the case.
        spec: the facts that are run.
        logits: whether the logits of the whole grid are kept.
    """
    _, y, x = grid = placement.shape_ZYX
    tile_z, tile_y, tile_x = spec.grid.tile_ZYX
    classes = len(spec.class_values) + 1
    depth = grid[0] if spec.grid.order == "centre" else max(tile_z, _SLICES)
    slab = classes * depth * max(y, tile_y) * max(x, tile_x)
    tensor = placement.channels * math.prod(
        max(n, tile) for n, tile in zip(grid, spec.grid.tile_ZYX, strict=True)
    )
    tile = classes * max(tile_z, _SLICES if tile_z == 1 else 1) * tile_y * tile_x
    _, high, wide = placement.cropped_shape
    slices = 4 * classes * (high * wide + y * x)
    kept = classes * math.prod(grid) if logits else 0
    floats = 2 * tensor + 2 * slab + 3 * tile + slices + kept
    return (_FLOAT * floats + math.prod(placement.stored_shape)) / _MIB


def still_to_come_mib(placement: Placement, spec: PredictorSpec) -> float:
    """Return what a case that is on its grid may allocate from then on."""
    stored, cropped = (
        math.prod(shape) for shape in (placement.stored_shape, placement.cropped_shape)
    )
    labels = stored / _MIB
    after = max((2 * stored + _RULES_PER_VOXEL * cropped) / _MIB, writing_mib(stored))
    return max(computing_mib(placement, spec), labels + after)


def writing_mib(voxels: int) -> float:
    """Return what writing a mask of so many voxels takes."""
    return _WRITE_PER_VOXEL * voxels / _MIB


def measuring_mib(label_map_ZYX: NDArray[np.uint8]) -> float:
    """Return what statistics of the labels take at most: by voxel of the foreground's box."""
    box = box_of(label_map_ZYX)
    voxels = 0 if box is None else math.prod(part.stop - part.start for part in box)
    return _MEASURE_PER_VOXEL * int(voxels) / _MIB


def drawing_mib(voxels: int) -> float:
    """Return what drawing a case of so many voxels takes, with the library that draws."""
    return _DRAWING_MIB + _WRITE_PER_VOXEL * voxels / _MIB
