"""A body around organ label maps that have none: outline, layers, skeleton.

The organs say where chest, belly, head and pelvis are; the rest is drawn from a seed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.synthesis.shapes import Shape, Spacing, distance_within, smooth_noise

ORGANS = {
    "spleen": 1, "kidneys": 2, "liver": 3, "bladder": 4, "lungs": 5, "brain": 6, "heart": 7,
    "stomach": 8, "prostate": 9, "head_glands": 10,
}  # fmt: skip
_TRUNK = ("spleen", "kidneys", "liver", "lungs", "heart", "stomach")
_NOWHERE = 9.0
Mask = NDArray[np.bool_]
Field = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Body:
    """Layers and skeleton on the grid of an organ label map; masks, none over organs.

    Attributes:
        inside: the whole body, organs too.
        fat, muscle, cavity: from the skin inwards.
        bone: with marrow, which is `marrow`.
        spine_YX: per slice the middle of the spine, in voxels.
    """

    inside: Mask
    fat: Mask
    muscle: Mask
    cavity: Mask
    bone: Mask
    marrow: Mask
    spine_YX: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """What the organs tell of the body, per slice along Z or as heights in voxels.

    Attributes:
        middle_Y, middle_X, half_Y, half_X: of the trunk's organs.
        apex: first slice above the lungs.
        pelvis: lowest slice of the bladder, or what stands for it.
        brain: first slice of the brain; none in a field of view without.
    """

    middle_Y: NDArray[np.float64]
    middle_X: NDArray[np.float64]
    half_Y: NDArray[np.float64]
    half_X: NDArray[np.float64]
    apex: int
    pelvis: int
    brain: int | None


def landmarks(organs: NDArray[np.uint8], spacing_mm: Spacing) -> Landmarks:
    """Return landmarks.

    Raises:
        ValueError: no organ of the trunk is there to go by.
    """
    found = {name: _slices(organs == value) for name, value in ORGANS.items()}
    broad = np.isin(organs, [ORGANS[name] for name in _TRUNK])
    lungs = organs == ORGANS["lungs"] if len(found["lungs"]) else broad
    if not broad.any():
        raise ValueError("the organ map shows no organ of the trunk")
    for name in ("kidneys", "stomach", "spleen"):  # below the liver they show one side only
        if len(found["liver"]) and len(found[name]):
            broad[: found["liver"][0]] = False
    sigma = 25 / spacing_mm[0]
    y0, y1, x0, x1 = (without_gaps(row, sigma) for row in extents(broad))
    middle_X = _midline(lungs, organs == ORGANS["bladder"])
    widest = float(np.percentile(x1 - x0, 85))
    lowest = _slices(broad)[0] - round(150 / spacing_mm[0])
    return Landmarks(
        middle_Y=(y0 + y1) / 2,
        middle_X=middle_X,
        half_Y=np.maximum((y1 - y0) / 2, 68 / spacing_mm[1]),
        half_X=np.maximum((x1 - x0) / 2, 0.46 * widest),
        apex=int(_slices(lungs)[-1]) + 1,
        pelvis=int(found["bladder"][0]) if len(found["bladder"]) else max(0, int(lowest)),
        brain=int(found["brain"][0]) if len(found["brain"]) else None,
    )


def _midline(lungs: Mask, bladder: Mask) -> NDArray[np.float64]:
    """Return the body's middle along X per slice: a line from the bladder to the upper lungs."""
    heights, middles = [], []
    for mask, low, high in ((bladder, 0.0, 1.0), (lungs, 0.4, 0.9)):
        slices = _slices(mask)
        if len(slices):
            some = slices[int(low * len(slices)) : int(high * len(slices)) + 1]
            heights.append(float(some.mean()))
            middles.append(float(np.median(extents(mask)[2:, some].mean(axis=0))))
    return np.interp(np.arange(len(lungs)), heights, middles)


