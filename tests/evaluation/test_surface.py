from __future__ import annotations

import importlib.util
import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings

from flarekit.core.errors import UsageError
from flarekit.evaluation.surface import check_tables, surface_distances
from tests.evaluation import plain
from tests.evaluation.strategies import PAIRS, SPACINGS


def voxel(*place):
    mask = np.zeros((9, 9, 9), bool)
    mask[place] = True
    return mask


def test_two_voxels_two_steps_apart():
    distances = surface_distances(voxel(4, 4, 4), voxel(4, 4, 6), (3, 2, 1))
    # the corners of the near faces are 1 mm apart, those of the far ones 2 mm
    assert sorted(set(distances.truth_to_predicted_mm)) == [1, 2]
    assert distances.hausdorff_mm() == 2
    assert distances.mean_mm() == distances.mean_to_truth_mm() == 1.5
    assert distances.dice_within(0.9) == 0
    assert distances.dice_within(1) == 0.5
    assert distances.dice_within(2) == 1


def test_a_slab_one_slice_thicker_differs_on_one_face():
    truth, predicted = np.zeros((2, 30, 40, 40), bool)
    truth[5:15, 5:35, 5:35] = True
    predicted[5:16, 5:35, 5:35] = True
    distances = surface_distances(truth, predicted, (2, 1, 1))
    assert distances.hausdorff_mm() == 2
    # the moved face is 900 of 3000 mm2 of its body
    assert distances.mean_to_truth_mm() == pytest.approx(2 * 900 / 4200, rel=0.05)
    assert distances.dice_within(2) == 1


@pytest.mark.long
@given(PAIRS, SPACINGS)
@settings(max_examples=15, deadline=None)
def test_figures_are_those_of_brute_force(pair, spacing):
    truth, predicted = pair
    assume(truth.any() and predicted.any())
    distances = surface_distances(truth, predicted, spacing)
    nsd, asd, assd, hausdorff = plain.surface_figures(truth, predicted, spacing, 1.3)
    assert distances.dice_within(1.3) == pytest.approx(nsd, abs=1e-12)
    assert distances.mean_to_truth_mm() == pytest.approx(asd, abs=1e-12)
    assert distances.mean_mm() == pytest.approx(assd, abs=1e-12)
    assert distances.hausdorff_mm() == pytest.approx(hausdorff, abs=1e-12)


@pytest.mark.long
@given(PAIRS, SPACINGS)
@settings(deadline=None, max_examples=40)
def test_nsd_is_symmetric_bounded_and_one_for_the_same_mask(pair, spacing):
    truth, predicted = pair
    assume(truth.any() and predicted.any())
    forward = surface_distances(truth, predicted, spacing)
    backward = surface_distances(predicted, truth, spacing)
    assert 0 <= forward.dice_within(1) <= 1
    assert forward.dice_within(1) == pytest.approx(backward.dice_within(1), abs=1e-12)
    assert forward.hausdorff_mm(95) <= forward.hausdorff_mm() == backward.hausdorff_mm()
    same = surface_distances(truth, truth, spacing)
    assert same.dice_within(0) == 1
    assert same.hausdorff_mm() == same.mean_mm() == 0


def test_an_empty_mask_is_infinitely_far_and_two_have_no_figure():
    nothing = np.zeros((9, 9, 9), bool)
    one_sided = surface_distances(voxel(1, 1, 1), nothing, (1, 1, 1))
    assert one_sided.dice_within(1000) == 0
    assert np.isinf(one_sided.truth_to_predicted_mm).all()
    assert math.isnan(one_sided.hausdorff_mm())
    neither = surface_distances(nothing, nothing, (1, 1, 1))
    assert math.isnan(neither.dice_within(1))
    assert math.isnan(neither.mean_mm())
    assert math.isnan(neither.mean_to_truth_mm())


def test_every_digit_is_the_one_of_deepmind_s_package(monkeypatch):
    package = pytest.importorskip("surface_distance")
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)  # it was written for numpy 1
    rng = np.random.default_rng(5)
    for spacing in ((0.8, 0.8, 5.0), (1.37, 1.37, 2.5), (1.0, 1.0, 1.0)):
        truth, predicted = rng.random((2, 14, 12, 9)) < 0.3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            theirs = package.compute_surface_distances(truth, predicted, spacing)
        ours = surface_distances(truth, predicted, spacing)
        assert (ours.truth_to_predicted_mm == theirs["distances_gt_to_pred"]).all()
        assert (ours.predicted_areas_mm2 == theirs["surfel_areas_pred"]).all()
        for tolerance in (0, 1, 2.5, 3):
            assert ours.dice_within(tolerance) == package.compute_surface_dice_at_tolerance(
                theirs, tolerance
            )
        assert ours.hausdorff_mm(95) == package.compute_robust_hausdorff(theirs, 95)
        assert ours.mean_to_truth_mm() == package.compute_average_surface_distance(theirs)[1]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("flarekit.core.extras.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="surface-distance") as raised:
        check_tables()
    assert '"surface-distance>=' in raised.value.fix
    assert importlib.util.find_spec("surface_distance") is not None
