"""Interpolation along an axis: one map, however it is asked."""

from __future__ import annotations

import numpy as np
import pytest

from flarekit.preprocess.axis_maps import LinearMap, axis_map, matrix_of
from flarekit.preprocess.resample import resample, resampled_shape

COUNTS = [(5, 9), (9, 5), (6, 6), (1, 4), (4, 1), (40, 70), (70, 31)]


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("source", "target"), COUNTS)
def test_a_map_says_of_its_weights_what_it_does_with_voxels(source, target, order):
    mapped = axis_map(source, target, order)
    assert (mapped.source, mapped.target) == (source, target)
    matrix = matrix_of(mapped)
    whole = mapped.apply(np.eye(source, dtype=np.float32), 0, slice(None), 0)
    np.testing.assert_allclose(whole, matrix, atol=1e-6)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    if order < 2:
        assert {len(mapped.weights(k)) for k in range(target)} <= {1, 2}
        assert matrix.min() >= 0


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("source", "target"), COUNTS)
def test_a_part_needs_only_the_voxels_it_looks_at(source, target, order):
    mapped = axis_map(source, target, order)
    voxels = np.random.default_rng(0).normal(size=(3, source, 2)).astype(np.float32)
    whole = mapped.apply(voxels, 1, slice(None), 0)
    assert whole.shape == (3, target, 2)
    for part in (slice(0, 1), slice(target // 2, target), slice(target - 1, target)):
        low, high = int(mapped.first_T[part].min()), int(mapped.last_T[part].max())
        some = mapped.apply(voxels[:, low : high + 1], 1, part, low)
        np.testing.assert_allclose(some, whole[:, part], atol=1e-6)


@pytest.mark.parametrize(("source", "target"), COUNTS)
def test_a_thinned_map_gives_the_same_from_fewer_voxels(source, target):
    mapped = axis_map(source, target, 1)
    assert isinstance(mapped, LinearMap)
    voxels = np.random.default_rng(1).normal(size=source).astype(np.float32)
    kept, thinned = mapped.thinned()
    assert len(kept) == thinned.source <= min(source, 2 * target)
    np.testing.assert_array_equal(
        thinned.apply(voxels[kept], 0, slice(None), 0), mapped.apply(voxels, 0, slice(None), 0)
    )


def test_linear_weights_are_those_of_voxel_centres():
    np.testing.assert_allclose(
        matrix_of(axis_map(2, 4, 1)), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    )
    np.testing.assert_allclose(matrix_of(axis_map(4, 2, 1)), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(matrix_of(axis_map(3, 1, 1)), [[0, 1, 0]])
    np.testing.assert_allclose(matrix_of(axis_map(3, 3, 1)), np.eye(3))


def test_the_nearest_voxel_between_two_is_the_later():
    np.testing.assert_array_equal(matrix_of(axis_map(4, 2, 0)).argmax(axis=1), [1, 3])
    np.testing.assert_array_equal(matrix_of(axis_map(2, 3, 0)).argmax(axis=1), [0, 1, 1])
    np.testing.assert_array_equal(
        matrix_of(axis_map(3, 7, 0)).argmax(axis=1), [0, 0, 1, 1, 1, 2, 2]
    )


def test_a_cubic_of_a_parabola_is_the_parabola_away_from_the_ends():
    x = np.arange(40, dtype=np.float32)
    at = (np.arange(80) + 0.5) / 2 - 0.5
    found = axis_map(40, 80, 3).apply(x * x / 40, 0, slice(None), 0)
    np.testing.assert_allclose(found[24:56], (at * at / 40)[24:56], atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "spacing", "target", "expected"),
    [
        ((10, 20, 30), (2.0, 1.0, 1.0), (1.0, 2.0, 1.0), (20, 10, 30)),
        ((10, 20, 30), (2.0, 1.0, 1.0), (3.0, 3.0, 3.0), (7, 7, 10)),
        ((1, 1, 1), (1.0, 1.0, 1.0), (9.0, 9.0, 9.0), (1, 1, 1)),
    ],
)
def test_a_grid_keeps_the_extent_and_has_a_voxel_at_least(shape, spacing, target, expected):
    assert resampled_shape(shape, spacing, target) == expected


@pytest.mark.parametrize("orders", [(1, 1, 1), (3, 3, 3), (0, 3, 3), (1, 0, 3)])
def test_axes_are_resampled_one_after_the_other(orders):
    voxels = np.random.default_rng(2).normal(size=(6, 9, 7)).astype(np.float32)
    shape = (8, 5, 11)
    found = resample(lambda part: voxels[part], voxels.shape, shape, orders)
    maps = [
        matrix_of(axis_map(n, m, k)) for n, m, k in zip(voxels.shape, shape, orders, strict=True)
    ]
    expected = np.einsum("zyx,az,by,cx->abc", voxels, *maps, optimize=True)
    if max(orders) > 1:
        expected = expected.clip(voxels.min(), voxels.max())
    np.testing.assert_allclose(found, expected, atol=2e-5)