def body_around(
    organs_ZYX: NDArray[np.uint8], spacing_mm: Spacing, rng: np.random.Generator
) -> Body:
    """Draw a body around organs.

    Raises:
        ValueError: no organ of the trunk is there to go by.
    """
    from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

    shape = organs_ZYX.shape
    marks = landmarks(organs_ZYX, spacing_mm)
    waves = smooth_noise(shape, spacing_mm, 30, rng)
    outline = _outline(organs_ZYX, spacing_mm, marks, rng) + 0.04 * waves < 1
    outline |= binary_dilation(organs_ZYX > 0, iterations=max(1, round(7 / min(spacing_mm))))
    smoothing = [4 / mm for mm in spacing_mm]
    inside = (gaussian_filter(outline.astype(np.float32), smoothing) > 0.5) | (organs_ZYX > 0)
    depth = distance_transform_edt(inside, sampling=spacing_mm)
    fat_mm = float(rng.uniform(6, 26)) * (1 + 0.25 * waves)
    fat_mm[marks.apex :] *= 0.35
    muscle_mm = fat_mm + float(rng.uniform(14, 26))
    spine = _spine(marks, spacing_mm)
    bone, marrow = _skeleton(organs_ZYX, spacing_mm, marks, spine, rng)
    free = inside & (organs_ZYX == 0)
    bone &= free & (depth > 5)
    free &= ~bone
    belly = np.zeros(shape[0], np.bool_)
    belly[marks.pelvis : marks.apex] = True
    beneath = free & (depth >= fat_mm)
    cavity = beneath & (depth >= muscle_mm) & belly[:, None, None]
    return Body(
        inside=inside,
        fat=free & (depth < fat_mm),
        muscle=beneath & ~cavity,
        cavity=cavity,
        bone=bone,
        marrow=marrow & bone,
        spine_YX=spine,
    )


def _slices(mask: Mask) -> NDArray[np.intp]:
    return np.flatnonzero(mask.any(axis=(1, 2)))


def extents(mask: Mask) -> NDArray[np.float64]:
    """Return first and last Y, first and last X of every slice, (4, Z); NaN where empty."""
    found = np.full((4, len(mask)), np.nan)
    for z in _slices(mask):
        ys, xs = np.flatnonzero(mask[z].any(axis=1)), np.flatnonzero(mask[z].any(axis=0))
        found[:, z] = ys[0], ys[-1], xs[0], xs[-1]
    return found


