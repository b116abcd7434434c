"""Dice similarity coefficient per label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def dice_per_label(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], labels: Mapping[str, int]
) -> dict[str, float]:
    """Return 2 |P and T| / (|P| + |T|) for every label; 1 where neither has it (FLARE's rule).

    Args:
        predicted: label map of any shape.
        truth: label map of the same shape.
        labels: label name -> value.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"shapes differ: {predicted.shape} and {truth.shape}")
    predicted_counts = np.bincount(predicted.ravel(), minlength=256)
    truth_counts = np.bincount(truth.ravel(), minlength=256)
    overlaps = np.bincount(truth[predicted == truth].ravel(), minlength=256)
    scores = {}
    for name, value in labels.items():
        both = int(predicted_counts[value] + truth_counts[value])
        scores[name] = 1.0 if both == 0 else 2 * int(overlaps[value]) / both
    return scores
