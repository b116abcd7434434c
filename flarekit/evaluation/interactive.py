"""Figures of masks that get better step by step, and the areas under their curves.

autoPET IV (task 1) and V score the area under the curve over the steps, by the trapezoid rule: of
Dice and of a detection figure (DMM, here the F1 of lesions at an IoU of 0.1), and of false positive
and false negative volume. The area is in steps times the figure: 5 for a Dice of 1 in all of six
steps; divided by the number of intervals it is a mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.evaluation.confusion import confusion
from flarekit.evaluation.lesions import f1_of, match_lesions

FIGURES = ("dice", "dmm", "fpv_ml", "fnv_ml")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of a case.

    Attributes:
        figures: name, of `FIGURES` -> value; NaN where it is not defined (no lesion in the truth).
        seconds: of the call.
        marked: what the mark before it was on, with its voxels; empty for the first.
    """

    figures: Mapping[str, float]
    seconds: float
    marked: str = ""


@dataclass(frozen=True, kw_only=True)
class Session:
    """All calls of a case.

    Attributes:
        case_id: of the case.
        kind: of its scribbles, or `clicks`.
        steps: from the call without any mark on.
        error: why there are fewer than there should be; None where there are not.
        fix: what to do about it.
    """

    case_id: str
    kind: str
    steps: tuple[Step, ...]
    error: str | None = None
    fix: str | None = None

    def curve(self, name: str) -> list[float]:
        """Return a figure at every step."""
        return [step.figures[name] for step in self.steps]


def figures_of(
    truth_ZYX: NDArray[np.bool_], predicted_ZYX: NDArray[np.bool_], voxel_ml: float
) -> dict[str, float]:
    """Return Dice, DMM, false positive and false negative volume of a mask."""
    match = match_lesions(truth_ZYX, predicted_ZYX)
    has_lesions = bool(truth_ZYX.any())
    return {
        "dice": confusion(truth_ZYX, predicted_ZYX).dice if has_lesions else math.nan,
        "dmm": f1_of(match.found, match.spurious, match.missed),
        "fpv_ml": match.spurious_voxels * voxel_ml,
        "fnv_ml": match.missed_voxels * voxel_ml if has_lesions else math.nan,
    }


def area(values: Sequence[float]) -> float:
    """Return the area under a curve of values one step apart, by the trapezoid rule.

    0 for a single value; NaN where any value is NaN.

    >>> area([0.5, 0.7, 0.9])
    1.4
    """
    return math.fsum((one + other) / 2 for one, other in zip(values[:-1], values[1:], strict=True))


def areas(sessions: Sequence[Session]) -> dict[str, dict[str, float]]:
    """Return for each figure the means over the cases in which it is defined at every step.

    Returns:
        Name -> `auc` (in steps times the figure), `mean` (that by the number of intervals), `first`
        and `last` value, and `cases`.
    """
    found = {}
    for name in FIGURES:
        curves = [session.curve(name) for session in sessions if session.error is None]
        curves = [curve for curve in curves if not np.isnan(curve).any()]
        if not curves:
            continue
        each = [area(curve) for curve in curves]
        intervals = max(1, len(curves[0]) - 1)
        found[name] = {
            "auc": float(np.mean(each)),
            "mean": float(np.mean(each)) / intervals,
            "first": float(np.mean([curve[0] for curve in curves])),
            "last": float(np.mean([curve[-1] for curve in curves])),
            "cases": float(len(curves)),
        }
    return found


def mean_curve(sessions: Sequence[Session], name: str) -> list[float]:
    """Return the mean of a figure at every step, over the cases in which it is defined.

    NaN where it is defined in none.
    """
    curves = [each.curve(name) for each in sessions if each.error is None]
    columns = [np.array(column) for column in zip(*curves, strict=True)]
    defined = [column[~np.isnan(column)] for column in columns]
    return [float(np.mean(column)) if column.size else math.nan for column in defined]
