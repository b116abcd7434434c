"""How a scan lies on the network's grid, with or without its voxels there, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flarekit.preprocess.crop import grown
from flarekit.preprocess.route import Route


@dataclass(frozen=True, kw_only=True)
class Placement(Route):
    """How a scan lies on the network's grid, known before any voxel is resampled.

    Attributes:
        channels: of the network's input.
        spacing_mm_ZYX: of the network's grid.
        voxel_ml: volume of one voxel of the network's grid.
        stored_voxel_ml: volume of one voxel of the stored grid.
        needed_ZYX: where on the network's grid there is anything to segment; None for everywhere.
    """

    channels: int
    spacing_mm_ZYX: tuple[float, float, float]
    voxel_ml: float
    stored_voxel_ml: float
    needed_ZYX: NDArray[np.bool_] | None = None

    def restricted_to(self, found_ZYX: NDArray[np.bool_], margin_mm: float) -> Placement:
        """Return the placement with nothing needed but what is near something that was found.

        Args:
            found_ZYX: bool on the stored grid.
            margin_mm: how near, along each axis.
        """
        needed = self.grid_labels(found_ZYX.astype(np.uint8)) > 0
        for axis, mm in enumerate(self.spacing_mm_ZYX):
            needed = grown(needed, axis, math.ceil(margin_mm / mm))
        if self.needed_ZYX is not None:
            needed &= self.needed_ZYX
        return replace(self, needed_ZYX=needed)

    def needed_where(self, possible_ZYX: NDArray[np.bool_], other: Placement) -> Placement:
        """Return the placement with nothing needed but what is possible on another grid.

        Args:
            possible_ZYX: bool on the other grid.
            other: the placement of the same scan there.
        """
        needed = self.on_this_grid(possible_ZYX, other)
        if self.needed_ZYX is not None:
            needed &= self.needed_ZYX
        return replace(self, needed_ZYX=needed)


@dataclass(frozen=True, kw_only=True)
class Prepared(Placement):
    """A placement with the scan's voxels on it.

    Attributes:
        tensor_CZYX: float32, oriented, cropped, at the predictor's spacing.
    """

    tensor_CZYX: NDArray[np.float32]
