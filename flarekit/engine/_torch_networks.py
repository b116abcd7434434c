"""Networks as a device runs them: half weights cast once, in the layout that suits it."""

import copy
import threading
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from flarekit.core.errors import PredictorError
from flarekit.engine import check_class_count
from flarekit.engine._torch_device import DTYPES
from flarekit.engine._torch_estimate import estimated_mib
from flarekit.engine._torch_memory import NoRoom, attempt, is_out_of_memory, no_room


class DeviceNetworks:
    """Networks that run as one on a device, in the precision that is asked for.

    Args:
        networks: float32 on the CPU; their logits are averaged.
        device: where they run.
        class_count: that they should give.
        flat: they are 2D.
    """

    def __init__(
        self, networks: Sequence[nn.Module], device: torch.device, *, class_count: int, flat: bool
    ) -> None:
        self._networks = list(networks)
        self._device = device
        self._class_count = class_count
        self._flat = flat
        self._placing = threading.Lock()
        self._placed: dict[str, list[tuple[nn.Module, torch.memory_format]]] = {}

    def place(self, precision: str) -> list[tuple[nn.Module, torch.memory_format]]:
        """Return the networks on the device in a precision, each with the layout of its input.

        Raises:
            DeviceError: there is no room for their weights.
        """
        with self._placing:
            if precision not in self._placed:
                ready = attempt(lambda: [self._place(each, precision) for each in self._networks])
                if isinstance(ready, NoRoom):
                    raise no_room(self._device, "the weights", ready)
                self._placed[precision] = ready
            return self._placed[precision]

    def _place(self, network: nn.Module, precision: str) -> tuple[nn.Module, torch.memory_format]:
        return placed(network, self._device, precision, flat=self._flat)

    def scanned_by(self) -> str | None:
        """Return what computes selective scans there; None where the networks have none."""
        modules = (module for network in self._networks for module in network.modules())
        scans = (m for m in modules if getattr(type(m), "operation", None) == "selective_scan")
        scan = next(scans, None)
        return None if scan is None else str(scan.computed_by(self._device))  # type: ignore[operator]

    @torch.inference_mode()
    def peak_mib(self, shape_BCZYX: tuple[int, ...], precision: str) -> float:
        """Return what a blank batch takes of a CUDA device at most, beside what is on it."""
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self.logits(torch.zeros(shape_BCZYX, device=self._device), [[]], precision)
        return (torch.cuda.max_memory_allocated(self._device) - before) / 2**20

    def estimated_mib(self, shape_BCZYX: tuple[int, ...], precision: str) -> float:
        """Return what a batch is going to take beside the weights, from shapes alone."""
        batch, channels, depth, *plane = shape_BCZYX
        shape = (batch * depth, channels, *plane) if self._flat else shape_BCZYX
        return max(
            estimated_mib(network, shape, self._device, precision, layout)
            for network, layout in self.place(precision)
        )

    def logits(
        self, batch_BCZYX: torch.Tensor, flips: Sequence[Sequence[int]], precision: str
    ) -> torch.Tensor:
        """Return the logits averaged over networks and flips, in the network's own precision.

        Raises:
            PredictorError: another number of classes than is expected.
        """
        networks = self.place(precision)
        if len(networks) == len(flips) == 1:
            return self._run(*networks[0], batch_BCZYX, precision)
        total: torch.Tensor | None = None
        for network, layout in networks:
            for flip in flips:
                axes = [axis + 2 for axis in flip]
                flipped = batch_BCZYX.flip(axes) if axes else batch_BCZYX
                logits = self._run(network, layout, flipped, precision).float()
                logits = logits.flip(axes) if axes else logits
                total = logits if total is None else total.add_(logits)
        assert total is not None
        return total.div_(len(networks) * len(flips))

    def _run(
        self,
        network: nn.Module,
        layout: torch.memory_format,
        batch_BCZYX: torch.Tensor,
        precision: str,
    ) -> torch.Tensor:
        half = DTYPES[precision]
        with torch.autocast(self._device.type, half, enabled=precision != "fp32"):
            if self._flat:  # slices of all tiles become one batch of 2D images
                flat = batch_BCZYX.transpose(1, 2).flatten(0, 1)
                flat = _computed(network, flat.contiguous(memory_format=layout))
                logits: torch.Tensor = flat.unflatten(0, (len(batch_BCZYX), -1)).transpose(1, 2)
            else:
                logits = _computed(network, batch_BCZYX.contiguous(memory_format=layout))
        check_class_count(logits.shape[1], self._class_count)
        return logits


def _computed(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Return what a network gives.

    Raises:
        PredictorError: it cannot compute a batch of this shape.
    """
    try:
        logits: torch.Tensor = network(batch)
    except (RuntimeError, ValueError, IndexError) as error:
        if is_out_of_memory(error) or batch.is_cuda:  # a device may fail for any reason
            raise
        tile = " x ".join(map(str, batch.shape[2:]))
        raise PredictorError(
            f"the network cannot compute a tile of {tile} voxels: {str(error).splitlines()[0]}",
            fix="correct grid.tile_ZYX or architecture.arguments in predictor.toml",
        ) from error
    return logits


def placed(
    network: nn.Module, device: torch.device, precision: str, *, flat: bool
) -> tuple[nn.Module, torch.memory_format]:
    """Return a network on a device, and the layout that its input should have.

    Weights that autocast would cast for every batch, in half precision, are cast here, once.

    Args:
        network: float32 on the CPU; it stays as it is, and serves itself where that is asked for.
        device: where the copy goes.
        precision: of its arithmetic.
        flat: it is 2D.
    """
    if device.type == "cpu" and precision == "fp32":
        return network, torch.contiguous_format
    copied = copy.deepcopy(network).to(device)
    if precision != "fp32":
        cast_weights(copied, DTYPES[precision])
    layout = layout_of(copied, device, precision, flat=flat)
    return copied.to(memory_format=layout), layout  # type: ignore[call-overload]


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of convolutions and linear layers, except inside `float32_island`s.

    These are what autocast computes in half precision; norms and what stands alone stay float32.
    """
    if getattr(type(module), "float32_island", False):
        return
    if isinstance(module, _ConvNd | nn.Linear):
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(dtype)
    for child in module.children():
        cast_weights(child, dtype)


def layout_of(
    network: nn.Module, device: torch.device, precision: str, *, flat: bool
) -> torch.memory_format:
    """Return the layout in which a network runs fastest.

    Tensor cores want channels last. PyTorch's InstanceNorm undoes it, so that every convolution
    copies its input; that still costs less than what cuDNN does to planes that come one by one
    (abdomen_ct on an H200: 3.7 against 8.4 ms a tile at batch 2, profiling/gpu_h200.json).
    """
    channels_last = torch.channels_last if flat else torch.channels_last_3d
    if precision == "fp32":
        return torch.contiguous_format
    if device.type == "cpu":
        return torch.contiguous_format if flat else channels_last
    has_norms = any(isinstance(m, _BatchNorm | _InstanceNorm) for m in network.modules())
    return channels_last if has_norms else torch.contiguous_format
