"""The sliding window in PyTorch, on a CPU or a CUDA device.

Shape letters: B tiles (or slices) in a batch, C channels, K classes, Z Y X oriented axes.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flarekit.core.errors import DeviceError
from flarekit.core.spec import Grid
from flarekit.engine import EngineFacts, Networks, Precision, check_class_count
from flarekit.engine._cpu import cpu_has_bf16, cpu_name
from flarekit.engine._slab import Place, Run
from flarekit.engine._tiles import TileRow, window_weights
from flarekit.engine._torch_sums import TorchSums
from flarekit.engine._window import WindowEngine

_LOG = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# voxels per batch on a CUDA device; a CPU gains nothing from batches of tiles
_BATCH_VOXELS = 2**20
_SLICES_AT_ONCE = {"cpu": 4, "cuda": 16}  # of a 2D network


def create(
    networks: Networks,
    grid: Grid,
    *,
    class_count: int,
    device: str,
    precision: Precision,
    memory_mib: float | None = None,
) -> TorchEngine:
    """Build the networks; see `flarekit.engine.create`. They go to the device when first used."""
    chosen = choose_device(device)
    exact = choose_precision(precision, chosen)
    built = [network.eval().requires_grad_(False) for network in networks.build()]
    return TorchEngine(
        built,
        grid,
        class_count=class_count,
        device=chosen,
        precision=exact,
        memory_mib=memory_mib,
    )


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
        return "bf16" if cpu_has_bf16() else "fp32"
    if request == "fp16" and device.type == "cpu":
        raise DeviceError("fp16 is not available on the CPU", fix="use --precision bf16 or fp32")
    if request == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError(
            f"bf16 is not available on {torch.cuda.get_device_name(device)}",
            fix="use --precision fp16 or fp32",
        )
    return request


@dataclass(kw_only=True)
class TorchRun(Run):
    """One sweep.

    Attributes:
        sums: on the device, or on the host where that has no room for them.
        batch: tiles that are run together.
    """

    sums: TorchSums
    batch: int


class TorchEngine(WindowEngine[TorchRun]):
    """Networks, a device and a window; create it once, predict many volumes."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        grid: Grid,
        *,
        class_count: int,
        device: torch.device,
        precision: str,
        memory_mib: float | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.slices_at_once = _SLICES_AT_ONCE[device.type]
        self._networks = list(networks)
        self._class_count = class_count
        self._device = device
        self._dtype = _DTYPES[precision]
        self._memory_mib = memory_mib
        self._started = False
        self._starting = threading.Lock()
        self._sums_dtype = _DTYPES[grid.sums]
        weights = torch.from_numpy(window_weights(grid.tile_ZYX, grid.weighting))
        self._weights = _representable(weights, self._sums_dtype)
        voxels = grid.tile_ZYX[1] * grid.tile_ZYX[2] * max(grid.tile_ZYX[0], self.slices_at_once)
        self._batch = max(1, _BATCH_VOXELS // voxels) if device.type == "cuda" else 1
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
        self.facts = EngineFacts(
            engine="torch", device=str(device), device_name=name, precision=precision
        )

    @contextmanager
    def run(self, depth: int, size_YX: tuple[int, ...]) -> Iterator[TorchRun]:
        """Give zeros for the weighted logits of every class and, last, for the weights."""
        self._start()
        shape = (self._class_count + 1, depth, *size_YX)
        notes = []
        with torch.inference_mode():
            try:
                slab = torch.zeros(shape, dtype=self._sums_dtype, device=self._device)
            except torch.OutOfMemoryError:
                notes.append(self._add_up_on_the_host("the slab of logits does not fit"))
                slab = torch.zeros(shape, dtype=self._sums_dtype)
        sums = TorchSums(slab_KZYX=slab, weights_ZYX=self._weights.to(slab.device))
        yield TorchRun(sums=sums, notes=notes, batch=self._batch)

    def tiles(
        self,
        image_CZYX: NDArray[np.float32],
        row: TileRow,
        places: Iterable[Place],
        flips: Sequence[Sequence[int]],
        run: TorchRun,
    ) -> Iterator[tuple[Place, torch.Tensor]]:
        """Yield the logits of each tile; see `WindowEngine.tiles`.

        Where the device's memory runs out, batches are halved, then sums move to the host.
        """
        ahead, waiting = iter(places), list[Place]()
        while True:
            while len(waiting) < run.batch and (place := next(ahead, None)) is not None:
                waiting.append(place)
            if not waiting:
                return
            batch = waiting[: run.batch]
            try:
                logits_BKZYX = self._batch_logits(image_CZYX, row, batch, flips)
            except torch.OutOfMemoryError as error:
                self._ask_for_less(error, run)
                continue
            del waiting[: len(batch)]
            yield from zip(batch, logits_BKZYX, strict=True)

    @torch.inference_mode()
    def _batch_logits(
        self,
        image_CZYX: NDArray[np.float32],
        row: TileRow,
        places: Sequence[Place],
        flips: Sequence[Sequence[int]],
    ) -> torch.Tensor:
        _, height, width = self.grid.tile_ZYX
        slab_CZYX = torch.from_numpy(image_CZYX[:, row.z : row.z + row.depth])
        tiles = torch.stack([slab_CZYX[:, :, y : y + height, x : x + width] for y, x in places])
        if self._device.type == "cuda":
            tiles = tiles.pin_memory()
        batch_BCZYX = tiles.to(self._device, non_blocking=True)
        logits = torch.zeros((), device=self._device)
        for network in self._networks:
            for flip in flips:
                axes = [axis + 2 for axis in flip]
                logits = logits + self._run(network, batch_BCZYX.flip(axes)).flip(axes)
        logits = logits / (len(self._networks) * len(flips))
        check_class_count(logits.shape[1], self._class_count)
        return logits

    def _run(self, network: nn.Module, batch_BCZYX: torch.Tensor) -> torch.Tensor:
        enabled = self._dtype != torch.float32
        with torch.autocast(self._device.type, self._dtype, enabled=enabled):
            if self.grid.tile_ZYX[0] > 1:
                layout = torch.channels_last_3d if enabled else torch.contiguous_format
                logits: torch.Tensor = network(batch_BCZYX.contiguous(memory_format=layout))
            else:  # slices of all tiles become one batch of 2D images
                flat = network(batch_BCZYX.transpose(1, 2).flatten(0, 1))
                logits = flat.unflatten(0, (len(batch_BCZYX), -1)).transpose(1, 2)
        return logits.float()

    def _start(self) -> None:
        """Move the networks to the device: not before they are needed, so that it idles less."""
        with self._starting:
            if self._started:
                return
            if self._device.type == "cuda" and self._memory_mib is not None:
                _cap_memory(self._device, self._memory_mib)
            for network in self._networks:
                network.to(self._device)
                if self._dtype != torch.float32 and self.grid.tile_ZYX[0] > 1:
                    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            self._started = True

    def _ask_for_less(self, error: torch.OutOfMemoryError, run: TorchRun) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if run.batch > 1:
            run.batch //= 2
            note = f"out of memory: batches of {run.batch} tiles from here on"
            _LOG.warning(note)
            run.notes.append(note)
        elif run.sums.slab_KZYX.device.type != "cpu":
            note = self._add_up_on_the_host("one tile at a time does not fit beside the sums")
            run.notes.append(note)
            run.sums.to(torch.device("cpu"))
        else:
            raise DeviceError(
                f"{self.facts.device_name} has no room for a single tile: {error}",
                fix="raise --gpu-memory-budget, use --precision fp16, or run on --device cpu",
            ) from error

    def _add_up_on_the_host(self, why: str) -> str:
        note = f"out of memory ({why}): logits are added up on the host from here on"
        _LOG.warning(note)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return note

    def release(self) -> None:
        """Give cached device memory back: every second of it counts in the ranking's area."""
        if self._device.type == "cuda" and self._started:
            torch.cuda.empty_cache()


def _cap_memory(device: torch.device, budget_mib: float) -> None:
    """Let this process have what the budget leaves of the device, all other use counted in.

    Raises:
        DeviceError: the driver and other processes already use all of it.
    """
    torch.zeros(1, device=device)  # the context takes its share first
    free, total = torch.cuda.mem_get_info(device)
    others_mib = (total - free - torch.cuda.memory_reserved(device)) / 2**20
    if others_mib >= budget_mib:
        raise DeviceError(
            f"{others_mib:.0f} MiB of {device} are in use before any tile ran; the budget is "
            f"{budget_mib:.0f} MiB",
            fix="raise --gpu-memory-budget, or choose another device",
        )
    torch.cuda.set_per_process_memory_fraction((budget_mib - others_mib) * 2**20 / total, device)


def _representable(weights_ZYX: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return weights in the precision of the sums; in fp16 scaled by 10, as nnU-Net does.

    What would vanish gets the smallest weight that does not.
    """
    if dtype == torch.float32:
        return weights_ZYX
    scaled = (10 * weights_ZYX).to(dtype)
    scaled[scaled == 0] = scaled[scaled > 0].min()
    return scaled
