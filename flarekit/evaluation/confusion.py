"""Counts of right and wrong voxels, and what the papers derive from them; areas of ROC curves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Voxels by what they are and what they were taken for.

    Whatever is 0 / 0 here (the recall of an absent organ, say) is NaN. Precision and MCC of an
    empty prediction are 0, so that a mean does not leave a missed organ out, but NaN where the
    truth is empty too.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def truth(self) -> int:
        """Return the number of voxels in the truth."""
        return self.true_positive + self.false_negative

    @property
    def predicted(self) -> int:
        """Return the number of voxels in the prediction."""
        return self.true_positive + self.false_positive

    @property
    def _missed(self) -> bool:
        return self.predicted == 0 and self.truth > 0

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.true_positive, self.truth + self.predicted)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), the Jaccard index (MPU-Net's equation 24)."""
        return _ratio(self.true_positive, self.truth + self.false_positive)

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all voxels (MPU-Net's equation 21)."""
        right = self.true_positive + self.true_negative
        return _ratio(right, right + self.false_positive + self.false_negative)

    @property
    def precision(self) -> float:
        """TP / (TP + FP) (MPU-Net's equation 22)."""
        return 0.0 if self._missed else _ratio(self.true_positive, self.predicted)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), the sensitivity (MambaClinix)."""
        return _ratio(self.true_positive, self.truth)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP) (MPU-Net's equation 23)."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def mcc(self) -> float:
        """Matthews' correlation coefficient (MPU-Net's equation 25)."""
        agreeing = self.true_positive * self.true_negative
        opposed = self.false_positive * self.false_negative
        product = (
            self.predicted
            * self.truth
            * (self.true_negative + self.false_positive)
            * (self.true_negative + self.false_negative)
        )  # Python's integers do not overflow
        if not product:
            return 0.0 if self._missed else math.nan
        return (agreeing - opposed) / math.sqrt(product)

    @property
    def ravd(self) -> float:
        """|predicted - true volume| / true volume (Mamba-AHNet)."""
        return _ratio(abs(self.predicted - self.truth), self.truth)

    @property
    def balanced_accuracy(self) -> float:
        """(recall + specificity) / 2: what the area under the ROC curve is for one threshold."""
        return (self.recall + self.specificity) / 2


def confusion(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Confusion:
    """Count the voxels of two masks, bool and of one shape.

    Raises:
        ValueError: the shapes differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"shapes differ: {truth.shape} and {predicted.shape}")
    in_truth, in_predicted = int(np.count_nonzero(truth)), int(np.count_nonzero(predicted))
    in_both = int(np.count_nonzero(truth & predicted))
    return Confusion(
        true_positive=in_both,
        false_positive=in_predicted - in_both,
        false_negative=in_truth - in_both,
        true_negative=truth.size - in_truth - in_predicted + in_both,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


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
