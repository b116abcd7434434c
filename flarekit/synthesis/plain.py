"""Bodies drawn as simply as can be: every organ of one density and one uptake, over wide ranges.

Beside the detailed ones they keep a network from leaning on how one synthesis draws things.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flarekit.synthesis.body import ORGANS, Body

Field = NDArray[np.float32]
_SUV = {
    "spleen": (1.0, 3.5), "kidneys": (2, 12), "liver": (1.4, 3.8), "bladder": (4, 60),
    "lungs": (0.2, 0.8), "brain": (4, 18), "heart": (1.2, 9), "stomach": (0.5, 4),
    "prostate": (0.8, 3), "head_glands": (1, 6),
}  # fmt: skip


def plain_scan(
    organs_ZYX: NDArray[np.uint8], body: Body, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Return CT (HU) and PET (SUV), before the scanners.

    Args:
        organs_ZYX: values of `ORGANS`.
        body: around them.
        rng: what decides.
    """
    tissue = float(rng.uniform(15, 65))
    hu = np.where(body.inside, np.float32(tissue), np.float32(-1000))
    if rng.random() < 0.5:
        hu[body.fat] = rng.uniform(-120, -80)
    if rng.random() < 0.5:
        hu[body.bone] = rng.uniform(150, 600)
    suv = np.where(body.inside, np.float32(rng.uniform(0.2, 1.1)), np.float32(0))
    contrast = float(rng.choice([0.0, 15.0, 40.0]))
    for name, (low, high) in _SUV.items():
        where = organs_ZYX == ORGANS[name]
        hu[where] = tissue + rng.normal(0, 1) * contrast
        suv[where] = np.exp(rng.uniform(np.log(low), np.log(high)))
    hu[organs_ZYX == ORGANS["lungs"]] = rng.uniform(-870, -600)
    return hu, suv
