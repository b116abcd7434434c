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

from flarekit.core.errors import UsageError
from flarekit.core.grid import Grid
from flarekit.engine import EngineFacts, Networks, Precision
from flarekit.engine._slab import Place, Run
from flarekit.engine._tiles import TileRow, window_weights
from flarekit.engine._torch_device import (
    DTYPES,
    Answer,
    choose_device,
    choose_precision,
    compute_fp32_exactly,
    compute_repeatably,
    device_name,
    entered,
    wider_precision,
)
from flarekit.engine._torch_memory import (
    NoRoom,
    Room,
    attempt,
    cap_memory,
    free_cache,
    lift_cap,
    no_room,
)
from flarekit.engine._torch_networks import DeviceNetworks
from flarekit.engine._torch_sums import TorchSums
from flarekit.engine._window import WindowEngine

__all__ = ["TorchEngine", "choose_device", "choose_precision", "create", "device_name"]

_LOG = logging.getLogger(__name__)
# a batch on a CUDA device has so many voxels, and takes so much memory, at most; a CPU gains
# nothing from batches of tiles
_BATCH_VOXELS = 2**22
_BATCH_MIB = 768.0
_USABLE = 0.6  # of the room
_SLICES_AT_ONCE = {"cpu": 4, "cuda": 16}  # of a 2D network


def create(
    networks: Networks,
    grid: Grid,
    *,
    class_count: int,
    device: str,
    precision: Precision,
    memory_mib: float | None = None,
    deterministic: bool = False,
    later: bool = False,  # noqa: ARG001 - networks have to be built
) -> TorchEngine:
    """Build the networks; see `flarekit.engine.create`. They go to the device when first used."""
    if networks.onnx:
        raise UsageError(
            f"{networks.onnx[0]}: is an ONNX network, which PyTorch does not run",
            fix="use --engine openvino (or auto) on a CPU; for a GPU save it as TorchScript",
        )
    if deterministic:
        compute_repeatably()
    chosen = choose_device(device)
    exact = choose_precision(precision, chosen, networks.half_precisions)
    if exact not in ("fp32", *networks.half_precisions):
        _LOG.warning("these networks give numbers that are not finite in %s", exact)
    built = [network.eval().requires_grad_(False) for network in networks.build()]
    return TorchEngine(
        built,
        grid,
        class_count=class_count,
        device=chosen,
        precision=exact,
        memory_mib=memory_mib,
        channels=networks.channels,
    )


@dataclass(kw_only=True)
class TorchRun(Run):
    """One sweep.

    Attributes:
        sums: on the device, or on the host where that has no room for them.
        batch: tiles that are run together.
        precision: of the network's arithmetic.
        image_CZYX: what is swept, on the device; on the host where that has no room for it.
    """

    sums: TorchSums
    batch: int
    precision: str
    image_CZYX: torch.Tensor | None = None


