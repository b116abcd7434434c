"""The sliding window on a CPU with OpenVINO: bf16 where the processor has it, fp32 elsewhere.

Needs no PyTorch where the networks were compiled before (`flarekit compile`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import DeviceError
from flarekit.core.grid import Grid
from flarekit.core.spec import HalfPrecision
from flarekit.engine import EngineFacts, Networks, Precision, check_class_count
from flarekit.engine._compiled import has_blobs, load_compiled
from flarekit.engine._cpu import cpu_has_bf16, cpu_name, cpu_runs_bf16
from flarekit.engine._slab import NumpySums, Place, Run
from flarekit.engine._tiles import TileRow, window_weights
from flarekit.engine._window import WindowEngine

if TYPE_CHECKING:
    import openvino

_SLICES_AT_ONCE = 4  # of a 2D network


def create(
    networks: Networks,
    grid: Grid,
    *,
    class_count: int,
    device: str,
    precision: Precision,
    memory_mib: float | None = None,  # noqa: ARG001 - of a GPU
    deterministic: bool = False,  # noqa: ARG001 - it always is
    later: bool = False,
) -> OpenvinoEngine:
    """Load the networks compiled; see `flarekit.engine.create`."""
    if device not in ("auto", "cpu"):
        raise DeviceError(
            f"the engine openvino runs on the CPU, not on {device!r}",
            fix="use --engine torch, or --device cpu",
        )
    exact = choose_precision(precision, networks.half_precisions)
    shape = input_shape(grid, networks.channels)
    made = partial(load_compiled, networks, shape, exact)
    engine = OpenvinoEngine(made, grid, class_count=class_count, precision=exact)
    if not (later and has_blobs(networks, shape, exact)):
        engine.load()
    return engine


def compile_networks(
    networks: Networks, grid: Grid, precision: Precision, *, portable: bool = True
) -> str:
    """Compile networks ahead of their first run; what is there and whole is left as it is.

    Args:
        networks: what to compile.
        grid: whose tile they are compiled for.
        precision: of the arithmetic.
        portable: keep the form, too, from which other processors compile them.

    Returns:
        What had to be made: `nothing`, `blob` (from the IR) or `all` (from PyTorch).

    Raises:
        DeviceError: the processor does not compute in that precision.
        PredictorError: they are nowhere, and PyTorch is not there to make them.
    """
    shape = input_shape(grid, networks.channels)
    exact = choose_precision(precision, networks.half_precisions)
    return load_compiled(networks, shape, exact, portable=portable)[1]


def is_compiled(networks: Networks, grid: Grid, precision: str) -> bool:
    """Return whether `compile_networks` would find nothing to do.

    Args:
        networks: in whose folders to look.
        grid: whose tile it is about.
        precision: as `choose_precision` gives it.
    """
    return has_blobs(networks, input_shape(grid, networks.channels), precision)


def input_shape(grid: Grid, channels: int) -> tuple[int, ...]:
    """Return the one shape that a network is compiled for: a tile, or a few slices."""
    depth, height, width = grid.tile_ZYX
    if depth > 1:
        return 1, channels, depth, height, width
    return _SLICES_AT_ONCE, channels, height, width


def choose_precision(request: Precision, half_precisions: Sequence[HalfPrecision]) -> str:
    """Return the precision that a request means on this processor.

    `auto` is bf16 where the processor has instructions for it and the networks are finite in it.

    Raises:
        DeviceError: it does not compute in that precision.
    """
    if request == "auto":
        return "bf16" if cpu_has_bf16() and "bf16" in half_precisions else "fp32"
    available = ["bf16", "fp32"] if cpu_runs_bf16() else ["fp32"]
    if request not in available:
        raise DeviceError(
            f"{request} is not available on {cpu_name()}",
            fix=f"use --precision {' or '.join(available)}",
        )
    return request


@dataclass(kw_only=True)
class OpenvinoRun(Run):
    """One sweep.

    Attributes:
        requests: one per network.
        outputs: of the first network; they take turns: one is filled while what is in the other is
            added up.
        spare: one per further network.
    """

    sums: NumpySums
    requests: list[openvino.InferRequest]
    outputs: list[NDArray[np.float32]]
    spare: list[NDArray[np.float32]]


class OpenvinoEngine(WindowEngine[OpenvinoRun]):
    """Compiled networks and a window; create it once, predict many volumes.

    Logits are added up in float32, whatever the grid's `sums` says: more precise, and faster here.
    """

    def __init__(
        self,
        made: Callable[[], tuple[Sequence[openvino.CompiledModel], str]],
        grid: Grid,
        *,
        class_count: int,
        precision: str,
    ) -> None:
        """Remember what to load.

        Args:
            made: gives the compiled networks, and what had to be made; see `load_compiled`.
            grid: tile and step of the sliding window.
            class_count: classes of the networks, background included.
            precision: of their arithmetic.
        """
        super().__init__()
        self.grid = grid
        self.slices_at_once = _SLICES_AT_ONCE
        self._class_count = class_count
        self._weights = window_weights(grid.tile_ZYX, grid.weighting)
        self._made, self._loading = made, threading.Lock()
        self._models: list[openvino.CompiledModel] = []
        self._flat = grid.tile_ZYX[0] == 1
        self.facts = EngineFacts(
            engine="openvino", device="cpu", device_name=cpu_name(), precision=precision
        )

    @property
    def is_loaded(self) -> bool:
        """Whether the networks are there."""
        return bool(self._models)

    def load(self) -> None:
        """Load the networks where that has not been done.

        Raises:
            PredictorError: they are nowhere, and PyTorch is not there to make them; or their
                classes are not as many as expected.
        """
        with self._loading:
            if self._models:
                return
            began = time.monotonic()
            models, what = self._made()
            for model in models:
                check_class_count(int(model.output(0).shape[1]), self._class_count)
            self._models = list(models)
            if what == "all":
                self.one_time_s = time.monotonic() - began

    @contextmanager
    def run(self, depth: int, size_YX: tuple[int, ...]) -> Iterator[OpenvinoRun]:
        """Give zeros for the weighted logits of every class and, last, for the weights."""
        self.load()
        slab = np.zeros((self._class_count + 1, depth, *size_YX), np.float32)
        shape = tuple(self._models[0].output(0).shape)
        yield OpenvinoRun(
            sums=NumpySums(slab_KZYX=slab, weights_ZYX=self._weights),
            requests=[model.create_infer_request() for model in self._models],
            outputs=[np.empty(shape, np.float32) for _ in range(2)],
            spare=[np.empty(shape, np.float32) for _ in self._models[1:]],
        )

    def tiles(
        self,
        image_CZYX: NDArray[np.float32],
        row: TileRow,
        places: Iterable[Place],
        flips: Sequence[Sequence[int]],
        run: OpenvinoRun,
    ) -> Iterator[tuple[Place, NDArray[np.float32]]]:
        """Yield the logits of each tile; see `WindowEngine.tiles`."""
        _, height, width = self.grid.tile_ZYX
        slab_CZYX = image_CZYX[:, row.z : row.z + row.depth]
        running: _Running | None = None
        try:
            for turn, (y, x) in enumerate(places):
                ended = self._end(running, run, flips) if running is not None else None
                tile_CZYX = slab_CZYX[:, :, y : y + height, x : x + width]
                running = self._begin((y, x), tile_CZYX, flips[0], run, turn)
                if ended is not None:
                    yield ended
            if running is not None:
                last, running = self._end(running, run, flips), None
                yield last
        finally:  # whoever stops early leaves no request busy
            if running is not None:
                for request in run.requests:
                    request.wait()

    def _begin(
        self,
        place: Place,
        tile_CZYX: NDArray[np.float32],
        flip: Sequence[int],
        run: OpenvinoRun,
        turn: int,
    ) -> _Running:
        outputs = (run.outputs[turn % 2], *run.spare)
        for request, target in zip(run.requests, outputs, strict=True):
            _set_output(request, target)
            self._fill(request, tile_CZYX, flip)
            request.start_async()
        return _Running(place=place, tile_CZYX=tile_CZYX, outputs=outputs)

    def _end(
        self, running: _Running, run: OpenvinoRun, flips: Sequence[Sequence[int]]
    ) -> tuple[Place, NDArray[np.float32]]:
        """Collect what `_begin` started, and run the other flips."""
        runs, depth = len(flips) * len(run.requests), running.tile_CZYX.shape[1]
        total: NDArray[np.float32] | None = None
        for number, flip in enumerate(flips):
            for request, output in zip(run.requests, running.outputs, strict=True):
                if number:
                    self._fill(request, running.tile_CZYX, flip)
                    request.start_async()
                request.wait()
                logits = _flipped(self._oriented(output, depth), flip)
                if runs == 1:
                    return running.place, logits
                total = logits.copy() if total is None else total + logits
        assert total is not None
        return running.place, total / np.float32(runs)

    def _fill(
        self,
        request: openvino.InferRequest,
        tile_CZYX: NDArray[np.float32],
        flip: Sequence[int],
    ) -> None:
        target = request.get_input_tensor().data
        flipped = _flipped(tile_CZYX, flip)
        if self._flat:  # slices are a batch of 2D images; the last of a volume may be fewer
            target[: flipped.shape[1]] = flipped.swapaxes(0, 1)
        else:
            target[0] = flipped

    def _oriented(self, output: NDArray[np.float32], depth: int) -> NDArray[np.float32]:
        """Return an output as (K, Z, Y, X), a view: good until it is filled again."""
        return output[:depth].swapaxes(0, 1) if self._flat else output[0]


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A tile that is being computed, and where its logits go: one output per network."""

    place: Place
    tile_CZYX: NDArray[np.float32]
    outputs: tuple[NDArray[np.float32], ...]


def _set_output(request: openvino.InferRequest, target: NDArray[np.float32]) -> None:
    import openvino

    request.set_output_tensor(0, openvino.Tensor(target, shared_memory=True))


def _flipped(voxels: NDArray[np.float32], flip: Sequence[int]) -> NDArray[np.float32]:
    return np.flip(voxels, tuple(axis + 1 for axis in flip)) if flip else voxels
