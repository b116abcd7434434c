"""Cases whose volumes lie far from those of the cohort, by robust z-scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_MAD_TO_SD = 1.4826  # of a normal distribution
_FAR = 3.5  # Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993)
_FEWEST = 8  # cases with a label, from which others are far
_LEAST_SPREAD = 0.05  # of the logarithm: labels are never told to vary by less than some percent


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A volume that is far from those of the other cases.

    Attributes:
        z: how many robust standard deviations its logarithm is from the median's.
    """

    case_id: str
    label: str
    volume_ml: float
    median_ml: float
    z: float


def outliers(volumes: Mapping[str, Mapping[str, float]]) -> list[Outlier]:
    """Return the volumes that are far from the others of their label, the farthest first.

    Args:
        volumes: label -> case id -> volume, in ml; volumes of 0 are not outliers, and do not count.
    """
    found = []
    for label, by_case in volumes.items():
        there = {case_id: ml for case_id, ml in by_case.items() if ml > 0}
        if len(there) < _FEWEST:
            continue
        logs = np.log(list(there.values()))
        middle = float(np.median(logs))
        spread = max(_LEAST_SPREAD, _MAD_TO_SD * float(np.median(np.abs(logs - middle))))
        for case_id, ml in there.items():
            z = (math.log(ml) - middle) / spread
            if abs(z) > _FAR:
                found.append(
                    Outlier(
                        case_id=case_id,
                        label=label,
                        volume_ml=ml,
                        median_ml=math.exp(middle),
                        z=z,
                    )
                )
    return sorted(found, key=lambda each: -abs(each.z))


def histogram(values: Sequence[float], bins: int) -> tuple[list[int], list[float]]:
    """Return how many values lie in each of some equal steps of their logarithm, and the ends.

    Args:
        values: above 0; at least one.
        bins: how many steps.
    """
    low, high = min(values), max(values)
    if low == high:
        low, high = low / 1.1, high * 1.1
    edges = np.geomspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    counts, _ = np.histogram(values, edges)
    return [int(count) for count in counts], [float(edge) for edge in edges]
