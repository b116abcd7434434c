"""The sliding window in PyTorch, on a CPU or a CUDA device.

Shape letters: B tiles (or slices) in a batch, C channels, K classes, Z Y X oriented axes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from flarekit.core.errors import DeviceError, PredictorError
from flarekit.core.spec import Grid
from flarekit.engine import EngineFacts, Precision, TileProgress
from flarekit.engine._tiles import TileRow, gaussian_weights, tile_rows

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BATCH_VOXELS = (
    2**20
)  # voxels per batch on a CUDA device; a CPU gains nothing from batches of tiles
_SLICES_AT_ONCE = {"cpu": 4, "cuda": 16}  # of a 2D network


def create(
    build_networks: Callable[[], Sequence[nn.Module]],
    grid: Grid,
    *,
    class_count: int,
    device: str,
    precision: Precision,
) -> TorchEngine:
    """Build the networks and move them to the device; see `flarekit.engine.create`."""
    chosen = choose_device(device)
    exact = choose_precision(precision, chosen)
    networks = [network.eval().requires_grad_(False).to(chosen) for network in build_networks()]
    return TorchEngine(networks, grid, class_count=class_count, device=chosen, precision=exact)


def choose_device(request: str) -> torch.device:
    """Return the device that a request means.

    Args:
        request: `auto` (the first CUDA device, or the CPU where there is none), `cpu`, `cuda` or
            `cuda:N`.

    Raises:
        DeviceError: not such a word, or no such device here.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", request)
    if match is None:
        raise DeviceError(f"no device {request!r}", fix="use auto, cpu, cuda or cuda:N")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if request == "cpu" or (request == "auto" and not available):
        return torch.device("cpu")
    index = int(match[1] or 0)
    if not available:
        why = "no driver or no GPU is visible" if torch.version.cuda else "this torch is CPU-only"
        raise DeviceError(
            f"device {request!r} is not available: {why}",
            fix="use --device cpu, or run the container with --gpus",
        )
    if index >= available:
        raise DeviceError(
            f"device {request!r} does not exist: {available} CUDA device(s) visible",
            fix=f"use cuda:0 to cuda:{available - 1}",
        )
    return torch.device("cuda", index)


def choose_precision(request: Precision, device: torch.device) -> str:
    """Return the precision that a request means on a device.

    `auto` is fp16 on CUDA, bf16 on a CPU whose instructions have it and fp32 on any other.

    Raises:
        DeviceError: the device does not compute in that precision.
    """
    if request == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if _cpu_has_bf16() else "fp32"
    if request == "fp16" and device.type == "cpu":
        raise DeviceError("fp16 is not available on the CPU", fix="use --precision bf16 or fp32")
    if request == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError(
            f"bf16 is not available on {torch.cuda.get_device_name(device)}",
            fix="use --precision fp16 or fp32",
        )
    return request


