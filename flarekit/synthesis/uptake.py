"""Physiological FDG uptake, painted into a body: what is bright and no lesion."""

import numpy as np
from numpy.typing import NDArray

from flarekit.synthesis.body import ORGANS, Body
from flarekit.synthesis.shapes import Spacing, box_around, smooth_noise

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
_SIMPLE = 0.25  # of the organs have no parts


def add_physiology(
    suv: Field,
    hu: Field,
    organs: NDArray[np.uint8],
    spacing_mm: Spacing,
    body: Body,
    rng: np.random.Generator,
) -> None:
    """Paint the uptake of every organ into `suv`, and what belongs to it on CT into `hu`.

    Both are changed in place: activity before the scanner's blur, and on CT what has a form of its
    own (ureters).
    """
    shape = suv.shape
    mottle = np.exp(0.1 * smooth_noise(shape, spacing_mm, 9, rng))
    liver = float(np.clip(rng.normal(2.3, 0.5), 1.2, 3.6))
    plain = {
        "liver": liver,
        "spleen": liver * rng.uniform(0.65, 1.0),
        "prostate": rng.uniform(1.2, 2.8),
        "head_glands": rng.lognormal(np.log(3), 0.4),
    }
    for name, value in plain.items():
        where = organs == ORGANS[name]
        suv[where] = value * mottle[where]
    _brain(suv, organs == ORGANS["brain"], spacing_mm, rng)
    _heart(suv, organs == ORGANS["heart"], spacing_mm, rng)
    _stomach(suv, organs == ORGANS["stomach"], spacing_mm, rng)
    _urinary_tract(suv, hu, organs, spacing_mm, rng)
    _bowel(suv, body, organs, spacing_mm, rng)
    if rng.random() < 0.12:
        _brown_fat(suv, organs, spacing_mm, body, rng)
    if rng.random() < 0.25:
        _injection(suv, spacing_mm, body, rng)


def _depth(mask: Mask, spacing_mm: Spacing) -> Field:
    from scipy.ndimage import distance_transform_edt

    depth = np.zeros(mask.shape, np.float32)
    box = box_around(mask, spacing_mm, 0)
    depth[box] = distance_transform_edt(mask[box], sampling=spacing_mm)
    return depth


def _brain(suv: Field, brain: Mask, spacing_mm: Spacing, rng: np.random.Generator) -> None:
    """Paint a folded cortex and deep nuclei, bright, over white matter."""
    if not brain.any():
        return
    shape = suv.shape
    folds = smooth_noise(shape, spacing_mm, 5, rng)
    grey = float(np.clip(rng.lognormal(np.log(10), 0.35), 6, 22))
    if rng.random() < _SIMPLE:
        suv[brain] = (grey * np.exp(0.05 * folds))[brain]
        return
    depth = _depth(brain, spacing_mm)
    middle = np.argwhere(brain).mean(axis=0)
    offset = (np.indices(shape, np.float32).T - middle.astype(np.float32)).T
    offset *= np.array(spacing_mm, np.float32).reshape(3, 1, 1, 1)
    nuclei = (np.abs(np.abs(offset[2]) - 18) < 9) & (np.abs(offset[1]) < 22)
    nuclei &= np.abs(offset[0] + 5) < 14
    cortex = (depth < 5 + 4 * folds) | (np.abs(folds) < 0.25) | nuclei
    suv[brain] = np.where(cortex, grey, 0.35 * grey)[brain]


