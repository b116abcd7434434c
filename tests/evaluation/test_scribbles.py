"""Scribbles and clicks as an organiser draws them, from a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flarekit.evaluation.scribbles import (
    BACKGROUND,
    KINDS,
    TUMOR,
    boundary,
    corrective_scribble,
    first_of,
    simulated_clicks,
)

SHAPE = (9, 24, 30)
masks = arrays(np.bool_, (4, 6, 7))


def rng(seed=0):
    return np.random.default_rng(seed)


def block(*parts):
    mask = np.zeros(SHAPE, bool)
    for part in parts:
        mask[part] = True
    return mask


BIG = np.s_[2:7, 4:12, 4:20]
SMALL = np.s_[1:3, 18:22, 24:28]


@pytest.mark.parametrize("kind", KINDS)
def test_a_missed_lesion_gets_a_scribble_on_tumor_within_it(kind):
    truth = block(BIG, SMALL)
    name, places = corrective_scribble(truth, block(SMALL), kind, rng())
    assert name == TUMOR
    assert block(BIG)[tuple(places.T)].all()
    assert len(np.unique(places[:, 0])) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_error_decides_and_too_much_is_background(kind):
    name, places = corrective_scribble(block(SMALL), block(BIG), kind, rng())
    assert name == BACKGROUND
    assert block(BIG)[tuple(places.T)].all()


def test_the_slice_is_the_one_with_most_of_the_error():
    error = block(BIG)
    error[4, 3:13, 3:21] = True
    _, places = corrective_scribble(error, block(), "random", rng())
    assert set(places[:, 0]) == {4}


def test_a_centerline_runs_through_the_middle_along_the_longer_side():
    _, places = corrective_scribble(block(BIG), block(), "centerline", rng())
    rows, columns = places[:, 1], places[:, 2]
    assert set(rows) <= {7, 8}
    assert sorted(columns) == list(range(4, 20))


def test_a_boundary_follows_one_side_of_the_outermost_pixels():
    _, places = corrective_scribble(block(BIG), block(), "boundary", rng())
    edge = (places[:, 1] == 4) | (places[:, 1] == 11) | (places[:, 2] == 4) | (places[:, 2] == 19)
    assert edge.all()
    assert len(places) == (2 * 8 + 2 * 14) // 2


@pytest.mark.parametrize("kind", KINDS)
def test_of_an_error_that_falls_apart_in_its_slice_the_largest_part_is_marked(kind):
    error = block(np.s_[3, 4:10, 4:10], np.s_[3, 4:7, 20:23], np.s_[4, 4:7, 4:23])
    error[4, 4:7, 7:20] = False  # one part by way of the slices beside it
    error[2, 4:7, 4:23] = True
    error[2, 5:7] = False
    _, places = corrective_scribble(error, block(), kind, rng())
    assert set(places[:, 0]) == {3}
    assert (places[:, 2] < 10).all()


@pytest.mark.parametrize("seed", range(8))
def test_the_pixels_of_a_boundary_follow_each_other_around_the_area(seed):
    rows, columns = np.ogrid[:31, :31]
    disc = np.hypot(rows - 15, columns - 15) < 12
    places = boundary(disc, rng(seed)) - 15
    angles = np.sort(np.arctan2(*places.T))
    gaps = np.diff([*angles, angles[0] + 2 * np.pi])
    assert np.sort(gaps)[-1] > 0.9 * np.pi
    assert np.sort(gaps)[-2] < 0.3


def test_a_perfect_mask_gets_no_scribble():
    assert corrective_scribble(block(BIG), block(BIG), "random", rng()) is None


@pytest.mark.long
@given(masks, masks, st.sampled_from(KINDS), st.integers(0, 99))
def test_a_scribble_lies_on_errors_of_its_name_and_comes_from_the_seed(truth, mask, kind, seed):
    drawn = corrective_scribble(truth, mask, kind, rng(seed))
    if drawn is None:
        assert (truth == mask).all()
        return
    name, places = drawn
    assert len(places) > 0
    wrong = truth & ~mask if name == TUMOR else mask & ~truth
    assert wrong[tuple(places.T)].all()
    _, again = corrective_scribble(truth, mask, kind, rng(seed))
    np.testing.assert_array_equal(places, again)


def test_clicks_go_round_the_lesions_and_lie_on_hot_background():
    truth = block(BIG, SMALL)
    uptake = np.ones(SHAPE)
    uptake[8, 14:24, 0:20] = 9.0
    clicks = simulated_clicks(truth, uptake, 4, rng())
    assert truth[tuple(clicks[TUMOR].T)].all()
    assert [bool(block(BIG)[tuple(place)]) for place in clicks[TUMOR]] == [True, False, True, False]
    assert not truth[tuple(clicks[BACKGROUND].T)].any()
    assert (uptake[tuple(clicks[BACKGROUND].T)] == 9.0).all()
    two = first_of(clicks, 2)
    np.testing.assert_array_equal(two[TUMOR], clicks[TUMOR][:2])


def test_without_a_lesion_only_background_is_clicked():
    clicks = simulated_clicks(block(), np.ones(SHAPE), 3, rng())
    assert (len(clicks[TUMOR]), len(clicks[BACKGROUND])) == (0, 3)
