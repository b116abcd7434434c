"""Where the window stands, and how much each of its voxels counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray


def tile_starts(size: int, tile: int, step: float) -> list[int]:
    """Return where tiles start along one axis: evenly spread, none leaving the axis.

    Args:
        size: voxels along the axis.
        tile: voxels per tile.
        step: largest distance between two tiles, as a fraction of the tile, in (0, 1].

    Returns:
        Starts in ascending order; `[0]` where the tile is as long as the axis or longer.
    """
    if size <= tile:
        return [0]
    count = math.ceil((size - tile) / max(1.0, tile * step)) + 1
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


@dataclass(frozen=True, kw_only=True)
class TileRow:
    """The tiles that start at one Z: `depth` slices deep, at each (Y, X) of `places`.

    Attributes:
        empty: tiles of the row that are left out, since nothing in them is needed.
    """

    z: int
    depth: int
    places: tuple[tuple[int, int], ...]
    empty: int = 0


def tile_rows(
    shape_ZYX: tuple[int, int, int],
    tile_ZYX: tuple[int, int, int],
    step: float,
    *,
    slices_at_once: int = 1,
) -> list[TileRow]:
    """Return the rows of a sliding window, Z ascending.

    Args:
        shape_ZYX: of the volume.
        tile_ZYX: of the window; Z = 1 is a 2D network, which sees every slice once.
        step: largest distance between two tiles, as a fraction of the tile.
        slices_at_once: how many slices a 2D network gets together.
    """
    starts_Y, starts_X = (tile_starts(shape_ZYX[axis], tile_ZYX[axis], step) for axis in (1, 2))
    places = tuple(product(starts_Y, starts_X))
    if tile_ZYX[0] > 1:
        starts_Z = tile_starts(shape_ZYX[0], tile_ZYX[0], step)
        return [TileRow(z=z, depth=tile_ZYX[0], places=places) for z in starts_Z]
    return [
        TileRow(z=z, depth=min(slices_at_once, shape_ZYX[0] - z), places=places)
        for z in range(0, shape_ZYX[0], slices_at_once)
    ]


def window_weights(
    tile_ZYX: tuple[int, int, int], weighting: Literal["gaussian", "uniform"]
) -> NDArray[np.float32]:
    """Return how much each voxel of a tile counts."""
    return np.ones(tile_ZYX, np.float32) if weighting == "uniform" else gaussian_weights(tile_ZYX)


def gaussian_weights(tile_ZYX: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return how much each voxel of a tile counts: a Gaussian of sigma tile / 8, peak 1.

    nnU-Net's choice (Isensee et al. 2021, inference), its peak at voxel tile // 2 included; small
    weights are lifted so that every voxel that any tile covers is decided.
    """
    weights = np.ones((), np.float64)
    for size in tile_ZYX:
        distance = np.arange(size) - size // 2
        weights = weights[..., None] * np.exp(-0.5 * (distance / (size / 8)) ** 2)
    lifted: NDArray[np.float32] = np.maximum(weights / weights.max(), 1e-12).astype(np.float32)
    return lifted
