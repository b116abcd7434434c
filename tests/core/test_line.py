"""What a line across a lesion says of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekit.core.line import body_of_line, distances_mm, lesion_at_line, line_ends, within_reach

SHAPE, SPACING = (15, 41, 41), (2.0, 1.0, 1.0)
LINE = np.array([(7, 20, x) for x in range(12, 29)])  # 16 mm along X


def ball(centre, radius_mm):
    axes = [(np.arange(n) - at) * mm for n, at, mm in zip(SHAPE, centre, SPACING, strict=True)]
    z, y, x = np.ix_(*axes)
    return z**2 + y**2 + x**2 <= radius_mm**2


@given(st.permutations(list(range(len(LINE)))))
def test_the_ends_of_a_line_do_not_depend_on_the_order_of_its_voxels(order):
    ends = {tuple(end) for end in line_ends(LINE[order], SPACING)}
    assert ends == {(7, 20, 12), (7, 20, 28)}


def test_what_is_further_from_an_end_than_the_line_is_long_is_out_of_reach():
    near = within_reach(SHAPE, SPACING, LINE, 1.0)
    z, y, x = np.indices(SHAPE)
    for end in (12, 28):
        far = (2.0 * (z - 7)) ** 2 + (y - 20) ** 2 + (x - end) ** 2 > 17.0**2
        assert not (near & far).any()
    assert near[tuple(LINE.T)].all()


def test_a_leak_beyond_reach_is_cut_and_the_component_at_the_line_is_kept():
    found = ball((7, 20, 20), 8.0)
    leak = found.copy()
    leak[7, 20:23, 20:41] = True
    leak[1, 1, 1] = True
    lesion = lesion_at_line(leak, SPACING, LINE, 1.15)
    assert not lesion[1, 1, 1]
    assert not lesion[7, 21, 33:].any()
    assert lesion[found].all()


def test_without_a_prior_only_the_component_counts():
    leak = ball((7, 20, 20), 8.0)
    leak[7, 20:23, 20:41] = True
    np.testing.assert_array_equal(lesion_at_line(leak, SPACING, LINE, 0.0), leak)


@pytest.mark.parametrize("found", [np.zeros(SHAPE, bool), ball((2, 5, 5), 3.0)])
def test_where_nothing_is_found_at_the_line_its_body_is_the_lesion(found):
    body = body_of_line(SHAPE, SPACING, LINE)
    for reach in (0.0, 1.15):
        np.testing.assert_array_equal(lesion_at_line(found, SPACING, LINE, reach), body)


def test_a_lesion_that_the_scan_does_not_show_has_the_body_of_its_line():
    found = ball((7, 20, 20), 8.0)
    body = body_of_line(SHAPE, SPACING, LINE)
    lesion = lesion_at_line(found, SPACING, LINE, 1.15, visible=False)
    assert lesion[body].all()


def test_half_a_line_that_was_not_found_is_filled():
    found = ball((7, 20, 14), 3.0)
    lesion = lesion_at_line(found, SPACING, LINE, 1.15)
    assert lesion[body_of_line(SHAPE, SPACING, LINE)].all()


def test_a_body_is_as_long_as_its_line_in_any_direction():
    places = np.array([(7, 10 + k, 12 + 2 * k) for k in range(9)])
    body = body_of_line(SHAPE, SPACING, places)
    inside = np.argwhere(body[7])
    lengths = np.linalg.norm(inside[:, None] - inside[None], axis=2)
    assert lengths.max() == pytest.approx(np.hypot(8, 16), abs=1e-9)


@pytest.mark.parametrize("place", [(0, 0, 0), (14, 40, 40), (7, 20, 20)])
def test_a_line_of_one_voxel_is_a_small_lesion_even_at_a_corner(place):
    lesion = lesion_at_line(np.ones(SHAPE, bool), SPACING, np.array([place]), 1.15)
    assert lesion[place]
    assert 1 < lesion.sum() < 1000


def test_voxels_are_as_far_as_from_the_nearest_voxel_of_a_line():
    at = np.array([(7, 20, 10), (9, 20, 20), (7, 23, 32)])
    np.testing.assert_allclose(distances_mm(at, LINE, SPACING), [2.0, 4.0, 5.0])
