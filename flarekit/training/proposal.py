"""A first recipe for somebody's own labelled scans: grid, window, network and samples that fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Axes = tuple[int, int, int]
Size = tuple[float, float, float]
_LEAST_SIDE = 4  # voxels of the coarsest level
_APART = 2.0  # times coarser than the finest axis: not yet convolved or halved along
_MOST_STAGES = 5
_MOST_TILES = 8  # a usual scan is so many tiles large, or the grid gets coarser
_COARSER = 1.1
_VOXELS_ACROSS = 4.0  # of the smallest label, along each axis, that a coarser grid must leave
_ANISOTROPIC = 3.0
_SMALLER = 0.95
_FLOAT = 4
# bytes that a training step holds per byte of the feature maps that are kept for its gradients;
# measured, see tests/training/test_proposal.py
_HELD = 1.6
_BASE_BYTES = 400 * 2**20  # the interpreter with torch in it


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The U-Net of a tile: per stage, finest first, its stride, kernel and features."""

    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...]
    features: tuple[int, ...]

    @property
    def multiple(self) -> Axes:
        """What a tile has to be a multiple of."""
        z, y, x = (math.prod(stride[axis] for stride in self.strides) for axis in range(3))
        return z, y, x

    def arguments(self, channels: int, classes: int) -> dict[str, Any]:
        """Return it as `flarekit.models.nnunet.create` takes it, for so many inputs and outputs."""
        stages = len(self.features)
        return {
            "input_channels": channels,
            "n_stages": stages,
            "features_per_stage": list(self.features),
            "kernel_sizes": [list(kernel) for kernel in self.kernels],
            "strides": [list(stride) for stride in self.strides],
            "n_conv_per_stage": [1] + [2] * (stages - 1),
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "num_classes": classes,
        }


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Grid, tile and network that fit data and machine.

    Attributes:
        spacing_mm: of the network's grid, (Z, Y, X).
        median_mm: of the scans.
        tile: voxels.
        batch: samples per step.
        topology: of the network.
        step_bytes: of memory that a training step is expected to take.
    """

    spacing_mm: Size
    median_mm: Size
    tile: Axes
    batch: int
    topology: Topology
    step_bytes: float


def fit(
    shapes: Sequence[Axes],
    spacings_mm: Sequence[Size],
    least_extent_mm: Size,
    *,
    classes: int,
    channels: int,
    memory_bytes: float,
    on_gpu: bool,
) -> Fit:
    """Choose a grid, a tile and a network.

    The spacing is the scans' median; along an axis that is much coarser than the others, their
    tenth percentile (nnU-Net, Nature Methods 18, 2021). It gets coarser where a usual scan would be
    many tiles large, as long as the smallest label stays four voxels wide. The tile is as large as
    the memory and a small machine's patience allow, with the proportions of the scans.

    Args:
        shapes: of the scans, (Z, Y, X).
        spacings_mm: of their voxels.
        least_extent_mm: of the label that is smallest, along each axis.
        classes: background included.
        channels: of the input.
        memory_bytes: that a step may take.
        on_gpu: it trains on a GPU.
    """
    median = _triple(np.median(np.array(spacings_mm), axis=0))
    spacing = _target(np.array(spacings_mm), median)
    sizes_mm = np.array(shapes) * np.array(spacings_mm)
    most_voxels = 2**21 if on_gpu else 2**19
    width = 32 if on_gpu else 16
    while True:
        usual = _triple(np.median(sizes_mm, axis=0) / np.array(spacing))
        tile, topology, batch = _tile(
            spacing, usual, most_voxels, width, classes, channels, memory_bytes
        )
        coarser = _one_coarser(spacing)
        held = all(
            mm <= max(extent / _VOXELS_ACROSS, old)
            for mm, extent, old in zip(coarser, least_extent_mm, spacing, strict=True)
        )
        if math.prod(usual) <= _MOST_TILES * math.prod(tile) or not held:
            break
        spacing = coarser
    return Fit(
        spacing_mm=spacing,
        median_mm=median,
        tile=tile,
        batch=batch,
        topology=topology,
        step_bytes=step_bytes(topology, tile, batch, classes, channels),
    )


def _target(spacings_mm: np.ndarray[tuple[int, int], np.dtype[np.float64]], median: Size) -> Size:
    target = list(median)
    coarsest = int(np.argmax(median))
    if median[coarsest] / min(median) > _ANISOTROPIC:
        finer = float(np.percentile(spacings_mm[:, coarsest], 10))
        target[coarsest] = max(finer, min(median))
    return _triple(target)


def _one_coarser(spacing: Size) -> Size:
    """Return a grid with its finest axes somewhat coarser."""
    finest = min(spacing)
    return _triple([mm * _COARSER if mm < finest * _COARSER else mm for mm in spacing])


def _tile(
    spacing: Size,
    usual: Size,
    most_voxels: int,
    width: int,
    classes: int,
    channels: int,
    memory_bytes: float,
) -> tuple[Axes, Topology, int]:
    """Return the largest tile that fits, with its network and how many go into a step."""
    side_mm = max(n * mm for n, mm in zip(usual, spacing, strict=True))
    while True:
        wanted = [min(n, side_mm / mm) for n, mm in zip(usual, spacing, strict=True)]
        rough = _whole([max(_LEAST_SIDE, round(n)) for n in wanted])
        network = topology(spacing, rough, width)
        tile = _whole(
            [
                max(1, round(n / each)) * each
                for n, each in zip(rough, network.multiple, strict=True)
            ]
        )
        for batch in (2, 1):
            taken = step_bytes(network, tile, batch, classes, channels)
            if math.prod(tile) <= most_voxels and taken <= memory_bytes:
                return tile, network, batch
        if max(tile) <= 4 * _LEAST_SIDE:
            return tile, network, 1
        side_mm *= _SMALLER


def topology(spacing: Size, tile: Axes, width: int) -> Topology:
    """Return a U-Net that halves each axis where it is fine and long enough (nnU-Net's rule).

    The spacing is in mm, the tile in voxels, the width the finest level's features.
    """
    mm, size = list(spacing), list(tile)
    strides, kernels = [(1, 1, 1)], list[Axes]()
    while True:
        finest = min(mm)
        kernels.append(_whole([3 if each <= _APART * finest else 1 for each in mm]))
        halved = [
            n >= 2 * _LEAST_SIDE and each < _APART * finest
            for n, each in zip(size, mm, strict=True)
        ]
        if not any(halved) or len(kernels) == _MOST_STAGES:
            break
        strides.append(_whole([2 if each else 1 for each in halved]))
        size = [n // 2 if each else n for n, each in zip(size, halved, strict=True)]
        mm = [2 * each if half else each for each, half in zip(mm, halved, strict=True)]
    features = tuple(min(width * 2**stage, 16 * width) for stage in range(len(kernels)))
    return Topology(strides=tuple(strides), kernels=tuple(kernels), features=features)


def step_bytes(network: Topology, tile: Axes, batch: int, classes: int, channels: int) -> float:
    """Return the bytes that a training step takes, from the sizes of its feature maps."""
    voxels, size = float(math.prod(tile)), voxels_of(tile, network)
    maps = (channels + 6 * classes) * voxels  # input, logits, their softmax and gradients
    for stage, features in enumerate(network.features):
        convolutions = 1 if stage == 0 else 2
        encoder = 2 * convolutions * features  # each convolution's output, and its normalised one
        decoder = 4 * features + classes if stage < len(network.features) - 1 else 0
        maps += size[stage] * (encoder + decoder)
    weights = sum(
        27 * features * (3 * features + previous)
        for previous, features in zip((channels, *network.features), network.features, strict=False)
    )
    return _BASE_BYTES + _HELD * _FLOAT * batch * maps + 6 * _FLOAT * weights


def voxels_of(tile: Axes, network: Topology) -> list[float]:
    """Return the voxels of a tile at each stage of a network."""
    sizes, left = [], float(math.prod(tile))
    for stride in network.strides:
        left /= math.prod(stride)
        sizes.append(left)
    return sizes


def _triple(values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> Size:
    z, y, x = (float(f"{float(value):.3g}") for value in values)
    return z, y, x


def _whole(values: Sequence[int]) -> Axes:
    z, y, x = values
    return z, y, x