def _heart(suv: Field, heart: Mask, spacing_mm: Spacing, rng: np.random.Generator) -> None:
    """Paint blood, and the left ventricle's muscle as a cup that is dim or bright."""
    if not heart.any():
        return
    blood = float(rng.uniform(1.2, 2.0))
    suv[heart] = blood
    where = np.argwhere(heart)
    low, high = where.min(axis=0), where.max(axis=0)
    size_mm = (high - low + 1) * np.array(spacing_mm)
    centre = low + (high - low) * np.array([0.40, 0.42, 0.66])  # low, in front, left
    axis = np.array([-0.5, -0.5, 0.7]) / np.linalg.norm([-0.5, -0.5, 0.7])
    offset = (where - centre) * np.array(spacing_mm)
    along = offset @ axis
    across = np.linalg.norm(offset - along[:, None] * axis, axis=1)
    radius = 0.30 * float(size_mm[2])
    distance = np.sqrt(across**2 + (along / 1.35) ** 2)
    muscle = (np.abs(distance - 0.8 * radius) < 5.5) & (along > -0.75 * radius)
    bright = rng.random() < 0.65
    level = rng.lognormal(np.log(7), 0.5) if bright else rng.uniform(1.5, 3)
    if rng.random() < _SIMPLE:
        muscle[:] = True
    uneven = np.exp(0.35 * smooth_noise(suv.shape, spacing_mm, 15, rng))
    voxels = tuple(where[muscle].T)
    suv[voxels] = min(level, 20.0) * uneven[voxels]


def _stomach(suv: Field, stomach: Mask, spacing_mm: Spacing, rng: np.random.Generator) -> None:
    if not stomach.any():
        return
    depth = _depth(stomach, spacing_mm)
    wall = float(rng.lognormal(np.log(2.2), 0.35))
    suv[stomach] = np.where(depth < 6, wall, rng.uniform(0.5, 1.5))[stomach]


def _urinary_tract(
    suv: Field,
    hu: Field,
    organs: NDArray[np.uint8],
    spacing_mm: Spacing,
    rng: np.random.Generator,
) -> None:
    """Paint cortex and pelvis of the kidneys, stretches of the ureters, the bladder."""
    import cc3d

    kidneys = organs == ORGANS["kidneys"]
    bladder = organs == ORGANS["bladder"]
    urine = float(np.clip(rng.lognormal(np.log(15), 0.6), 3, 70))
    cortex = float(rng.uniform(2, 4.5))
    simple = rng.random() < _SIMPLE
    suv[kidneys] = cortex * (rng.uniform(1, 4) if simple else 1)
    middle_X = float(np.argwhere(organs > 0)[:, 2].mean())
    for part in (cc3d.largest_k(kidneys, k=2) == k for k in (1, 2)):
        where = np.argwhere(part)
        if len(where) < 30 or simple:
            continue
        middle = where.mean(axis=0)
        inward = np.array([0.0, -6.0, 12.0 * np.sign(middle_X - middle[2])])  # mm
        pelvis = middle + inward / np.array(spacing_mm)
        reach = np.linalg.norm(
            (where - pelvis) * np.array(spacing_mm) / np.array([24, 12, 13]), axis=1
        )
        hot = tuple(where[reach < 1].T)
        suv[hot] = urine * rng.uniform(0.25, 0.9)
        if bladder.any() and rng.random() < 0.6:
            _ureter(suv, hu, pelvis, np.argwhere(bladder), spacing_mm, urine, rng)
    if bladder.any():
        heights = np.argwhere(bladder)[:, 1]
        layers = np.arange(suv.shape[1], dtype=np.float32)[None, :, None]
        layered = 1 + 0.25 * (layers - heights.mean()) / max(float(heights.std()), 1.0)
        suv[bladder] = (urine * np.clip(layered, 0.5, 1.5) * np.ones_like(suv))[bladder]