class TorchEngine:
    """Networks, a device and a window; create it once, predict many volumes."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        grid: Grid,
        *,
        class_count: int,
        device: torch.device,
        precision: str,
    ) -> None:
        self._networks = networks
        self._flips = _flips(grid.mirror_axes)
        self._grid = grid
        self._class_count = class_count
        self._device = device
        self._dtype = _DTYPES[precision]
        weights = gaussian_weights(grid.tile_ZYX)
        if grid.weighting == "uniform":
            weights[:] = 1
        self._sums_dtype = _DTYPES[grid.sums]
        self._weights = _representable(torch.from_numpy(weights), self._sums_dtype).to(device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
        self.facts = EngineFacts(
            engine="torch", device=str(device), device_name=name, precision=precision
        )

    @torch.inference_mode()
    def predict(
        self, tensor_CZYX: NDArray[np.float32], progress: TileProgress
    ) -> NDArray[np.uint8]:
        """Return the class index of every voxel; see `flarekit.engine.Engine`.

        The weights of the tiles over a voxel are the same for all classes, so the weighted sum
        decides without being divided by them.
        """
        _, *shape_ZYX = tensor_CZYX.shape
        classes = np.empty(shape_ZYX, np.uint8)
        for where, sums_KZYX in self._decided(tensor_CZYX, progress):
            classes[where] = sums_KZYX[:-1].argmax(dim=0).to(torch.uint8).cpu().numpy()
        return classes

    @torch.inference_mode()
    def logits(
        self, tensor_CZYX: NDArray[np.float32], progress: TileProgress
    ) -> NDArray[np.float32]:
        """Return the mean logits of every voxel; see `flarekit.engine.Engine`."""
        _, *shape_ZYX = tensor_CZYX.shape
        logits = np.empty((self._class_count, *shape_ZYX), np.float32)
        for where, sums_KZYX in self._decided(tensor_CZYX, progress):
            logits[:, where] = (sums_KZYX[:-1] / sums_KZYX[-1:]).float().cpu().numpy()
        return logits

    def _decided(
        self, tensor_CZYX: NDArray[np.float32], progress: TileProgress
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield slices that no later tile covers, with their weighted logits and the weights.

        Logits are summed in a slab one tile thick: when the window moves on in Z, what is decided
        leaves the slab.
        """
        image = _padded(torch.from_numpy(tensor_CZYX), self._grid.tile_ZYX)
        shape_ZYX = (image.shape[1], image.shape[2], image.shape[3])
        _, size_Z, size_Y, size_X = tensor_CZYX.shape
        rows = tile_rows(
            shape_ZYX,
            self._grid.tile_ZYX,
            self._grid.step,
            slices_at_once=_SLICES_AT_ONCE[self._device.type],
        )
        ends = [row.z for row in rows[1:]] + [shape_ZYX[0]]
        slab = self._empty_slab(shape_ZYX, rows[0].depth)
        total, done = sum(len(row.places) for row in rows), 0
        for row, end in zip(rows, ends, strict=True):
            for places in self._batches(row):
                self._add(slab, self._tile_logits(image, row, places), places)
                done += len(places)
                progress(done, total)
            end_inside = min(end, size_Z)
            yield slice(row.z, end_inside), slab[:, : end_inside - row.z, :size_Y, :size_X]
            _move_on(slab, end - row.z)

    def _empty_slab(self, shape_ZYX: tuple[int, int, int], depth: int) -> torch.Tensor:
        """Return zeros for the weighted logits of every class and, last, for the weights."""
        shape = (self._class_count + 1, depth, *shape_ZYX[1:])
        return torch.zeros(shape, dtype=self._sums_dtype, device=self._device)

    def _batches(self, row: TileRow) -> list[tuple[tuple[int, int], ...]]:
        voxels = row.depth * self._grid.tile_ZYX[1] * self._grid.tile_ZYX[2]
        size = max(1, _BATCH_VOXELS // voxels) if self._device.type == "cuda" else 1
        return [row.places[first : first + size] for first in range(0, len(row.places), size)]

    def _tile_logits(
        self, image_CZYX: torch.Tensor, row: TileRow, places: tuple[tuple[int, int], ...]
    ) -> torch.Tensor:
        _, height, width = self._grid.tile_ZYX
        slab_CZYX = image_CZYX[:, row.z : row.z + row.depth]
        tiles = [slab_CZYX[:, :, y : y + height, x : x + width] for y, x in places]
        batch_BCZYX = torch.stack(tiles).to(self._device, non_blocking=True)
        logits = torch.zeros((), device=self._device)
        for network in self._networks:
            for flip in self._flips:
                logits = logits + self._run(network, batch_BCZYX.flip(flip)).flip(flip)
        logits = logits / (len(self._networks) * len(self._flips))
        if logits.shape[1] != self._class_count:
            raise PredictorError(
                f"the network gives {logits.shape[1]} classes, the labels need {self._class_count}",
                fix="make labels and num_classes agree (background counts)",
            )
        if not bool(logits.sum().isfinite()):
            raise DeviceError(
                f"the network's output is not finite in {self.facts.precision}",
                fix="use --precision fp32",
            )
        return logits

    def _run(self, network: nn.Module, batch_BCZYX: torch.Tensor) -> torch.Tensor:
        enabled = self._dtype != torch.float32
        with torch.autocast(self._device.type, self._dtype, enabled=enabled):
            if self._grid.tile_ZYX[0] > 1:
                logits: torch.Tensor = network(batch_BCZYX)
            else:  # slices of all tiles become one batch of 2D images
                flat = network(batch_BCZYX.transpose(1, 2).flatten(0, 1))
                logits = flat.unflatten(0, (len(batch_BCZYX), -1)).transpose(1, 2)
        return logits.float()

    def _add(
        self,
        slab_KZYX: torch.Tensor,
        logits_BKZYX: torch.Tensor,
        places: tuple[tuple[int, int], ...],
    ) -> None:
        depth, height, width = logits_BKZYX.shape[2:]
        for logits_KZYX, (y, x) in zip(logits_BKZYX, places, strict=True):
            part = slab_KZYX[:, :depth, y : y + height, x : x + width]
            if self._sums_dtype == torch.float32:
                part[:-1].addcmul_(logits_KZYX, self._weights)
            else:
                part[:-1] += logits_KZYX * self._weights
            part[-1] += self._weights


def _representable(weights_ZYX: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return weights in the precision of the sums; in fp16 scaled by 10, as nnU-Net does.

    What would vanish gets the smallest weight that does not.
    """
    if dtype == torch.float32:
        return weights_ZYX
    scaled = (10 * weights_ZYX).to(dtype)
    scaled[scaled == 0] = scaled[scaled > 0].min()
    return scaled


def _flips(mirror_axes: tuple[int, ...]) -> list[list[int]]:
    """Return the axes of (B, C, Z, Y, X) to flip for every combination, none first."""
    axes = sorted({axis + 2 for axis in mirror_axes})
    counts = range(len(axes) + 1)
    return [list(some) for some in chain.from_iterable(combinations(axes, n) for n in counts)]


def _padded(image_CZYX: torch.Tensor, tile_ZYX: tuple[int, int, int]) -> torch.Tensor:
    """Pad at the far ends to one tile at least, with the lowest value of each channel."""
    missing = [
        max(0, tile - size) for tile, size in zip(tile_ZYX, image_CZYX.shape[1:], strict=True)
    ]
    if not any(missing):
        return image_CZYX
    sides = [side for n in reversed(missing) for side in (0, n)]
    return torch.stack(
        [functional.pad(channel, sides, value=float(channel.min())) for channel in image_CZYX]
    )


def _move_on(slab_KZYX: torch.Tensor, decided: int) -> None:
    """Drop the slab's first slices: the rest moves to the front, zeros follow."""
    keep = max(0, slab_KZYX.shape[1] - decided)
    slab_KZYX[:, :keep] = slab_KZYX[:, decided : decided + keep].clone()
    slab_KZYX[:, keep:] = 0


def _cpu_has_bf16() -> bool:
    return "avx512_bf16" in _cpu_info() or "amx_bf16" in _cpu_info()


def _cpu_name() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    return match[1].strip() if match else "CPU"


def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
