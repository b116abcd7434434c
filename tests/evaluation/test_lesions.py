from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.evaluation.lesions import f1_of, match_lesions
from tests.evaluation import plain
from tests.evaluation.strategies import masks


def test_lesions_counted_by_hand():
    truth, predicted = np.zeros((2, 10, 10, 10), bool)
    truth[1:3, 1:3, 1:3] = True  # 8 voxels, touched but with an IoU of 1/14
    predicted[2:4, 2:4, 2:4] = True
    predicted[2, 2, 2] = True
    truth[6:9, 6:9, 6:9] = True  # 27 voxels, 18 of them found
    predicted[6:8, 6:9, 6:9] = True
    truth[0, 9, 0] = True  # missed
    predicted[9, 0, 9] = True  # spurious
    predicted[9, 0, 7] = True  # spurious, apart from the one before
    match = match_lesions(truth, predicted)
    assert (match.missed_voxels, match.spurious_voxels) == (1, 2)
    assert (match.found, match.missed, match.spurious) == (1, 2, 3)


def test_voxels_that_share_an_edge_are_one_lesion_and_a_corner_does_not_join():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = True
    assert match_lesions(mask, mask).found == 1
    mask[0, 1, 1] = False
    mask[1, 1, 1] = True
    assert match_lesions(mask, mask).found == 2


def test_two_predictions_of_one_lesion_are_not_punished():
    truth, predicted = np.zeros((2, 3, 3, 9), bool)
    truth[1, 1, :] = True
    predicted[1, 1, :4] = predicted[1, 1, 5:] = True
    match = match_lesions(truth, predicted)
    assert (match.found, match.missed, match.spurious) == (1, 0, 0)


@pytest.mark.long
@given(st.tuples(masks((5, 6, 4), 0.2), masks((5, 6, 4), 0.2)))
@settings(deadline=None, max_examples=50)
def test_matches_are_those_of_going_through_lesions_one_by_one(pair):
    truth, predicted = pair
    match = match_lesions(truth, predicted)
    assert match.missed_voxels == plain.untouched(truth, predicted)
    assert match.spurious_voxels == plain.untouched(predicted, truth)
    assert (match.found, match.missed, match.spurious) == plain.lesion_counts(truth, predicted)


@pytest.mark.long
@given(masks((5, 6, 7), 0.2))
@settings(deadline=None, max_examples=50)
def test_a_mask_matches_itself(mask):
    match = match_lesions(mask, mask)
    assert match.missed_voxels == match.spurious_voxels == match.missed == match.spurious == 0
    if mask.any():
        assert f1_of(match.found, match.spurious, match.missed) == 1


def test_f1_by_hand():
    assert f1_of(3, 1, 2) == 6 / 9
    assert f1_of(0, 5, 2) == 0
    assert math.isnan(f1_of(0, 5, 0))
    with pytest.raises(TypeError):
        f1_of(1, 2)  # type: ignore[call-arg]
