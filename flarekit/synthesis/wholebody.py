"""Whole-body FDG PET/CT from organ label maps, with lesions.

Physiological uptake is what a network has to learn to leave alone: brain, heart muscle, kidneys,
ureters, bladder, liver, spleen, stomach, bowel, glands, marrow, brown fat, the place of injection.
Standardised uptake values (SUV) follow common clinical ranges; resolution and noise are those of
clinical scanners. Some bodies are drawn more simply than real ones are (no skeleton, organs of even
uptake, or plain throughout, some in a plain outline), so that a network does not lean on one way of
drawing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.synthesis.body import ORGANS, Body, body_around
from flarekit.synthesis.plain import plain_body, plain_scan
from flarekit.synthesis.shapes import BlobLook, Spacing, blob_depth, smooth_noise
from flarekit.synthesis.uptake import add_physiology

__all__ = ["ORGANS", "WholeBody", "wholebody_petct"]

Field = NDArray[np.float32]
_HU = {
    "spleen": 50, "kidneys": 35, "liver": 58, "bladder": 8, "lungs": -820, "brain": 34, "heart": 42,
    "stomach": 25, "prostate": 38, "head_glands": 40,
}  # fmt: skip
_CONTRAST_HU = {"spleen": 60, "kidneys": 120, "liver": 50, "heart": 95, "head_glands": 30}
_PLAIN = 0.6  # of the bodies
_PLAIN_OUTLINE = 0.75  # of the plain ones
_HOT = tuple(ORGANS[name] for name in ("brain", "heart", "kidneys", "bladder"))  # hide lesions
_IN_HOT = 0.1  # of a lesion may overlap them, or there is none; it ends where they begin
_LESION_PLACES = (("muscle", 0.3), ("cavity", 0.25), ("marrow", 0.2), ("liver", 0.12),
                  ("lungs", 0.13))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WholeBody:
    """A synthetic examination.

    Attributes:
        hu_ZYX: CT, float32.
        suv_ZYX: PET, float32.
        lesions_ZYX: uint8, 1 in lesions.
    """

    hu_ZYX: Field
    suv_ZYX: Field
    lesions_ZYX: NDArray[np.uint8]


def wholebody_petct(
    organs_ZYX: NDArray[np.uint8],
    spacing_mm: Spacing,
    seed: int,
    *,
    most_lesions: int = 12,
    plain: float = _PLAIN,
) -> WholeBody:
    """Make a PET/CT around the organs of one patient.

    Args:
        organs_ZYX: values of `ORGANS`; oriented, Z superior, Y posterior, X left.
        spacing_mm: of the voxels; 3 to 5 mm are enough for PET.
        seed: decides everything else.
        most_lesions: some bodies have none.
        plain: probability of a plain body.

    Raises:
        ValueError: the map shows no organ of the trunk.
    """
    rng = np.random.default_rng([13, seed])
    if rng.random() < plain:
        draw = plain_body if rng.random() < _PLAIN_OUTLINE else body_around
        body = draw(organs_ZYX, spacing_mm, rng)
        hu, suv = plain_scan(organs_ZYX, body, rng)
    else:
        body = body_around(organs_ZYX, spacing_mm, rng)
        hu = _ct(organs_ZYX, spacing_mm, body, rng)
        suv = _background(organs_ZYX, body, spacing_mm, rng)
        add_physiology(suv, hu, organs_ZYX, spacing_mm, body, rng)
    lesions = np.zeros(organs_ZYX.shape, np.uint8)
    for _ in range(int(rng.integers(0, most_lesions + 1))):
        _add_lesion(hu, suv, lesions, organs_ZYX, spacing_mm, body, rng)
    return WholeBody(
        hu_ZYX=_scanned_ct(hu, spacing_mm, rng),
        suv_ZYX=_scanned_pet(suv, spacing_mm, rng),
        lesions_ZYX=lesions,
    )


def _ct(
    organs: NDArray[np.uint8], spacing_mm: Spacing, body: Body, rng: np.random.Generator
) -> Field:
    shape = organs.shape
    clumps = smooth_noise(shape, spacing_mm, 7, rng)
    hu = np.full(shape, -1000, np.float32)
    hu[body.fat] = -105
    hu[body.muscle] = 52
    hu[body.muscle & (clumps > 1.1)] = -70  # fat between muscles
    loops = smooth_noise(shape, spacing_mm, 11, rng)
    hu[body.cavity] = np.where(loops > -0.1, 35, -95)[body.cavity]
    hu[body.cavity & (loops > 1.7)] = -700  # gas
    if rng.random() < 0.8:
        hu[body.bone] = 420
        hu[body.marrow] = 190
    else:
        hu[body.bone] = 52
    contrast = rng.random() < 0.7
    for name, value in _HU.items():
        level = value + (_CONTRAST_HU.get(name, 12) * rng.uniform(0.6, 1.2) if contrast else 0)
        hu[organs == ORGANS[name]] = level + (rng.normal(0, 6) if name != "lungs" else 0)
    vessels = smooth_noise(shape, spacing_mm, 6, rng)
    hu[(organs == ORGANS["lungs"]) & (np.abs(vessels) > 1.8)] = -250
    gas = (organs == ORGANS["stomach"]) & (np.gradient(loops, axis=1) > 0.05) & (loops > 0.3)
    hu[gas] = -850
    return hu


def _background(
    organs: NDArray[np.uint8], body: Body, spacing_mm: Spacing, rng: np.random.Generator
) -> Field:
    shape = organs.shape
    suv = np.full(shape, 0.01, np.float32)
    suv[body.fat] = rng.uniform(0.15, 0.4)
    suv[body.muscle] = rng.uniform(0.4, 0.9)
    suv[body.cavity] = rng.uniform(0.5, 1.2)
    suv[body.bone] = rng.uniform(0.5, 1.0)
    suv[body.marrow] = rng.uniform(0.8, 2.2)
    suv[organs == ORGANS["lungs"]] = rng.uniform(0.25, 0.6)
    slow = smooth_noise(shape, spacing_mm, 20, rng)
    fast = smooth_noise(shape, spacing_mm, 8, rng)
    return suv * np.exp(0.15 * slow + 0.12 * fast)


def _add_lesion(
    hu: Field,
    suv: Field,
    lesions: NDArray[np.uint8],
    organs: NDArray[np.uint8],
    spacing_mm: Spacing,
    body: Body,
    rng: np.random.Generator,
) -> None:
    """Put a lesion somewhere, unless it would not stand out there."""
    names = [name for name, _ in _LESION_PLACES]
    name = str(rng.choice(names, p=[share for _, share in _LESION_PLACES]))
    where = organs == ORGANS[name] if name in ORGANS else getattr(body, name)
    found = np.flatnonzero(where)
    if not len(found):
        return
    centre = np.unravel_index(int(found[rng.integers(len(found))]), where.shape)
    median = 45 if name == "muscle" else 18
    diameter = float(np.clip(rng.lognormal(np.log(median), 0.6), 7, 160))
    box = tuple(
        slice(max(0, int(c - 0.95 * diameter / mm) - 2), int(c + 0.95 * diameter / mm) + 3)
        for c, mm in zip(centre, spacing_mm, strict=True)
    )
    shape = suv[box].shape
    local = [float(c) - side.start for c, side in zip(centre, box, strict=True)]
    look = BlobLook(
        diameter_mm=diameter,
        elongation=float(rng.uniform(0.05, 0.35)),
        lobes=float(rng.uniform(0.1, 0.5)),
    )
    depth = blob_depth(shape, spacing_mm, local, look, rng)
    mask = (depth > 0) & body.inside[box]
    hot = np.isin(organs[box], _HOT)
    if mask[hot].sum() > _IN_HOT * mask.sum():
        return
    mask &= ~hot
    if mask.sum() < 6:
        return
    nearby = suv[box][(depth < 0) & (depth > -12)]
    around = float(np.percentile(nearby, 80)) if len(nearby) else 0.5
    peak = float(np.clip(rng.lognormal(np.log(5.5), 0.55), 1.8, 30))
    if peak < 1.7 * around:
        return
    clumps = smooth_noise(shape, spacing_mm, 0.18 * diameter + 2, rng)
    activity = peak * np.clip(0.75 + rng.uniform(0.05, 0.35) * clumps, 0.25, 1.3)
    if diameter > 30 and rng.random() < 0.45:  # necrosis
        dead = depth > rng.uniform(0.12, 0.3) * diameter + 2 * clumps
        activity = np.where(dead, rng.uniform(0.4, 1.2), activity)
    suv[box][mask] = activity[mask]
    hu[box][mask & (hu[box] < 250)] = rng.normal(40, 14)
    lesions[box][mask] = 1


def _scanned_pet(suv: Field, spacing_mm: Spacing, rng: np.random.Generator) -> Field:
    """Return activity as a scanner sees it: blurred, with noise that grows with its root."""
    from scipy.ndimage import gaussian_filter

    shape = suv.shape
    width_mm = float(rng.uniform(3.5, 8.5)) / 2.355
    blurred = gaussian_filter(suv, [width_mm / mm for mm in spacing_mm])
    grain = smooth_noise(shape, spacing_mm, 1.15 * width_mm, rng)
    noisy = blurred + float(rng.uniform(0.01, 0.15)) * np.sqrt(blurred + 0.02) * grain
    seen: Field = np.maximum(noisy, 0).astype(np.float32)
    return seen


def _scanned_ct(hu: Field, spacing_mm: Spacing, rng: np.random.Generator) -> Field:
    """Return a CT with soft borders and grain."""
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(hu, [1.6 / mm for mm in spacing_mm])
    grain = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.5)
    noisy = blurred + float(rng.uniform(6, 18)) * grain / max(float(grain.std()), 1e-6)
    seen: Field = np.clip(noisy, -1024, 3071).astype(np.float32)
    return seen