def _ureter(
    suv: Field,
    hu: Field,
    start: NDArray[np.float64],
    bladder: NDArray[np.intp],
    spacing_mm: Spacing,
    urine: float,
    rng: np.random.Generator,
) -> None:
    """Paint the filled stretches of a ureter, from a kidney's pelvis to the back of the bladder."""
    low, high = bladder.min(axis=0), bladder.max(axis=0)
    end = np.array([0.6 * high[0] + 0.4 * low[0], high[1], 0.5 * (low[2] + high[2])])
    end[2] += 0.35 * (high[2] - low[2]) * np.sign(start[2] - end[2])
    steps = np.linspace(0, 1, 400)[:, None]
    back = np.array([0.0, 14.0, 0.0]) / np.array(spacing_mm)
    path = start + (end - start) * steps + back * np.sin(np.pi * steps)
    sway = np.cumsum(rng.normal(0, 1, (400, 2)), axis=0)
    path[:, 1:] += 0.12 * (sway - steps * sway[-1])
    filled = np.sin(np.linspace(0, rng.uniform(4, 14), 400) + rng.uniform(0, 6)) > rng.uniform(
        0, 0.8
    )
    level = urine * rng.uniform(0.15, 0.6)
    voxels = np.unique(np.round(path[filled]).astype(int), axis=0)
    voxels = voxels[((voxels >= 0) & (voxels < np.array(suv.shape))).all(axis=1)]
    where = tuple(voxels.T)
    suv[where] = np.maximum(suv[where], level)
    hu[where] = 15


def _bowel(
    suv: Field,
    body: Body,
    organs: NDArray[np.uint8],
    spacing_mm: Spacing,
    rng: np.random.Generator,
) -> None:
    """Paint winding tubes of the belly, from hardly visible to very bright (metformin)."""
    liver = np.flatnonzero((organs == ORGANS["liver"]).any(axis=(1, 2)))
    bladder = np.flatnonzero((organs == ORGANS["bladder"]).any(axis=(1, 2)))
    top = int(liver[len(liver) // 2]) if len(liver) else 0
    bottom = int(bladder[0]) if len(bladder) else max(0, top - round(250 / spacing_mm[0]))
    belly = body.cavity.copy()
    belly[top:] = False
    belly[:bottom] = False
    if not belly.any():
        return
    tubes = smooth_noise(suv.shape, spacing_mm, 9, rng)
    which = smooth_noise(suv.shape, spacing_mm, 40, rng)
    level = float(rng.lognormal(np.log(1.8), 0.6))
    where = belly & (np.abs(tubes) < 0.35) & (which > rng.uniform(-0.5, 1.2))
    suv[where] = np.maximum(suv[where], min(level, 9.0))


def _brown_fat(
    suv: Field,
    organs: NDArray[np.uint8],
    spacing_mm: Spacing,
    body: Body,
    rng: np.random.Generator,
) -> None:
    """Paint patches of fat beside neck and spine, on both sides alike."""
    lungs = np.flatnonzero((organs == ORGANS["lungs"]).any(axis=(1, 2)))
    if not len(lungs):
        return
    middle_X = float(body.spine_YX[:, 1].mean())
    half = smooth_noise(suv.shape, spacing_mm, 11, rng)
    mirrored = half[:, :, ::-1]
    shift = round(2 * middle_X - (suv.shape[2] - 1))
    patches = np.maximum(half, np.roll(mirrored, shift, axis=2)) > 2.3
    zone = np.zeros(suv.shape, np.bool_)
    reach = round(70 / spacing_mm[0])
    zone[max(0, lungs[-1] - reach // 2) : lungs[-1] + reach] = True
    where = zone & patches & (body.muscle | body.cavity)
    suv[where] = float(rng.uniform(3, 10))


def _injection(suv: Field, spacing_mm: Spacing, body: Body, rng: np.random.Generator) -> None:
    """Paint what was spilt at a vein: a small, very bright spot under the skin of a limb."""
    skin = np.argwhere(body.fat)
    if not len(skin):
        return
    outer = skin[np.abs(skin[:, 2] - body.spine_YX[:, 1].mean()) * spacing_mm[2] > 110]
    if not len(outer):
        return
    middle = outer[rng.integers(len(outer))]
    near = np.linalg.norm((outer - middle) * np.array(spacing_mm), axis=1) < rng.uniform(4, 10)
    suv[tuple(outer[near].T)] = float(rng.uniform(8, 40))
