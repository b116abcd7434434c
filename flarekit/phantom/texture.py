"""Hounsfield units by contrast phase, and what the scanner adds: partial volume and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flarekit.phantom.geometry import F32, Point

PHASES: dict[str, dict[str, float]] = {
    "portal": {
        "liver": 106, "spleen": 117, "cortex": 186, "medulla": 134, "pancreas": 92,
        "aorta": 152, "vein": 140, "portal": 165, "adrenal": 72, "gut_wall": 66, "urine": 12,
    },
    "arterial": {
        "liver": 76, "spleen": 122, "cortex": 182, "medulla": 82, "pancreas": 108,
        "aorta": 280, "vein": 82, "portal": 112, "adrenal": 80, "gut_wall": 72, "urine": 8,
    },
    "delayed": {
        "liver": 92, "spleen": 98, "cortex": 150, "medulla": 156, "pancreas": 80,
        "aorta": 118, "vein": 116, "portal": 118, "adrenal": 58, "gut_wall": 60, "urine": 320,
    },
    "plain": {
        "liver": 58, "spleen": 49, "cortex": 34, "medulla": 31, "pancreas": 42,
        "aorta": 42, "vein": 40, "portal": 41, "adrenal": 32, "gut_wall": 40, "urine": 6,
    },
}  # fmt: skip
PHASE_ODDS = {"portal": 0.68, "arterial": 0.14, "delayed": 0.1, "plain": 0.08}


def draw_tissues(rng: np.random.Generator) -> dict[str, float]:
    """HU of one patient: a phase, each tissue a few percent off the table, maybe a fatty liver."""
    phase = PHASES[str(rng.choice(list(PHASE_ODDS), p=list(PHASE_ODDS.values())))]
    overall = rng.normal(1.0, 0.05)
    tissues = {name: hu * overall * rng.normal(1.0, 0.04) for name, hu in phase.items()}
    if rng.random() < 0.12:
        tissues["liver"] -= rng.uniform(15.0, 35.0)
    return tissues


def blurred(hu_ZYX: F32, spacing_mm_ZYX: Point, width_mm: float) -> F32:
    """Partial volume: a Gaussian of `width_mm` in plane, half a slice (at most) along z."""
    from scipy import ndimage

    sigma = (0.35, width_mm / spacing_mm_ZYX[1], width_mm / spacing_mm_ZYX[2])
    result: F32 = ndimage.gaussian_filter(hu_ZYX, sigma, mode="nearest", truncate=3.0)
    return result


def ct_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm_ZYX: Point, sigma_hu: float
) -> F32:
    """Noise as of a soft kernel: white noise blurred by 1.1 mm in plane, hardly along z."""
    from scipy import ndimage

    noise = rng.standard_normal(shape, dtype=np.float32)
    sigma = (0.25, 1.1 / spacing_mm_ZYX[1], 1.1 / spacing_mm_ZYX[2])
    noise = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3.0)
    scaled: F32 = noise * np.float32(sigma_hu / max(float(noise.std()), 0.05))
    return scaled


def scanned(
    rng: np.random.Generator, hu_ZYX: F32, spacing_mm_ZYX: Point, body_mm_ZYX: F32
) -> NDArray[np.int16]:
    """The volume as a scanner would store it; noise is strongest deep in the body."""
    depth, height, width = hu_ZYX.shape
    volume = blurred(hu_ZYX, spacing_mm_ZYX, rng.uniform(0.7, 1.1))
    sigma_hu = rng.uniform(8.0, 20.0)
    noise = ct_noise(rng, (depth, height, width), spacing_mm_ZYX, sigma_hu)
    noise *= np.clip(0.8 - body_mm_ZYX / 250.0, 0.35, 1.15)
    volume += noise
    return np.clip(np.rint(volume), -1024, 3071).astype(np.int16)
