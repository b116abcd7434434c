"""Area under the receiver operating characteristic, over all thresholds of a probability."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_STEPS = int(np.array(1, np.float16).view(np.uint16)) + 1  # float16 numbers from 0 to 1


def roc_auc(probabilities: NDArray[np.float16], truth: NDArray[np.bool_]) -> float:
    """Return how often a voxel of the truth is more probable than another; ties count half.

    That is the area under the curve of true against false positive rates over every threshold
    (Mamba-AHNet section V.C), exact for float16 from 0 to 1. NaN where the truth is empty or
    everything.

    Raises:
        ValueError: the shapes differ.
    """
    if probabilities.shape != truth.shape:
        raise ValueError(f"shapes differ: {probabilities.shape} and {truth.shape}")
    # the bits of numbers that are not negative are in the order of the numbers
    steps = np.abs(np.ascontiguousarray(probabilities)).view(np.uint16).ravel()
    all_of = np.bincount(steps, minlength=_STEPS)
    inside = np.bincount(steps[truth.ravel()], minlength=_STEPS)
    outside = all_of - inside
    positives, negatives = int(inside.sum()), int(outside.sum())
    if not positives or not negatives:
        return math.nan
    below = np.cumsum(outside) - outside
    won = float((inside * (below + outside / 2)).sum())
    return won / (float(positives) * float(negatives))
