from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekit.engine._tiles import fitted_rows, gaussian_weights, tile_rows, tile_starts


@given(st.integers(1, 400), st.integers(1, 128), st.floats(0.05, 1.0))
def test_tiles_cover_every_voxel_and_never_leave_the_axis(size: int, tile: int, step: float):
    starts = tile_starts(size, tile, step)
    covered = np.zeros(max(size, tile), bool)
    for start in starts:
        covered[start : start + tile] = True
    assert covered.all()
    assert starts[0] == 0
    assert max(starts) + tile <= max(size, tile)
    assert starts == sorted(set(starts))


@given(st.integers(1, 400), st.integers(1, 128), st.floats(0.05, 1.0))
def test_no_two_neighbouring_tiles_are_further_apart_than_the_step(size, tile, step):
    starts = tile_starts(size, tile, step)
    assert max(np.diff(starts), default=0) <= max(1, tile * step) + 1


def test_starts_of_a_known_axis():
    assert tile_starts(100, 40, 0.5) == [0, 20, 40, 60]
    assert tile_starts(30, 40, 0.5) == [0]
    assert tile_starts(80, 40, 1.0) == [0, 40]


def test_a_2d_window_sees_every_slice_once_several_together():
    rows = tile_rows((10, 16, 16), (1, 16, 16), 0.5, slices_at_once=4)
    assert [(row.z, row.depth) for row in rows] == [(0, 4), (4, 4), (8, 2)]


def test_weights_are_largest_in_the_middle_and_nowhere_zero():
    weights = gaussian_weights((8, 16, 32))
    assert weights.shape == (8, 16, 32)
    assert np.unravel_index(weights.argmax(), weights.shape) == (4, 8, 16)
    assert weights.min() > 0


def test_weights_fall_to_the_gaussian_of_an_eighth_of_the_tile():
    weights = gaussian_weights((1, 1, 65))[0, 0]
    np.testing.assert_allclose(weights[32 + 8], np.exp(-0.5 * (8 / (65 / 8)) ** 2), rtol=1e-6)


@pytest.mark.long
@given(st.data())
def test_fitted_tiles_cover_all_that_is_needed_and_stay_inside(data):
    tile = data.draw(st.tuples(st.sampled_from([1, 4]), st.integers(3, 6), st.integers(3, 6)))
    shape = tuple(data.draw(st.integers(max(n, 2), 24)) for n in tile)
    needed = np.random.default_rng(data.draw(st.integers(0, 99))).random(shape) < 0.01
    rows = fitted_rows(needed, tile, 0.5, slices_at_once=2)
    covered = np.zeros(shape, bool)
    for row in rows:
        for y, x in row.places:
            part = np.s_[row.z : row.z + row.depth, y : y + tile[1], x : x + tile[2]]
            assert covered[part].shape == (row.depth, *tile[1:])
            assert needed[part].any()
            covered[part] = True
    assert covered[needed].all()
    assert [row.z for row in rows] == sorted({row.z for row in rows})


def test_fitted_tiles_stand_around_what_is_needed_and_not_around_the_volume():
    needed = np.zeros((30, 30, 30), bool)
    needed[10:13, 20:23, 4:6] = True
    (row,) = fitted_rows(needed, (5, 5, 5), 0.5)
    assert (row.z, row.places) == (9, ((19, 3),))


def test_where_nothing_is_needed_there_are_no_fitted_tiles():
    assert fitted_rows(np.zeros((8, 8, 8), bool), (4, 4, 4), 0.5) == []


@given(st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)))
def test_weights_are_the_product_of_a_gaussian_along_each_axis(tile):
    weights = np.ones((), np.float64)
    for size in tile:
        distance = np.arange(size) - size // 2
        weights = weights[..., None] * np.exp(-0.5 * (distance / (size / 8)) ** 2)
    expected = np.maximum(weights / weights.max(), 1e-12).astype(np.float32)
    np.testing.assert_array_equal(gaussian_weights(tile), expected)
