"""The network's voxel grid, and the arithmetic that brings a scan to it and labels back."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from flarekit.core.tables import Table

Count = Annotated[int, Field(ge=1, strict=True)]
Step = Annotated[float, Field(ge=0.05, le=1, strict=True)]  # less makes 8000 times the tiles
Spacing = Annotated[float, Field(ge=0.01, le=1000, strict=True)] | Literal["scan", "fit"]
LONGEST_TILE, LARGEST_TILE = 4096, 2**28  # voxels along an axis, and altogether
Side = Annotated[int, Field(ge=1, le=LONGEST_TILE, strict=True)]


class Grid(Table):
    """The network's voxel grid and how the window slides over it.

    Attributes:
        spacing_mm_ZYX: voxel spacing of the network's input, oriented axes (stored ones with
            `Nnunet`); `scan` keeps the scan's, `fit` makes one tile cover the whole axis.
        axes: where the network's axes (Z, Y, X) point to: superior, posterior, left by default.
        tile_ZYX: voxels per tile; Z = 1 means that the network is 2D and sees axial slices.
        step: distance between tiles as a fraction of the tile, from 0.05 to 1.
        weighting: how much the voxels of a tile count where tiles overlap.
        sums: precision in which logits of overlapping tiles are added up; nnU-Net's is fp16.
        decide: where the argmax is taken: on the `network`'s grid (fastest), or on the `scan`'s,
            from linearly resampled logits (smoother outlines).
        mirror_axes: axes (0 is Z) over whose flips, and their combinations, predictions are
            averaged; none is fastest.
        order: tiles go `upwards` in Z, all of them; or from the `centre` outwards, to the
            neighbours of a tile only where it found something (volumes around one lesion).
        image_order: of the splines that bring intensities to this grid; 1 is linear, and fastest.
        lanczos: bring them there by Lanczos' window of three lobes instead, as Pillow resizes.
    """

    spacing_mm_ZYX: tuple[Spacing, Spacing, Spacing]
    axes: Annotated[str, Field(pattern=r"^[RLAPSI]{3}$")] = "SPL"
    tile_ZYX: tuple[Side, Side, Side]
    step: Step = 0.5
    weighting: Literal["gaussian", "uniform"] = "gaussian"
    sums: Literal["fp32", "fp16"] = "fp32"
    decide: Literal["network", "scan"] = "network"
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2, strict=True)], ...] = ()
    order: Literal["upwards", "centre"] = "upwards"
    image_order: Annotated[int, Field(ge=0, le=5, strict=True)] = 1
    lanczos: bool = False

    @model_validator(mode="after")
    def _three_axes(self) -> Grid:
        if len({"RLAPSI".index(letter) // 2 for letter in self.axes}) != 3:
            raise ValueError(f"axes {self.axes!r} do not name three different axes")
        if (voxels := math.prod(self.tile_ZYX)) > LARGEST_TILE:
            raise ValueError(f"tile_ZYX has {voxels:,} voxels, more than {LARGEST_TILE:,}")
        return self


class Nnunet(Table):
    """nnU-Net's own arithmetic around the network, as its plans state it.

    Axes are the stored ones, transposed. Images and logits are resampled with splines of an order;
    where the spacing is anisotropic (or `separate_z` says so) the coarsest axis by itself.

    Attributes:
        transpose: nnU-Net's `transpose_forward`.
        image_order: spline order in plane; `image_order_z` along a separate axis.
        logits_order: spline order of the logits, which are resampled before the argmax.
        separate_z: always or never; nnU-Net's own choice where None.
        region_values: for networks that give overlapping regions instead of exclusive classes:
            the mask value that each region paints, later ones over earlier ones.
    """

    transpose: tuple[int, int, int] = (0, 1, 2)
    image_order: Annotated[int, Field(ge=0, le=5, strict=True)] = 3
    image_order_z: Annotated[int, Field(ge=0, le=5, strict=True)] = 0
    logits_order: Annotated[int, Field(ge=0, le=5, strict=True)] = 1
    logits_order_z: Annotated[int, Field(ge=0, le=5, strict=True)] = 0
    separate_z: bool | None = None
    region_values: tuple[Annotated[int, Field(ge=1, le=255, strict=True)], ...] = ()

    @model_validator(mode="after")
    def _permutes(self) -> Nnunet:
        if sorted(self.transpose) != [0, 1, 2]:
            raise ValueError("transpose must hold 0, 1 and 2 once each")
        return self


class Fast(Table):
    """How the mode `fast` differs from the facts as they stand; see `PredictorSpec.for_mode`.

    Attributes:
        step: distance between tiles as a fraction of the tile.
        decide: where the argmax is taken, on the `network`'s grid or on the `scan`'s.
    """

    step: Step = 0.75
    decide: Literal["network", "scan"] = "scan"
