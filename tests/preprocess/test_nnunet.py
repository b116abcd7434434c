from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from flarekit.core.grid import Nnunet
from flarekit.core.spec import parse_spec
from flarekit.core.volume import Geometry, Volume
from flarekit.preprocess import prepare
from flarekit.preprocess.nnunet import padding_to, separate_axis, spline_orders
from tests.preprocess.whole import resample_spline, restore_logits


def spec_of(spacing, tile=(4, 4, 4), **nnunet):
    return parse_spec(
        {
            "name": "n",
            "title": "t",
            "convention": "flare",
            "architecture": {"name": "nnunet"},
            "channels": [{"name": "CT", "intensity": {"kind": "z_score", "masked": True}}],
            "crop": {"kind": "nonzero"},
            "grid": {"spacing_mm_ZYX": spacing, "tile_ZYX": tile},
            "nnunet": nnunet,
            "labels": {"organ": 1, "lesion": 2},
            "weights": {"sha256": "0" * 64, "parameters": 1},
        },
        source="test",
    )


def volume_of(voxels_ZYX, spacing_mm_ZYX):
    affine = np.diag([*spacing_mm_ZYX[::-1], 1.0])
    geometry = Geometry(shape_ZYX=voxels_ZYX.shape, affine=affine, header=None)
    return Volume(voxels_ZYX=voxels_ZYX.astype(np.float32), geometry=geometry, path=Path("x"))


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0), None),
        ((5.0, 0.8, 0.8), (3.0, 1.5, 1.5), 0),
        ((1.0, 1.0, 1.0), (1.0, 4.0, 1.0), 1),
        ((0.2, 1.2, 1.2), (1.0, 1.0, 1.0), None),  # two coarsest axes
        ((3.0, 1.0, 1.0), (1.0, 3.0, 1.0), None),  # nnU-Net's limit itself
        ((3.1, 1.0, 1.0), (1.0, 3.0, 1.0), 0),
    ],
)
def test_the_coarsest_axis_goes_by_itself_where_the_spacing_is_anisotropic(spacing, target, axis):
    assert separate_axis(Nnunet(), spacing, target) == axis


def test_one_axis_may_have_an_order_of_its_own():
    assert spline_orders(3, 0, 1) == (1, 3, 3)
    assert spline_orders(3, 2, 0) == (3, 3, 0)
    assert spline_orders(1, None, 0) == (1, 1, 1)


def test_a_volume_is_padded_to_a_tile_as_even_as_can_be():
    assert padding_to((3, 4, 9), (8, 8, 8)) == ((2, 3), (2, 2), (0, 0))
    assert padding_to((7, 8, 1), (8, 8, 2)) == ((0, 1), (0, 0), (0, 1))


def test_separate_z_can_be_forced_and_forbidden():
    fine, coarse = (1.0, 1.0, 2.0), (9.0, 1.0, 1.0)
    assert separate_axis(Nnunet(separate_z=True), fine, fine) == 2
    assert separate_axis(Nnunet(separate_z=False), coarse, coarse) is None


