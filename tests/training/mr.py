"""MRs from a seed: a head with a tumour in four contrasts, and abdominal phantoms in MR.

Drawn as simply as a network needs that is tried on data of this kind: closed surfaces, tissues of
even intensity, a smooth bias field, Rician noise. Nothing is measured on them but that code runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.phantom import Phantom
from flarekit.synthesis.shapes import Spacing, smooth_noise

CONTRASTS = ("T1", "T1ce", "T2", "FLAIR")
Field = NDArray[np.float32]
_NOISE = 12.0
# intensities in the order of CONTRASTS
_TISSUES = {
    "scalp": (420, 430, 300, 260),
    "grey": (330, 340, 420, 400),
    "white": (430, 440, 330, 330),
    "fluid": (120, 125, 800, 110),
    "edema": (300, 310, 620, 640),
    "necrotic_core": (200, 215, 700, 330),
    "enhancing": (330, 720, 520, 520),
}
# T1 intensities by FLARE's label; what is not labelled goes by its Hounsfield units
_ORGANS = {
    1: 310, 2: 240, 3: 220, 4: 330, 5: 90, 6: 110, 7: 250, 8: 250, 9: 150, 10: 260, 11: 200,
    12: 230, 13: 240,
}  # fmt: skip
_AIR_HU, _FAT_HU, _BONE_HU = -300.0, -40.0, 180.0


@dataclass(frozen=True, kw_only=True)
class BrainMr:
    """A head in four contrasts, and its tumour.

    Attributes:
        intensities_CZYX: uint16, in the order of `CONTRASTS`; 0 outside the head.
        labels_ZYX: 1 necrotic core, 2 edema, 3 enhancing tumour (BraTS's 1, 2 and 4).
    """

    intensities_CZYX: NDArray[np.uint16]
    labels_ZYX: NDArray[np.uint8]
    spacing_mm: Spacing
    affine: NDArray[np.float64]


def brain_mr(
    seed: int,
    *,
    shape_ZYX: tuple[int, int, int] = (128, 160, 160),
    spacing_mm: Spacing = (1.2, 1.2, 1.2),
) -> BrainMr:
    """Draw a head; the same arguments give the same voxels.

    Args:
        seed: the patient.
        shape_ZYX: voxels; the head fills them.
        spacing_mm: of the voxels.
    """
    rng = np.random.default_rng([31, seed])
    at = np.stack(
        np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape_ZYX), indexing="ij")
    )
    wobble = smooth_noise(shape_ZYX, spacing_mm, 25.0, rng)
    radius = np.sqrt((at**2).sum(axis=0)) + 0.03 * wobble
    tissue = np.zeros(shape_ZYX, np.uint8)
    names = ["", *_TISSUES]
    tissue[radius < 0.92] = names.index("scalp")
    tissue[radius < 0.80] = names.index("fluid")
    folds = smooth_noise(shape_ZYX, spacing_mm, 9.0, rng)
    tissue[radius < 0.77] = names.index("grey")
    tissue[(radius < 0.70 + 0.05 * folds) & (radius < 0.77)] = names.index("white")
    for side in (-1, 1):
        ventricle = _ellipsoid(at, (0.05, 0.0, 0.14 * side), (0.16, 0.30, 0.07))
        tissue[ventricle < 1] = names.index("fluid")
    centre = (rng.uniform(-0.2, 0.3), rng.uniform(-0.3, 0.3), rng.choice([-1, 1]) * 0.35)
    size = rng.uniform(0.16, 0.26)
    tumour = _ellipsoid(at, centre, size * rng.uniform(0.8, 1.2, 3)) + 0.15 * wobble
    labels = np.zeros(shape_ZYX, np.uint8)
    inside = (tissue > names.index("scalp")) & (radius < 0.77)
    for value, name, extent in (
        (2, "edema", 1.0),
        (3, "enhancing", 0.55),
        (1, "necrotic_core", 0.3),
    ):
        part = inside & (tumour < extent)
        labels[part], tissue[part] = value, names.index(name)
    table = np.array([[0] * len(CONTRASTS), *_TISSUES.values()], np.float32)
    contrasts = [
        _scanned(table[:, channel][tissue], tissue > 0, spacing_mm, rng)
        for channel in range(len(CONTRASTS))
    ]
    z, y, x = spacing_mm
    return BrainMr(
        intensities_CZYX=np.stack(contrasts),
        labels_ZYX=labels,
        spacing_mm=spacing_mm,
        affine=np.diag([-x, -y, z, 1.0]),
    )


def abdomen_mr(phantom: Phantom, seed: int) -> NDArray[np.uint16]:
    """Return how a T1-weighted MR may show an abdominal phantom, (Z, Y, X).

    Fat is bright, vessels and bone are dark, air is nothing, and no unit can be trusted.

    Args:
        phantom: of `flarekit.phantom`.
        seed: of the scanner.
    """
    rng = np.random.default_rng([37, seed])
    hu = phantom.hu_ZYX.astype(np.float32)
    shown = np.interp(hu, [_AIR_HU, -150, _FAT_HU, 0, 80, _BONE_HU], [0, 620, 560, 180, 260, 120])
    intensities: Field = shown.astype(np.float32)
    for label, intensity in _ORGANS.items():
        intensities[phantom.labels_ZYX == label] = intensity
    return _scanned(intensities, hu > _AIR_HU, phantom.spacing_mm_ZYX, rng)


def _ellipsoid(at: Field, centre: tuple[float, ...], radii: object) -> Field:
    """Return a distance that is 1 on the surface of an ellipsoid."""
    parts = zip(at, centre, np.asarray(radii, np.float32), strict=True)
    squares = sum(((axis - middle) / radius) ** 2 for axis, middle, radius in parts)
    distance: Field = np.sqrt(np.asarray(squares, np.float32))
    return distance


def _scanned(
    intensities: Field, inside: NDArray[np.bool_], spacing_mm: Spacing, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Return what a scanner makes of intensities: a bias field, and Rician noise inside."""
    shape = intensities.shape
    bias = 1 + 0.12 * smooth_noise((shape[0], shape[1], shape[2]), spacing_mm, 90.0, rng)
    real = intensities * bias + rng.normal(0, _NOISE, shape)
    magnitude = np.hypot(real, rng.normal(0, _NOISE, shape))
    scan: NDArray[np.uint16] = np.where(inside, magnitude, 0).clip(0, 4095).astype(np.uint16)
    return scan
