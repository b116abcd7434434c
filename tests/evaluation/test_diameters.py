from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

from flarekit.evaluation.diameters import (
    axis_diameters,
    longest_line,
    recist_diameter_mm,
    symmetric_error,
)
from tests.evaluation import plain
from tests.evaluation.strategies import masks


def plane(*rows):
    return np.array([[character == "#" for character in row] for row in rows])[None]


def test_axes_of_a_bar_and_a_cross():
    assert axis_diameters(plane("#######", "#######")) == (math.hypot(6, 1), 1.0)
    cross = plane("...#...", "...#...", "#######", "...#...", "...#...")
    assert axis_diameters(cross) == (6.0, 4.0)


def test_the_largest_component_of_the_slice_with_the_longest_axis_counts():
    first = plane("####....", "........", "........")[0]
    second = plane("##.#####", "##......", "........")[0]
    third = plane("........", "######..", "........")[0]
    assert axis_diameters(np.stack([first, second, third]))[0] == 5.0


def test_a_corner_does_not_join_components():
    assert axis_diameters(plane("##...", "..###"))[0] == 2.0


def test_a_line_and_single_voxels():
    assert axis_diameters(plane("##")) == (1.0, 1.0)  # the only line there is, at 90 degrees off
    assert axis_diameters(plane("#.#")) == (0.0, 0.0)
    assert axis_diameters(np.zeros((2, 3, 4), bool)) == (0.0, 0.0)


@pytest.mark.long
@given(masks((2, 6, 7), 0.6))
@settings(deadline=None, max_examples=30)
def test_axes_are_those_of_going_through_all_pairs(mask):
    assert axis_diameters(mask) == plain.diameters(mask)


def test_axes_of_round_lesions_are_those_of_going_through_all_pairs():
    z, y, x = np.ogrid[:5, :24, :24]
    for radii in ((3, 7.3, 4.1), (2, 5.5, 9.2), (4, 8.0, 8.0)):
        lesion = ((z - 2) / radii[0]) ** 2 + ((y - 11) / radii[1]) ** 2 + ((x - 12) / radii[2]) ** 2
        turned = np.stack([np.tril(piece, 4) for piece in lesion <= 1])
        assert axis_diameters(turned) == plain.diameters(turned)


def test_pairs_are_looked_at_in_pieces_without_a_difference(monkeypatch):
    mask = np.random.default_rng(2).random((1, 20, 20)) < 0.7
    whole = axis_diameters(mask)
    monkeypatch.setattr("flarekit.evaluation.diameters._CHUNK", 7)
    assert axis_diameters(mask) == whole


def test_the_longest_diameter_is_in_millimetres_from_middle_to_middle():
    lesion = np.zeros((2, 5, 9), bool)
    lesion[1, 1:4, 2:7] = True
    spacing_mm_ZYX = (5.0, 2.0, 0.75)
    assert recist_diameter_mm(lesion, spacing_mm_ZYX) == pytest.approx(math.hypot(2 * 2, 4 * 0.75))
    slice_z, one, other = longest_line(lesion, spacing_mm_ZYX)
    assert slice_z == 1
    assert sorted(map(tuple, (one, other))) in ([(1, 2), (3, 6)], [(1, 6), (3, 2)])


def test_of_a_single_voxel_and_of_nothing_the_longest_diameter_is_0():
    lesion = np.zeros((2, 3, 4), bool)
    assert recist_diameter_mm(lesion, (1.0, 1.0, 1.0)) == 0
    lesion[1, 2, 3] = True
    assert recist_diameter_mm(lesion, (1.0, 1.0, 1.0)) == 0
    slice_z, one, other = longest_line(lesion)
    assert (slice_z, tuple(one), tuple(other)) == (1, (2, 3), (2, 3))


@pytest.mark.parametrize(
    ("one", "other", "error"), [(4, 6, 0.2), (6, 4, 0.2), (0, 5, 1), (0, 0, 0), (3, 3, 0)]
)
def test_symmetric_error(one, other, error):
    assert symmetric_error(one, other) == error
