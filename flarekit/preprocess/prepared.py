"""How a scan lies on the network's grid, with or without its voxels there, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.preprocess.crop import grown
from flarekit.preprocess.decide import Decider, Paint
from flarekit.preprocess.route import Route

Labels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a scan lies on the network's grid, known before any voxel is resampled.

    Attributes:
        route: how the scan goes from its stored grid to the network's.
        channels: of the network's input.
        spacing_mm_ZYX: of the network's grid.
        voxel_ml: volume of one voxel of the network's grid.
        stored_voxel_ml: volume of one voxel of the stored grid.
        needed_ZYX: where on the network's grid there is anything to segment; None for everywhere.
    """

    route: Route
    channels: int
    spacing_mm_ZYX: tuple[float, float, float]
    voxel_ml: float
    stored_voxel_ml: float
    needed_ZYX: NDArray[np.bool_] | None = None

    @property
    def shape_ZYX(self) -> tuple[int, int, int]:  # noqa: N802 - axis letters
        """Voxels of the network's grid."""
        return self.route.padded_shape

    def restore(self, label_map_ZYX: Labels) -> Labels:
        """Return a label map of the network's grid on the scan's stored grid, C-ordered.

        Raises:
            ValueError: another grid, or not uint8.
        """
        return self.route.restore(label_map_ZYX)

    def grid_labels(self, label_map_ZYX: Labels) -> Labels:
        """Return a label map of the stored grid on the network's grid (for training).

        Raises:
            ValueError: another grid, or not uint8.
        """
        return self.route.grid_labels(label_map_ZYX)

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
        needed = self.route.on_this_grid(possible_ZYX, other.route)
        if self.needed_ZYX is not None:
            needed &= self.needed_ZYX
        return replace(self, needed_ZYX=needed)

    def decider(self, class_values: Labels) -> tuple[Decider, Labels]:
        """Return what takes logits on the network's grid, and the stored label map it paints."""
        return self.route.decider(class_values)

    def painter(self, classes: int, paint: Paint) -> Decider:
        """Return what takes logits on the network's grid, slab by slab, and hands on each slice.

        Args:
            classes: how many.
            paint: takes the index of a slice of the crop, its rows and columns, and their logits,
                (K, Y, X), on the scan's grid in the network's axes; see `target_of`.
        """
        return self.route.painter(classes, paint)

    def target_of(self, stored_ZYX: NDArray[Any]) -> NDArray[Any]:
        """Return the view of an array on the stored grid that `painter` paints."""
        return self.route.target_of(stored_ZYX)


@dataclass(frozen=True, kw_only=True)
class Prepared(Placement):
    """A placement with the scan's voxels on it.

    Attributes:
        tensor_CZYX: float32, oriented, cropped, at the predictor's spacing.
    """

    tensor_CZYX: NDArray[np.float32]