@dataclass(frozen=True)
class _Launched:
    """A batch that the device may still be computing."""

    places: list[Place]
    precision: str
    logits_BKZYX: torch.Tensor
    is_finite: Answer


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
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.slices_at_once = _SLICES_AT_ONCE[device.type]
        flat = grid.tile_ZYX[0] == 1
        self._networks = DeviceNetworks(networks, device, class_count=class_count, flat=flat)
        self._class_count = class_count
        self._channels = channels
        self._device = device
        self._precision = precision
        self._memory_mib = memory_mib
        self._in_flight = 1 if device.type == "cuda" else 0  # batches beside the one looked at
        self._started = False
        self._starting = threading.Lock()
        self._room = Room()
        self._tile_mib: float | None = None  # what running one tile takes; unknown before a warm-up
        weights = torch.from_numpy(window_weights(grid.tile_ZYX, grid.weighting))
        self._weights = _representable(weights, DTYPES[grid.sums])
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
        notes = [self._room.note] if self._room.note else []
        with torch.inference_mode():
            shape = (self._class_count + 1, depth, *size_YX)
            sums = TorchSums.zeros(shape, self._weights, self._device, notes)
        batch = self._tiles_at_once()
        yield TorchRun(sums=sums, notes=notes, batch=batch, precision=self._precision)

    def tiles(
        self,
        image_CZYX: NDArray[np.float32],
        row: TileRow,
        places: Iterable[Place],
        flips: Sequence[Sequence[int]],
        run: TorchRun,
    ) -> Iterator[tuple[Place, torch.Tensor]]:
        """Yield the logits of each tile; see `WindowEngine.tiles`.

        On a GPU the next batch is launched before this one's logits are looked at, so that the
        device never waits. Where its memory runs out, batches are halved, then sums move to the
        host. A batch that is not finite is run again in a wider precision.
        """
        ahead, waiting, launched = iter(places), list[Place](), list[_Launched]()
        while True:
            while len(waiting) < run.batch and (place := next(ahead, None)) is not None:
                waiting.append(place)
            if not waiting and not launched:
                return
            outcome = self._launched(image_CZYX, row, waiting, flips, run) if waiting else None
            if isinstance(outcome, _Launched):
                launched.append(outcome)
                del waiting[: len(outcome.places)]
                if len(launched) <= self._in_flight:
                    continue
            elif outcome is not None and not launched:  # nothing else is there that takes memory
                self._ask_for_less(outcome, run)
                continue
            oldest = launched.pop(0)
            if not oldest.is_finite and self._take_wider_precision(run, oldest.precision):
                waiting[:0] = oldest.places
            else:
                yield from zip(oldest.places, oldest.logits_BKZYX, strict=True)
            del oldest  # the next batch is launched beside what is in flight alone

    def _launched(
        self,
        image_CZYX: NDArray[np.float32],
        row: TileRow,
        waiting: Sequence[Place],
        flips: Sequence[Sequence[int]],
        run: TorchRun,
    ) -> _Launched | NoRoom:
        """Begin with a batch of the tiles that wait."""
        places, precision = list(waiting[: run.batch]), run.precision

        @torch.inference_mode()
        def launch() -> _Launched:
            _, height, width = self.grid.tile_ZYX
            slab_CZYX = self._image(image_CZYX, run)[:, row.z : row.z + row.depth]
            tiles = [slab_CZYX[:, :, y : y + height, x : x + width] for y, x in places]
            batch_BCZYX = torch.stack(tiles).to(self._device)
            logits = self._networks.logits(batch_BCZYX, flips, precision)
            is_finite = Answer(logits.sum(dtype=torch.float32).isfinite())
            return _Launched(places, precision, logits, is_finite)

        with entered(self._device):
            return attempt(launch)

    def _image(self, image_CZYX: NDArray[np.float32], run: TorchRun) -> torch.Tensor:
        """Return what is swept, on the device where that has room for it."""
        if run.image_CZYX is None:
            on_host = torch.from_numpy(image_CZYX)
            on_device = attempt(lambda: on_host.to(self._device))
            run.image_CZYX = on_host if isinstance(on_device, NoRoom) else on_device
        return run.image_CZYX

    def _start(self) -> None:
        """Move the networks to the device: not before they are needed, so that it idles less."""
        with self._starting, entered(self._device):
            if self._started:
                return
            compute_fp32_exactly()
            self._networks.place(self._precision)
            self.facts = replace(self.facts, scan=self._networks.scanned_by())
            if self._device.type == "cuda":
                self._cap()  # a blank tile must not take more than the budget either
                self._warm_up()
                self._cap()  # libraries and kernels have taken their share
                self.tiles_at_once = self._tiles_at_once()
            self._started = True

    @property
    def _tile_shape(self) -> tuple[int, ...]:
        return (1, self._channels, self.depth_at_once, *self.grid.tile_ZYX[1:])

    def _cap(self) -> None:
        if self._memory_mib is not None:
            self._room = cap_memory(self._device, self._memory_mib)

    def _warm_up(self) -> None:
        """Run a blank tile, which loads libraries and kernels, and see what memory it takes."""
        outcome = attempt(lambda: self._networks.peak_mib(self._tile_shape, self._precision))
        if not isinstance(outcome, NoRoom):
            self._tile_mib = outcome
        free_cache(self._device)

    def _tiles_at_once(self) -> int:
        """Return how many tiles are run together beside what is on the device."""
        if self._tile_mib is None:
            return 1
        room_mib = self._room.mib
        if room_mib is None:
            room_mib = torch.cuda.get_device_properties(self._device).total_memory / 2**20
        taken_mib = torch.cuda.memory_allocated(self._device) / 2**20
        voxels = self.depth_at_once * self.grid.tile_ZYX[1] * self.grid.tile_ZYX[2]
        return batch_size(self._tile_mib, room_mib - taken_mib, voxels)

    def _take_wider_precision(self, run: TorchRun, overflown: str) -> bool:
        """Go on in a precision whose range is wider; return whether there is one."""
        if run.precision != overflown:
            return True  # an earlier batch has led to it
        wider = wider_precision(overflown, self._device)
        if wider is None:
            return False
        note = f"the network's output was not finite in {overflown}: {wider} from here on"
        _LOG.warning(note)
        run.notes.append(note)
        run.precision = wider
        return True

    def _ask_for_less(self, shortage: NoRoom, run: TorchRun) -> None:
        free_cache(self._device)
        if run.batch > 1:
            run.batch //= 2
            note = f"out of memory: batches of {run.batch} tiles from here on"
            _LOG.warning(note)
            run.notes.append(note)
        elif not run.sums.on_host:
            run.image_CZYX = None if run.image_CZYX is None else run.image_CZYX.cpu()
            run.sums.move_to_host("one tile at a time does not fit beside the sums")
        elif self._room.is_capped:
            needed_mib = self._networks.estimated_mib(self._tile_shape, run.precision)
            self._room = lift_cap(self._device, self._room, needed_mib)
            run.notes += [self._room.note] if self._room.note else []
        else:
            raise no_room(self._device, "a single tile", shortage)

    def seconds_per_tile(self, tile_CZYX: NDArray[np.float32]) -> float:
        """Run a tile and return its time, in seconds; see `WindowEngine`."""
        self._start()  # only then it is known how many go together
        return super().seconds_per_tile(tile_CZYX)

    def release(self) -> None:
        """Give cached device memory back: every second of it counts in the ranking's area."""
        if self._started:
            free_cache(self._device)


def batch_size(tile_mib: float, room_mib: float, tile_voxels: int) -> int:
    """Return how many tiles are run together on a GPU.

    As many as keep it busy, not more: memory counts, too. Beside them live the logits of those
    before, and a part of the room is lost to fragments.

    Args:
        tile_mib: what running one takes.
        room_mib: what is free for it.
        tile_voxels: of one tile.
    """
    fitting = _USABLE * room_mib / max(tile_mib, 1e-3)
    busy = min(_BATCH_VOXELS / tile_voxels, _BATCH_MIB / max(tile_mib, 1e-3))
    return max(1, int(min(fitting, busy)))


def _representable(weights_ZYX: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return weights in the precision of the sums; in fp16 scaled by 10, as nnU-Net does.

    What would vanish gets the smallest weight that does not.
    """
    if dtype == torch.float32:
        return weights_ZYX
    scaled = (10 * weights_ZYX).to(dtype)
    scaled[scaled == 0] = scaled[scaled > 0].min()
    return scaled
