"""Outlines, rasterised again, are the mask: parts, holes, islands in holes, corners that touch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flarekit.conventions.dicom.outlines import outlines_of


def rasterised(polygons, shape):
    """Return which pixels' centres lie within, by counting crossings of each polygon."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    mask = np.zeros(shape, bool)
    for polygon in polygons:
        inside = np.zeros(shape, bool)
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y0 != y1:
                crossed = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
                inside ^= crossed
        assert not (mask & inside).any()  # parts do not overlap
        mask |= inside
    return mask


@pytest.mark.long
@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_rasterised_again_every_mask_is_itself(mask):
    np.testing.assert_array_equal(rasterised(outlines_of(mask), mask.shape), mask)


def test_each_part_is_one_polygon_whatever_holes_it_has():
    y, x = np.mgrid[:100, :100]
    mask = np.hypot(y - 50, x - 50) < 45
    for hole in ((50, 30), (50, 60), (30, 50)):
        mask &= np.hypot(y - hole[0], x - hole[1]) > 8
    mask |= np.hypot(y - 50, x - 30) < 3  # an island in a hole
    polygons = outlines_of(mask)
    assert len(polygons) == 2
    np.testing.assert_array_equal(rasterised(polygons, mask.shape), mask)


def test_parts_that_touch_by_a_corner_stay_apart():
    assert len(outlines_of(np.eye(3, dtype=bool))) == 3


def test_an_outline_runs_along_the_edges_of_pixels():
    mask = np.zeros((4, 5), bool)
    mask[1, 2:4] = True
    (polygon,) = outlines_of(mask)
    assert sorted(map(tuple, polygon)) == [(1.5, 0.5), (1.5, 1.5), (3.5, 0.5), (3.5, 1.5)]


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3, 3)])
def test_nothing_has_no_outline(shape):
    assert outlines_of(np.zeros(shape, bool)) == []
