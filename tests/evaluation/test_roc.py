from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekit.evaluation.confusion import roc_auc


def test_a_hand_drawn_curve():
    probabilities = np.float16([0.9, 0.8, 0.7, 0.6, 0.5])
    truth = np.array([True, True, False, True, False])
    assert roc_auc(probabilities, truth) == pytest.approx(5 / 6)


def test_right_is_one_wrong_is_zero_and_nothing_learnt_a_half():
    truth = np.array([[True, False], [False, True]])
    assert roc_auc(truth.astype(np.float16), truth) == 1
    assert roc_auc((~truth).astype(np.float16), truth) == 0
    assert roc_auc(np.full((2, 2), 0.3, np.float16), truth) == 0.5


def test_without_a_voxel_on_one_side_there_is_no_curve():
    for truth in (np.zeros(3, bool), np.ones(3, bool)):
        assert math.isnan(roc_auc(np.zeros(3, np.float16), truth))
    with pytest.raises(ValueError, match="shapes differ"):
        roc_auc(np.zeros(3, np.float16), np.ones(4, bool))


@pytest.mark.long
@given(st.lists(st.tuples(st.floats(0, 1, width=16), st.booleans()), min_size=2, max_size=40))
def test_it_is_the_share_of_pairs_that_are_in_the_right_order(voxels):
    probabilities = np.float16([each for each, _ in voxels])
    truth = np.array([each for _, each in voxels])
    pairs = [(a, b) for a in probabilities[truth] for b in probabilities[~truth]]
    if pairs:
        won = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)
        assert roc_auc(probabilities, truth) == pytest.approx(won / len(pairs))
    else:
        assert math.isnan(roc_auc(probabilities, truth))