def test_linear_splines_are_scipy_s():
    voxels = np.random.default_rng(0).normal(size=(5, 9, 7)).astype(np.float32)
    ours = resample_spline(voxels, (8, 6, 10), order=1, axis=None, axis_order=0)
    theirs = ndimage.zoom(voxels, (8 / 5, 6 / 9, 10 / 7), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_splines_never_leave_the_range_of_the_input():
    voxels = (np.indices((6, 6, 6)).sum(axis=0) > 8).astype(np.float32)
    ours = resample_spline(voxels, (13, 13, 13), order=3, axis=None, axis_order=0)
    assert ours.min() >= 0
    assert ours.max() <= 1


def test_a_separate_axis_takes_the_nearest_slice():
    voxels = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 3, 3), np.float32)
    ours = resample_spline(voxels, (8, 6, 6), order=3, axis=0, axis_order=0)
    np.testing.assert_allclose(ours[:, 2, 2], [0, 0, 1, 1, 2, 2, 3, 3], atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    st.permutations([0, 1, 2]),
    st.tuples(*[st.integers(3, 9)] * 3),
    st.tuples(*[st.sampled_from([0.7, 1.0, 3.0, 5.0])] * 3),
)
def test_logits_come_back_where_the_labels_were(transpose, shape, spacing):
    rng = np.random.default_rng(0)
    voxels = np.zeros(shape, np.float32)
    voxels[1:, :, :-1] = rng.uniform(1, 2, (shape[0] - 1, shape[1], shape[2] - 1))
    target = tuple(spacing[k] for k in transpose)  # the scan's own spacing: nothing is resampled
    prepared = prepare([volume_of(voxels, spacing)], spec_of(target, transpose=tuple(transpose)))
    truth = np.where(voxels > 0, rng.integers(0, 3, shape), 0).astype(np.uint8)
    on_grid = prepared.grid_labels(truth)
    assert on_grid.shape == prepared.tensor_CZYX.shape[1:]
    assert min(on_grid.shape) >= 4
    logits = np.stack([(on_grid == k).astype(np.float32) for k in range(3)])
    restored = restore_logits(prepared, logits, np.array([0, 1, 2], np.uint8))
    np.testing.assert_array_equal(restored, truth)
    np.testing.assert_array_equal(prepared.restore(on_grid), truth)


def test_a_masked_z_score_looks_at_nonzero_voxels_only():
    voxels = np.zeros((4, 6, 6), np.float32)
    voxels[:, 1:5, 1:5] = np.random.default_rng(0).normal(10, 2, (4, 4, 4))
    prepared = prepare([volume_of(voxels, (1.0, 1.0, 1.0))], spec_of((1.0, 1.0, 1.0)))
    tensor = prepared.tensor_CZYX[0]
    assert tensor.shape == (4, 4, 4)
    assert abs(float(tensor.mean())) < 1e-5
    assert float(tensor.std()) == pytest.approx(1, abs=1e-4)


def test_regions_paint_where_their_logits_are_positive_later_ones_over_earlier_ones():
    voxels = np.ones((4, 4, 4), np.float32)
    spec = spec_of((1.0, 1.0, 1.0), region_values=(2, 1))
    prepared = prepare([volume_of(voxels, (1.0, 1.0, 1.0))], spec)
    logits = np.full((2, 4, 4, 4), -1.0, np.float32)
    logits[0, :3], logits[1, 2:] = 1, 1
    painted = restore_logits(prepared, logits, np.array(spec.class_values, np.uint8))
    assert painted[:, 0, 0].tolist() == [2, 2, 1, 1]


def test_labels_and_logits_of_another_grid_are_a_mistake_of_the_caller():
    prepared = prepare([volume_of(np.ones((3, 6, 6)), (1.0, 1.0, 1.0))], spec_of((1.0, 1.0, 1.0)))
    assert prepared.tensor_CZYX.shape == (1, 4, 6, 6)  # padded to a tile
    with pytest.raises(ValueError, match=r"uint8 \(4, 6, 6\) expected"):
        prepared.restore(np.zeros((3, 6, 6), np.uint8))
    with pytest.raises(ValueError, match=r"logits \(3, 4, 6, 6\) expected"):
        restore_logits(prepared, np.zeros((3, 3, 6, 6), np.float32), np.array([0, 1, 2], np.uint8))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 90), st.integers(2, 5))
def test_splines_are_scipy_s_whatever_the_sizes(source, target, order):
    voxels = np.random.default_rng(source).normal(size=(source, 2, 3)).astype(np.float32)
    ours = resample_spline(voxels, (target, 2, 3), order=order, axis=None, axis_order=0)
    theirs = ndimage.zoom(
        voxels, (target / source, 1, 1), order=order, mode="nearest", grid_mode=True
    )
    wanted = np.clip(theirs, voxels.min(), voxels.max()) if source != target else voxels
    np.testing.assert_allclose(ours, wanted, atol=2e-5)
