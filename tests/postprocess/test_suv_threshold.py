from __future__ import annotations

import numpy as np
import pytest

from flarekit import postprocess
from flarekit.core.errors import PredictorError
from flarekit.core.spec import Rule
from flarekit.postprocess import Scan

LABELS = {"lesion": 1, "bladder": 2}
THRESHOLD = Rule(name="suv_threshold", labels=("lesion",), value=2.5)


def scan(suv, name="PET", points=None):
    voxels = np.asarray(suv, np.float32)
    return Scan(spacing_mm_ZYX=(3.0, 2.0, 2.0), channels={name: voxels}, points=points or {})


def test_voxels_below_the_threshold_become_background_and_others_stay():
    suv = np.array([[[1, 2.4, 2.5, 9, 0]]])
    label_map = np.array([[[1, 1, 1, 1, 0]]], np.uint8)
    after = postprocess.apply_rules(label_map, [THRESHOLD], LABELS, voxel_ml=1, scan=scan(suv))
    assert after.tolist() == [[[0, 0, 1, 1, 0]]]
    assert label_map.tolist() == [[[1, 1, 1, 1, 0]]]


def test_labels_that_are_not_listed_are_never_touched():
    label_map = np.array([[[2, 1, 2]]], np.uint8)
    after = postprocess.apply_rules(
        label_map, [THRESHOLD], LABELS, voxel_ml=1, scan=scan(np.zeros((1, 1, 3)))
    )
    assert after.tolist() == [[[2, 0, 2]]]


def test_a_minimum_volume_behind_it_counts_what_the_threshold_left():
    suv = np.array([[[5, 5, 1, 5, 5, 5]]])
    label_map = np.ones((1, 1, 6), np.uint8)
    smallest = Rule(name="min_volume_ml", labels=("lesion",), value=3.0)
    after = postprocess.apply_rules(
        label_map, [THRESHOLD, smallest], LABELS, voxel_ml=1, scan=scan(suv)
    )
    assert after.tolist() == [[[0, 0, 0, 1, 1, 1]]]
    before = postprocess.apply_rules(
        label_map, [smallest, THRESHOLD], LABELS, voxel_ml=1, scan=scan(suv)
    )
    assert before.tolist() == [[[1, 1, 0, 1, 1, 1]]]


def test_uptake_of_zero_everywhere_leaves_nothing():
    label_map = np.ones((2, 3, 4), np.uint8)
    after = postprocess.apply_rules(
        label_map, [THRESHOLD], LABELS, voxel_ml=1, scan=scan(np.zeros((2, 3, 4)))
    )
    assert not after.any()


def test_integer_voxels_are_compared_as_numbers():
    stored = Scan(
        spacing_mm_ZYX=(1.0, 1.0, 1.0), channels={"pet": np.array([[[2, 3]]], np.int16)}, points={}
    )
    after = postprocess.apply_rules(
        np.ones((1, 1, 2), np.uint8), [THRESHOLD], LABELS, voxel_ml=1, scan=stored
    )
    assert after.tolist() == [[[0, 1]]]


def test_a_predictor_without_pet_is_refused_beforehand():
    postprocess.check_rules([THRESHOLD], ["CT", "PET"])
    with pytest.raises(PredictorError, match="needs a channel named 'PET'; the predictor has CT"):
        postprocess.check_rules([THRESHOLD], ["CT"])


def test_it_needs_a_positive_value():
    with pytest.raises(PredictorError, match="needs a positive value"):
        postprocess.check_rules([Rule(name="suv_threshold", labels=("lesion",))])


def test_without_the_scan_or_its_pet_it_does_not_guess():
    label_map = np.ones((1, 1, 2), np.uint8)
    with pytest.raises(ValueError, match="runs on the scan's grid"):
        postprocess.apply_rules(label_map, [THRESHOLD], LABELS, voxel_ml=1)
    with pytest.raises(PredictorError, match="needs the channel 'PET'; there are: CT"):
        postprocess.apply_rules(
            label_map, [THRESHOLD], LABELS, voxel_ml=1, scan=scan(np.zeros((1, 1, 2)), "CT")
        )


def test_rules_are_split_where_the_first_needs_the_scan():
    smallest = Rule(name="min_volume_ml", labels=("lesion",), value=3.0)
    assert postprocess.split_rules([smallest, THRESHOLD, smallest]) == (
        (smallest,),
        (THRESHOLD, smallest),
    )
    assert postprocess.split_rules([smallest]) == ((smallest,), ())
    assert postprocess.split_rules([]) == ((), ())
