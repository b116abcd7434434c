"""Counts of right and wrong voxels, and what the papers derive from them."""

from __future__ import annotations

import math
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
