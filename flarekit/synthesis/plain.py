"""Bodies drawn as simply as can be: every organ of one density and one uptake, over wide ranges.

Beside the detailed ones they keep a network from leaning on how one synthesis draws things.
"""

import numpy as np
from numpy.typing import NDArray

from flarekit.synthesis.body import ORGANS, Body, ellipses, extents, without_gaps
from flarekit.synthesis.shapes import Spacing, distance_within

Mask = NDArray[np.bool_]
Field = NDArray[np.float32]
_SUV = {
    "spleen": (1.0, 3.5), "kidneys": (2, 20), "liver": (1.4, 3.8), "bladder": (4, 60),
    "lungs": (0.2, 0.8), "brain": (4, 18), "heart": (1.2, 9), "stomach": (0.5, 4),
    "prostate": (0.8, 3), "head_glands": (1, 6),
}  # fmt: skip
_NEAR, _NO_AIR = 0.25, 0.05  # of the plain outlines follow the organs; fill the volume


def plain_body(
    organs_ZYX: NDArray[np.uint8], spacing_mm: Spacing, rng: np.random.Generator
) -> Body:
    """Draw no more than an outline: an ellipse per slice, all that is near an organ, or everything.

    Raises:
        ValueError: there are no organs.
    """
    from scipy.ndimage import distance_transform_edt

    organs = organs_ZYX > 0
    if not organs.any():
        raise ValueError("the organ map shows no organs")
    inside = organs | _outline(organs, spacing_mm, rng)
    free = inside & ~organs
    depth = distance_transform_edt(np.pad(inside, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    fat = free & (depth < rng.uniform(0, 12))
    cavity = free & ~fat & (depth > 30)
    y0, y1, x0, x1 = (without_gaps(row, 1) for row in extents(organs))
    nothing = np.zeros_like(inside)
    return Body(
        inside=inside,
        fat=fat,
        muscle=free & ~fat & ~cavity,
        cavity=cavity,
        bone=nothing,
        marrow=nothing,
        spine_YX=np.stack([(y0 + y1) / 2, (x0 + x1) / 2], axis=1),
    )


def _outline(organs: Mask, spacing_mm: Spacing, rng: np.random.Generator) -> Mask:
    kind, margin_mm = rng.random(), float(rng.uniform(5, 60))
    if kind < _NEAR:
        near: Mask = distance_within(organs, spacing_mm, margin_mm) < margin_mm
        return near
    if kind < _NEAR + _NO_AIR:
        return np.ones_like(organs)
    return _ellipse_per_slice(organs, spacing_mm, margin_mm, rng)


def _ellipse_per_slice(
    organs: Mask, spacing_mm: Spacing, margin_mm: float, rng: np.random.Generator
) -> Mask:
    """Return ellipses around the organs, somewhat beyond the first and last slice or to the end."""
    mm_Z, mm_Y, mm_X = spacing_mm
    shape = organs.shape
    length_mm = float(rng.choice([2, 25, 80, np.inf]))  # from every slice on its own to a tube
    y0, y1, x0, x1 = (
        without_gaps(row, length_mm / mm_Z)
        if np.isfinite(length_mm)
        else np.full(shape[0], end(row))
        for row, end in zip(
            extents(organs), (np.nanmin, np.nanmax, np.nanmin, np.nanmax), strict=True
        )
    )
    least_mm = float(rng.uniform(40, 110))
    half_Y = np.maximum((y1 - y0) / 2 * mm_Y + margin_mm, least_mm) / mm_Y
    half_X = np.maximum((x1 - x0) / 2 * mm_X + margin_mm, least_mm) / mm_X
    power = float(rng.choice([2.0, 2.0, 3.0]))
    inside: Mask = ellipses(shape, (y0 + y1) / 2, (x0 + x1) / 2, half_Y, half_X, power) < 1
    if rng.random() < 0.6:
        shown = np.flatnonzero(organs.any(axis=(1, 2)))
        above, below = (round(float(rng.uniform(0, 60)) / mm_Z) for _ in range(2))
        inside[shown[-1] + 1 + above :] = False
        inside[: max(0, int(shown[0]) - below)] = False
    return inside


def plain_scan(
    organs_ZYX: NDArray[np.uint8], body: Body, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Return CT (HU) and PET (SUV), before the scanners."""
    tissue = float(rng.uniform(0, 65))
    hu = np.where(body.inside, np.float32(tissue), np.float32(-1000))
    if rng.random() < 0.5:
        hu[body.fat] = rng.uniform(-120, -80)
    if rng.random() < 0.5:
        hu[body.bone] = rng.uniform(150, 600)
    suv = np.where(body.inside, np.float32(rng.uniform(0.1, 1.2)), np.float32(0))
    contrast = float(rng.choice([0.0, 15.0, 40.0]))
    for name, (low, high) in _SUV.items():
        where = organs_ZYX == ORGANS[name]
        hu[where] = tissue + rng.normal(0, 1) * contrast
        suv[where] = np.exp(rng.uniform(np.log(low), np.log(high)))
    hu[organs_ZYX == ORGANS["lungs"]] = rng.uniform(-900, -500)
    return hu, suv
