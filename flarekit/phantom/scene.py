"""The canvas organs are painted on, and the courses and densities of `anatomy.toml`."""

import tomllib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.phantom.geometry import (
    F32,
    Bool,
    Box,
    Frame,
    Knot,
    Point,
    Solid,
    smooth_field,
    smooth_max,
)

LIVER, RIGHT_KIDNEY, SPLEEN, PANCREAS, AORTA, VENA_CAVA, RIGHT_ADRENAL = range(1, 8)
LEFT_ADRENAL, GALLBLADDER, ESOPHAGUS, STOMACH, DUODENUM, LEFT_KIDNEY = range(8, 14)

FAT_HU = -102.0
MUSCLE_HU = 55.0
GAS_HU = -960.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What every organ needs: coordinates, canvas, the cavity to stay in, tissue HU, randomness."""

    seed: int
    frame: Frame
    tissue_hu: Mapping[str, float]
    hu_ZYX: F32
    labels_ZYX: NDArray[np.uint8]
    cavity_mm_ZYX: F32  # signed distance to the space the abdominal organs share; negative inside
    diaphragm_mm_ZYX: F32  # height above the diaphragm; negative below it

    def rng(self, part: str) -> np.random.Generator:
        """Random numbers of one part, the same whatever the other parts draw."""
        return np.random.default_rng([self.seed, zlib.crc32(part.encode())])

    def field(self, part: str, box: Box, wavelength_mm: float) -> F32:
        """Smooth unit noise over the voxels of `box`."""
        shape = (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
        return smooth_field(self.rng(part), shape, self.frame.spacing_mm_ZYX, wavelength_mm)

    def confined(self, solid: Solid, *, gap_mm: float = 1.0, edge_mm: float = 6.0) -> Solid:
        """The part of a solid in the cavity and below the diaphragm, its new edges rounded."""
        depth = smooth_max(solid.depth_mm, self.cavity_mm_ZYX[solid.box] + gap_mm, edge_mm)
        depth = smooth_max(depth, self.diaphragm_mm_ZYX[solid.box] + gap_mm + 2.5, edge_mm)
        return Solid(box=solid.box, depth_mm=depth)

    def paint(
        self,
        solid: Solid,
        hu: float | F32,
        label: int | None = None,
        *,
        halo_mm: float = 0.0,
        only: tuple[int, ...] | None = None,
        keep: tuple[int, ...] = (),
    ) -> Bool:
        """Paints over what is there and returns the painted voxels of the box.

        Args:
            solid: the shape.
            hu: one value, or one per voxel of the box.
            label: the organ's id; 0 removes labels, None leaves them as they are.
            halo_mm: width of a seam of fat laid around the shape first.
            only: paint only over these labels.
            keep: never paint over these labels.
        """
        labels, canvas = self.labels_ZYX[solid.box], self.hu_ZYX[solid.box]
        free = np.isin(labels, only) if only is not None else ~np.isin(labels, keep)
        if halo_mm > 0:
            seam = (solid.depth_mm < halo_mm) & (self.cavity_mm_ZYX[solid.box] < 0) & free
            seam &= self.diaphragm_mm_ZYX[solid.box] < -2
            canvas[seam], labels[seam] = FAT_HU, 0
        inside: Bool = (solid.depth_mm < 0) & free
        canvas[inside] = hu if isinstance(hu, float) else hu[inside]
        if label is not None:
            labels[inside] = label
        return inside

    def hollow(
        self, solid: Solid, wall_mm: float, content: float | F32, gas: Bool, stiff_hu: float = 0.0
    ) -> F32:
        """HU of a hollow organ: its wall, `stiff_hu` denser than usual, what is in it, and gas."""
        lumen = solid.depth_mm < -wall_mm
        wall_hu = self.tissue_hu["gut_wall"] + stiff_hu
        hu = np.where(lumen, content, wall_hu).astype(np.float32)
        hu[lumen & gas] = GAS_HU
        return hu

    def drop_fragments(self) -> None:
        """Keeps the largest component of every organ and turns the rest into fat."""
        from scipy import ndimage

        for label, box in enumerate(ndimage.find_objects(self.labels_ZYX), start=1):
            if box is None:
                continue
            components, count = ndimage.label(self.labels_ZYX[box] == label, np.ones((3, 3, 3)))
            if count > 1:
                largest = int(np.bincount(components.ravel())[1:].argmax()) + 1
                stray = (components > 0) & (components != largest)
                self.labels_ZYX[box][stray] = 0
                self.hu_ZYX[box][stray] = FAT_HU


def with_depth(solid: Solid, depth_mm: F32) -> Solid:
    """Return a solid of another shape in the same box."""
    return Solid(box=solid.box, depth_mm=depth_mm)


ANATOMY: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("anatomy.toml").read_text(encoding="utf-8")
)


def course(name: str, rng: np.random.Generator, swell: float = 1.0) -> list[Knot]:
    """Return the knots of a course in mm, shifted as it says, their radii times `swell`."""
    knots: list[Knot] = []
    for x, y, z, radius, *spread_mm in ANATOMY["courses"][name]:
        point: Point = shifted(rng, (x, y, z), *spread_mm) if spread_mm else (x, y, z)
        knots.append((*point, radius * swell))
    return knots


def shifted(rng: np.random.Generator, point: Point, spread_mm: float) -> Point:
    """A point moved at random by about `spread_mm` along each axis, at most twice that."""
    dx, dy, dz = np.clip(rng.normal(0.0, spread_mm, 3), -2 * spread_mm, 2 * spread_mm).tolist()
    return point[0] + dx, point[1] + dy, point[2] + dz
