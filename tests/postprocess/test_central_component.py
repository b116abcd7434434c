from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from flarekit import postprocess
from flarekit.core.spec import Rule
from flarekit.postprocess import Scan

LABELS = {"lesion": 1, "other": 2}
RULE = Rule(name="central_component", labels=("lesion",))

label_maps = st.tuples(*[st.integers(1, 8)] * 3).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 1, 2]))
)


def apply(label_map, spacing=(1.0, 1.0, 1.0)):
    scan = Scan(spacing_mm_ZYX=spacing, channels={})
    return postprocess.apply_rules(label_map, [RULE], LABELS, voxel_ml=1.0, scan=scan)


@pytest.mark.long
@given(label_maps)
def test_one_component_remains_by_any_count_and_only_where_it_may_be(label_map):
    after = apply(label_map)
    np.testing.assert_array_equal(after == 2, label_map == 2)
    _, count = ndimage.label(after == 1)  # faces only: the strictest count
    assert count == (0 if (label_map == 2).all() else 1)
    if (label_map == 1).any():
        assert not (after[label_map != 1] == 1).any()


@pytest.mark.long
@given(label_maps)
def test_what_remains_is_as_near_to_the_centre_as_anything_was(label_map):
    lesion = label_map == 1
    if lesion.any():
        after = apply(label_map) == 1
        grids = np.indices(label_map.shape).reshape(3, -1)
        centre = np.array([n // 2 for n in label_map.shape])[:, None]
        squares = ((grids - centre) ** 2).sum(0).reshape(label_map.shape)
        assert squares[after].min() == squares[lesion].min()


@pytest.mark.long
@given(label_maps)
def test_applied_twice_it_is_applied_once(label_map):
    once = apply(label_map)
    np.testing.assert_array_equal(apply(once), once)


def test_the_component_at_the_centre_wins_over_a_larger_one():
    label_map = np.zeros((5, 9, 9), np.uint8)
    label_map[2, 4, 4] = 1
    label_map[:, :2] = 1
    assert apply(label_map).sum() == 1


def test_the_centre_of_an_even_axis_is_the_upper_middle_voxel():
    label_map = np.zeros((4, 4, 4), np.uint8)
    label_map[1, 1, 1] = label_map[2, 2, 2] = 1
    assert np.argwhere(apply(label_map)).tolist() == [[2, 2, 2]]


def test_near_is_measured_in_millimetres():
    label_map = np.zeros((9, 9, 9), np.uint8)
    label_map[6, 4, 4] = label_map[4, 4, 7] = 1
    assert np.argwhere(apply(label_map, (5.0, 1.0, 1.0))).tolist() == [[4, 4, 7]]
    assert np.argwhere(apply(label_map, (1.0, 1.0, 5.0))).tolist() == [[6, 4, 4]]


def test_of_two_equally_near_the_larger_stays():
    label_map = np.zeros((3, 3, 9), np.uint8)
    label_map[1, 1, 2] = 1
    label_map[1, 1, 6:8] = 1
    assert np.argwhere(apply(label_map))[:, 2].tolist() == [6, 7]


def test_an_empty_label_becomes_a_ball_of_ten_millimetres_at_the_centre():
    after = apply(np.zeros((32, 32, 32), np.uint8), (2.5, 1.0, 1.0))
    assert after[16, 16, 16] == 1
    z, y, x = np.nonzero(after)
    assert (np.ptp(z) * 2.5, np.ptp(y), np.ptp(x)) == (10, 10, 10)


def test_the_ball_leaves_other_labels_alone():
    label_map = np.zeros((21, 21, 21), np.uint8)
    label_map[8:] = 2
    after = apply(label_map)
    assert (after[8:] == 2).all()
    assert after[7, 10, 10] == 1
    full = np.full((3, 3, 3), 2, np.uint8)
    np.testing.assert_array_equal(apply(full), full)
