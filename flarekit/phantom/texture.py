"""Hounsfield units by contrast phase, and what the scanner adds: partial volume and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flarekit.phantom.anatomy import ANATOMY
from flarekit.phantom.geometry import F32, Point


def draw_tissues(rng: np.random.Generator) -> dict[str, float]:
    """HU of one patient: a phase, each tissue a few percent off the table, maybe a fatty liver."""
    odds = ANATOMY["phase_odds"]
    phase = ANATOMY["phases"][str(rng.choice(list(odds), p=list(odds.values())))]
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
