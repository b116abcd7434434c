"""In what two grids differ, in words."""

from __future__ import annotations

import numpy as np
import pytest

from flarekit.core.same_grid import grid_difference
from flarekit.core.volume import Geometry

OBLIQUE = np.array([[0, -2.0, 0, 10], [-1.5, 0, 0, -20], [0, 0.0, 3.0, 5], [0, 0, 0, 1]])


def grid(affine=OBLIQUE, shape=(5, 6, 7)):
    return Geometry(shape_ZYX=shape, affine=np.array(affine, float), header=None)


def moved(mm):
    affine = OBLIQUE.copy()
    affine[2, 3] += mm
    return grid(affine)


def test_a_grid_does_not_differ_from_itself_nor_by_rounding():
    assert grid_difference(grid(), grid(), 0.0) == ""
    assert grid_difference(moved(0.009), grid(), 0.01) == ""
    assert grid_difference(moved(0.011), grid(), 0.01) != ""


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (grid(shape=(5, 6, 8)), "it has 8 x 6 x 5 voxels, not 7 x 6 x 5"),
        (moved(4), "its first voxel lies at (10, -20, 9) mm, not at (10, -20, 5)"),
        (grid(OBLIQUE @ np.diag([1, 2, 1, 1])), "its spacing is 1.5 x 4 x 3 mm, not 1.5 x 2 x 3"),
        (grid(OBLIQUE @ np.diag([1, 1, -1, 1])), "its axes run to PLI, not to PLS"),
        (grid(OBLIQUE[:, [1, 0, 2, 3]]), "its spacing is 2 x 1.5 x 3 mm, not 1.5 x 2 x 3"),
    ],
)
def test_the_one_thing_that_differs_is_told_with_both_values(changed, told):
    assert grid_difference(changed, grid(), 0.01).startswith(told)


def test_a_grid_that_is_turned_a_little_is_told_to_be_turned():
    cos, sin = np.cos(0.1), np.sin(0.1)
    turned = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ OBLIQUE
    assert "its axes, which run to PLS, are turned" in grid_difference(grid(turned), grid(), 0.01)


def test_a_drift_that_no_figure_shows_is_told_as_a_distance():
    drifted = grid(OBLIQUE @ np.diag([1.0005, 1, 1, 1]))
    assert grid_difference(drifted, grid(), 1e-3) == (
        "its voxels lie up to 0.0045 mm from where they should"
    )
