"""The sliding window in PyTorch, on a CPU or a CUDA device.

Shape letters: B tiles (or slices) in a batch, C channels, K classes, Z Y X oriented axes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flarekit.core.errors import DeviceError
from flarekit.core.spec import Grid
from flarekit.engine import EngineFacts, Networks, Precision, check_class_count
from flarekit.engine._slab import Place, Run
from flarekit.engine._tiles import TileRow, window_weights
from flarekit.engine._torch_device import (
    DTYPES,
    choose_device,
    choose_precision,
    device_name,
    wider_precision,
)
from flarekit.engine._torch_sums import TorchSums
from flarekit.engine._window import WindowEngine

__all__ = ["TorchEngine", "choose_device", "choose_precision", "create"]

_LOG = logging.getLogger(__name__)
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
    exact = choose_precision(precision, chosen, networks.half_precisions)
    if exact not in ("fp32", *networks.half_precisions):
        _LOG.warning("these networks are not finite in %s everywhere", exact)
    built = [network.eval().requires_grad_(False) for network in networks.build()]
    return TorchEngine(
        built,
        grid,
        class_count=class_count,
        device=chosen,
        precision=exact,
        memory_mib=memory_mib,
    )


@dataclass(kw_only=True)
class TorchRun(Run):
    """One sweep.

    Attributes:
        sums: on the device, or on the host where that has no room for them.
        batch: tiles that are run together.
        precision: of the network's arithmetic.
    """

    sums: TorchSums
    batch: int
    precision: str


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
        self._precision = precision
        self._memory_mib = memory_mib
        self._started = False
        self._starting = threading.Lock()
        self._sums_dtype = DTYPES[grid.sums]
        weights = torch.from_numpy(window_weights(grid.tile_ZYX, grid.weighting))
        self._weights = _representable(weights, self._sums_dtype)
        voxels = grid.tile_ZYX[1] * grid.tile_ZYX[2] * max(grid.tile_ZYX[0], self.slices_at_once)
        self._batch = max(1, _BATCH_VOXELS // voxels) if device.type == "cuda" else 1
        self.facts = EngineFacts(
            engine="torch",
            device=str(device),
            device_name=device_name(device),
            precision=precision,
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
        yield TorchRun(sums=sums, notes=notes, batch=self._batch, precision=self._precision)

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
                logits_BKZYX = self._batch_logits(image_CZYX, row, batch, flips, run.precision)
            except torch.OutOfMemoryError as error:
                self._ask_for_less(error, run)
                continue
            if not bool(logits_BKZYX.sum().isfinite()) and self._take_wider_precision(run):
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
        precision: str,
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
                logits = logits + self._run(network, batch_BCZYX.flip(axes), precision).flip(axes)
        logits = logits / (len(self._networks) * len(flips))
        check_class_count(logits.shape[1], self._class_count)
        return logits

    def _run(self, network: nn.Module, batch_BCZYX: torch.Tensor, precision: str) -> torch.Tensor:
        enabled = precision != "fp32"
        with torch.autocast(self._device.type, DTYPES[precision], enabled=enabled):
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
                if self._precision != "fp32" and self.grid.tile_ZYX[0] > 1:
                    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            self.facts = replace(self.facts, scan=_scan_of(self._networks, self._device))
            self._started = True

    def _take_wider_precision(self, run: TorchRun) -> bool:
        """Go on in a precision whose range is wider; return whether there is one."""
        wider = wider_precision(run.precision, self._device)
        if wider is None:
            return False
        note = f"the network's output was not finite in {run.precision}: {wider} from here on"
        _LOG.warning(note)
        run.notes.append(note)
        run.precision = wider
        return True

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


def _scan_of(networks: Sequence[nn.Module], device: torch.device) -> str | None:
    """Return what computes selective scans there; None where the networks have none."""
    modules = (module for network in networks for module in network.modules())
    scans = (m for m in modules if getattr(type(m), "operation", None) == "selective_scan")
    scan = next(scans, None)
    return None if scan is None else str(scan.computed_by(device))  # type: ignore[operator]


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
