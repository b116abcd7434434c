"""Windows around a click, as volumes of interest are cut, of every width.

At prediction a volume of interest ends where its scan does: padding on both sides of the click is
left out, padding on one side is seen (`flarekit.conventions.uls23`). What is left is brought to one
size, so a small scan around a small lesion looks like a large scan around a large one. Windows are
therefore drawn narrower than the scan allows as well, around clicks that are not in the middle.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.training.tables import ViewFacts
from flarekit.training.training_case import TrainingCase

_UNEVEN = 0.08  # standard deviation of the logarithm of a window's height by its width


@dataclass(frozen=True, kw_only=True)
class View:
    """A window in the plane of a case.

    Attributes:
        box_YX: the part of the scan that is there, in voxels of the case; beyond it is padding.
        middle_YX: of the window, in voxels of the case.
        spacing_mm_YX: of the sample that shows the whole window.
    """

    box_YX: tuple[slice, slice]
    middle_YX: tuple[float, float]
    spacing_mm_YX: tuple[float, float]


def draw_view(
    case: TrainingCase, facts: ViewFacts, tile_YX: tuple[int, int], rng: np.random.Generator
) -> View:
    """Draw a click in the lesion of a case, and the window around it.

    The case is on its scan's grid; without a lesion its middle is clicked.
    """
    shape, mm = case.classes_ZYX.shape[1:], case.spacing_mm_ZYX[1:]
    lesion = _lesion_box(case)
    widths = [high - low + 1 for low, high in lesion]
    click = _click(case, lesion, facts, rng)
    wide_mm = max(width * each for width, each in zip(widths, mm, strict=True))
    factor = math.exp(rng.uniform(*np.log(facts.context)))
    half_mm = max(wide_mm * factor, facts.least_mm) / 2
    short = int(rng.integers(4)) if rng.random() < facts.border else None
    box, middle, spacing = [], [], []
    for axis, (c, n, each) in enumerate(zip(click, shape, mm, strict=True)):
        half = half_mm * math.exp(rng.normal(0, _UNEVEN)) / each
        reach = max(2, min(round(half), facts.most_voxels // 2))
        low, high = max(0, c - reach), min(n, c + reach)
        if short is not None and short // 2 == axis:  # the scan ends here
            first, last = lesion[axis]
            if short % 2:
                high = min(high, max(c, last) + 1 + int(rng.integers(0, 1 + widths[axis])))
            else:
                low = max(low, min(c, first) - int(rng.integers(0, 1 + widths[axis])))
        reach = max(1, c - low, high - c)  # what the convention leaves of the padding
        box.append(slice(low, high))
        middle.append(c - 0.5)
        spacing.append(2 * reach * each / tile_YX[axis])
    return View(
        box_YX=(box[0], box[1]),
        middle_YX=(middle[0], middle[1]),
        spacing_mm_YX=(spacing[0], spacing[1]),
    )


def _lesion_box(case: TrainingCase) -> list[tuple[int, int]]:
    """Return the first and last voxel of everything labelled, along Y and X."""
    if not case.centres:
        return [(n // 2, n // 2) for n in case.classes_ZYX.shape[1:]]
    voxels = np.concatenate(list(case.centres.values()))
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    return [(int(low[axis]), int(high[axis])) for axis in (1, 2)]


def _click(
    case: TrainingCase,
    lesion: list[tuple[int, int]],
    facts: ViewFacts,
    rng: np.random.Generator,
) -> tuple[int, int]:
    shape = case.classes_ZYX.shape[1:]
    if case.centres and rng.random() < facts.anywhere:
        voxels: NDArray[np.int32] = case.centres[int(rng.choice(list(case.centres)))]
        _, y, x = voxels[int(rng.integers(len(voxels)))]
        return int(y), int(x)
    click = []
    for (low, high), n in zip(lesion, shape, strict=True):
        off = rng.normal(0, facts.off_centre) * (high - low + 1)
        click.append(int(np.clip(math.floor((low + high + 1) / 2 + off), 0, n - 1)))
    return click[0], click[1]
