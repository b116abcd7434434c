from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from flarekit.evaluation.confusion import Confusion, confusion
from tests.evaluation.strategies import PAIRS

COUNTS = Confusion(true_positive=30, false_positive=10, false_negative=20, true_negative=40)


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("dice", 60 / 90),
        ("iou", 30 / 60),
        ("accuracy", 70 / 100),
        ("precision", 30 / 40),
        ("recall", 30 / 50),
        ("specificity", 40 / 50),
        ("mcc", (30 * 40 - 10 * 20) / math.sqrt(40 * 50 * 50 * 60)),
        ("ravd", 10 / 50),
        ("balanced_accuracy", (0.6 + 0.8) / 2),
    ],
)
def test_figures_of_counts_by_hand(figure, value):
    assert getattr(COUNTS, figure) == pytest.approx(value, rel=1e-15)


def test_voxels_are_counted():
    truth = np.array([1, 1, 1, 0, 0, 0], bool)
    predicted = np.array([1, 1, 0, 1, 0, 0], bool)
    assert confusion(truth, predicted) == Confusion(
        true_positive=2, false_positive=1, false_negative=1, true_negative=2
    )


def test_the_coefficient_of_a_whole_body_does_not_overflow():
    counts = Confusion(
        true_positive=10**8, false_positive=10**7, false_negative=10**7, true_negative=10**9
    )
    assert counts.mcc == pytest.approx(0.9, abs=0.01)


@pytest.mark.long
@given(PAIRS)
def test_figures_are_bounded_and_symmetric_where_they_should_be(pair):
    truth, predicted = pair
    one, other = confusion(truth, predicted), confusion(predicted, truth)
    for name in (
        "dice",
        "iou",
        "accuracy",
        "precision",
        "recall",
        "specificity",
        "balanced_accuracy",
    ):
        assert math.isnan(getattr(one, name)) or 0 <= getattr(one, name) <= 1
    assert math.isnan(one.mcc) or -1 - 1e-12 <= one.mcc <= 1 + 1e-12
    for name in ("dice", "iou", "accuracy"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), nan_ok=True)
    if truth.any() and predicted.any():
        assert one.precision == other.recall
        assert one.iou == pytest.approx(one.dice / (2 - one.dice))


@pytest.mark.long
@given(PAIRS)
def test_a_mask_agrees_with_itself(pair):
    truth = pair[0]
    counts = confusion(truth, truth)
    assert counts.accuracy == 1
    if truth.any():
        assert counts.dice == counts.iou == counts.precision == counts.recall == 1
        assert counts.ravd == 0
    if truth.any() and not truth.all():
        assert counts.mcc == pytest.approx(1)
        assert counts.balanced_accuracy == 1


def test_a_missed_organ_scores_zero_and_an_absent_one_nothing():
    organ, nothing = np.array([True, False]), np.array([False, False])
    missed = confusion(organ, nothing)
    assert (missed.dice, missed.precision, missed.recall, missed.mcc, missed.ravd) == (
        0,
        0,
        0,
        0,
        1,
    )
    absent = confusion(nothing, nothing)
    for name in ("dice", "iou", "precision", "recall", "mcc", "ravd", "balanced_accuracy"):
        assert math.isnan(getattr(absent, name))
    assert absent.accuracy == absent.specificity == 1


def test_the_area_under_the_curve_is_that_of_the_sorted_voxels():
    rng = np.random.default_rng(1)
    truth, predicted = rng.random((2, 40)) < 0.5
    pairs = [(p, n) for p in predicted[truth] for n in predicted[~truth]]
    won = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs)
    assert confusion(truth, predicted).balanced_accuracy == pytest.approx(won / len(pairs))


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        confusion(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