def without_gaps(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Return a row smoothed, its gaps and ends filled from what is known."""
    from scipy.ndimage import gaussian_filter1d

    known = np.flatnonzero(np.isfinite(values))
    filled = np.interp(np.arange(len(values)), known, values[known])
    smooth: NDArray[np.float64] = gaussian_filter1d(filled, sigma, mode="nearest")
    return smooth


def ellipses(
    shape: Shape, middle_Y: object, middle_X: object, half_Y: object, half_X: object, power: float
) -> Field:
    """Return a field below 1 inside one (super)ellipse per slice; all in voxels."""
    rows = (np.asarray(row, np.float32) for row in (middle_Y, middle_X, half_Y, half_X))
    b, a, h, w = (np.broadcast_to(row, shape[0])[:, None, None] for row in rows)
    y = np.arange(shape[1], dtype=np.float32)[None, :, None]
    x = np.arange(shape[2], dtype=np.float32)[None, None, :]
    field: Field = np.abs((y - b) / h) ** power + np.abs((x - a) / w) ** power
    return field


def _outline(
    organs: NDArray[np.uint8], spacing_mm: Spacing, marks: Landmarks, rng: np.random.Generator
) -> Field:
    """Return a field below 1 inside trunk, neck, head, arms and legs."""
    mm_Z, mm_Y, mm_X = spacing_mm
    shape = organs.shape
    above_apex_mm = (np.arange(shape[0]) - marks.apex) * mm_Z
    above_pelvis_mm = (np.arange(shape[0]) - marks.pelvis) * mm_Z
    half_Y = marks.half_Y + rng.uniform(24, 40) / mm_Y
    half_X = marks.half_X + rng.uniform(24, 42) / mm_X
    middle_Y = marks.middle_Y + 6 / mm_Y
    shoulders = np.clip(1 - above_apex_mm / 45, 0.05, 1) ** 0.7
    trunk = ellipses(shape, middle_Y, marks.middle_X, half_Y * shoulders, half_X * shoulders, 2.6)
    trunk[(above_pelvis_mm < -35) | (above_apex_mm > 45)] = _NOWHERE
    parts = [trunk]
    neck = ellipses(shape, middle_Y, marks.middle_X, 60 / mm_Y, 58 / mm_X, 2)
    top_mm = np.inf if marks.brain is None else (marks.brain - marks.apex) * mm_Z + 20
    neck[(above_apex_mm < -40) | (above_apex_mm > top_mm)] = _NOWHERE
    parts.append(neck)
    if marks.brain is not None:
        parts.append(_head(organs == ORGANS["brain"], spacing_mm, marks.brain))
    raised = rng.random() < 0.6
    for side in (-1, 1):
        leg = ellipses(
            shape, middle_Y, marks.middle_X + side * 0.5 * half_X, 0.85 * half_Y, 0.5 * half_X, 2
        )
        leg[above_pelvis_mm > 20] = _NOWHERE
        parts.append(leg)
        out_mm = (np.full(shape[0], 130.0) if raised
                  else half_X * mm_X + 50 + 0.04 * np.maximum(-above_apex_mm, 0))  # fmt: skip
        arm = ellipses(
            shape, middle_Y + 10 / mm_Y, marks.middle_X + side * out_mm / mm_X, 42 / mm_Y,
            38 / mm_X, 2,
        )  # fmt: skip
        arm[above_apex_mm < -30 if raised else above_apex_mm > 0] = _NOWHERE
        parts.append(arm)
    outline: Field = np.minimum.reduce(parts)
    return outline


def _head(brain: Mask, spacing_mm: Spacing, bottom: int) -> Field:
    """Return a field below 1 within scalp and face."""
    mm_Z, mm_Y, mm_X = spacing_mm
    shape = brain.shape
    y0, y1, x0, x1 = np.nanmedian(extents(brain), axis=1)
    above_mm = (np.arange(shape[0]) - bottom) * mm_Z
    half_Y, half_X = (y1 - y0) / 2 + 4 / mm_Y, (x1 - x0) / 2 + 6 / mm_X
    taper = np.clip((above_mm + 130) / 60, 0.6, 1)
    face = ellipses(
        shape, (y0 + y1) / 2 - 12 / mm_Y, (x0 + x1) / 2, half_Y * taper, half_X * taper, 2.2
    )
    face[(above_mm < -110) | (above_mm > 35)] = _NOWHERE
    return np.where(distance_within(brain, spacing_mm, 13) < 13, np.float32(0), face)


def _spine(marks: Landmarks, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Return the middle of the spine per slice, (Z, 2) in voxels."""
    back = marks.middle_Y + 0.55 * marks.half_Y
    heights = (np.arange(len(back)) - marks.apex) * spacing_mm[0]
    upright = np.clip(heights / 60, 0, 1)  # the neck's vertebrae lie nearer to its middle
    back = (1 - upright) * back + upright * (marks.middle_Y + 14 / spacing_mm[1])
    return np.stack([back, marks.middle_X], axis=1)


def _skeleton(
    organs: NDArray[np.uint8],
    spacing_mm: Spacing,
    marks: Landmarks,
    spine: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[Mask, Mask]:
    """Return bone and the marrow in it: spine, ribs, skull, pelvis, legs and upper arms."""
    from scipy.ndimage import binary_erosion

    mm_Z, mm_Y, mm_X = spacing_mm
    shape = organs.shape
    z = np.arange(shape[0])
    above_pelvis_mm = (z - marks.pelvis) * mm_Z
    vertebrae = ellipses(shape, spine[:, 0], spine[:, 1], 18 / mm_Y, 22 / mm_X, 2) < 1
    discs = np.cos(2 * np.pi * z * mm_Z / 33 + rng.uniform(0, 6)) > 0.85
    vertebrae[discs | (above_pelvis_mm < -10)] = False
    if marks.brain is not None:
        vertebrae[marks.brain :] = False
    arches = ellipses(shape, spine[:, 0] + 30 / mm_Y, spine[:, 1], 16 / mm_Y, 9 / mm_X, 2) < 1
    arches[discs | (above_pelvis_mm < -10)] = False
    marrow = vertebrae.copy()
    bone = vertebrae | arches
    lungs = organs == ORGANS["lungs"]
    if lungs.any():
        away = distance_within(lungs, spacing_mm, 11)
        y = np.arange(shape[1])[None, :, None] * mm_Y
        slope = z[:, None, None] * mm_Z + 0.45 * y
        ribs = (away > 3) & (away < 11) & (np.cos(2 * np.pi * slope / 27) > 0.35)
        ribs &= distance_within(np.isin(organs, (1, 2, 3, 7, 8)), spacing_mm, 4) > 4
        bone |= ribs
    if marks.brain is not None:
        away = distance_within(organs == ORGANS["brain"], spacing_mm, 7)
        bone |= (away > 1) & (away < 7)
    for side in (-1, 1):
        wing_X = marks.middle_X + side * (0.62 * marks.half_X + 12 / mm_X)
        wing = ellipses(shape, marks.middle_Y + 12 / mm_Y, wing_X, 50 / mm_Y, 13 / mm_X, 2) < 1
        wing[(above_pelvis_mm < 15) | (above_pelvis_mm > 135)] = False
        femur_X = marks.middle_X + side * 0.55 * (marks.half_X + 30 / mm_X)
        width = np.where(np.abs(above_pelvis_mm + 5) < 22, 24, 14)
        femur = ellipses(shape, marks.middle_Y, femur_X, width / mm_Y, width / mm_X, 2) < 1
        femur[above_pelvis_mm > 18] = False
        marrow |= wing | femur
        bone |= wing | femur
    marrow &= binary_erosion(bone)
    return bone, marrow
