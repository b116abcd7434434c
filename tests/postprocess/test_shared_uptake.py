from __future__ import annotations

import numpy as np
import pytest

from flarekit import postprocess
from flarekit.core.errors import PredictorError
from flarekit.core.spec import Rule
from flarekit.postprocess import Scan

LABELS = {"lesion": 1, "organs": 2}
RULE = Rule(name="shared_uptake", labels=("lesion", "organs"), value=0.35)
CLICKS = Rule(name="clicks", labels=("lesion",), value=0.41)


def two_halves(lesion_width=6, lesion_suv=8.0, organ_suv=8.0, between=None):
    """Return a block of lesion and organ side by side along X, 12 voxels together, and its PET."""
    label_map = np.zeros((8, 8, 16), np.uint8)
    label_map[2:6, 2:6, 2 : 2 + lesion_width] = 1
    label_map[2:6, 2:6, 2 + lesion_width : 14] = 2
    suv = np.where(label_map == 1, lesion_suv, np.where(label_map == 2, organ_suv, 0.5))
    if between is not None:
        suv[2:6, 2:6, 1 + lesion_width : 3 + lesion_width] = between
    return label_map, suv.astype(np.float32)


def apply(label_map, suv, *more, internal=(), points=None):
    scan = Scan(spacing_mm_ZYX=(4.0, 4.0, 4.0), channels={"PET": suv}, points=points or {})
    return postprocess.apply_rules(
        label_map, [RULE, *more], LABELS, voxel_ml=0.064, scan=scan, internal=internal
    )


def test_half_an_organ_is_no_lesion():
    label_map, suv = two_halves()
    after = apply(label_map, suv)
    assert not (after == 1).any()
    np.testing.assert_array_equal(after == 2, label_map == 2)
    assert (label_map == 1).any()  # the map given is not changed


@pytest.mark.parametrize(
    "scan",
    [
        two_halves(lesion_suv=8, organ_suv=13),
        two_halves(lesion_suv=13, organ_suv=8),
        two_halves(between=4),
        two_halves(lesion_width=9),
    ],
    ids=["the organ is hotter", "the lesion is hotter", "a valley lies between", "the larger part"],
)
def test_a_lesion_beside_an_organ_stays(scan):
    np.testing.assert_array_equal(apply(*scan), scan[0])


def test_a_lesion_that_merely_touches_an_organ_stays():
    label_map, suv = two_halves()
    label_map[2:6, 2:6, 7] = 0
    label_map[3, 3, 7] = 1
    np.testing.assert_array_equal(apply(label_map, suv), label_map)


def test_lesions_elsewhere_stay_and_pieces_on_both_sides_go():
    label_map, suv = two_halves(lesion_width=3)
    label_map[2:6, 2:6, 11:14] = 1
    label_map[0, 0, 0] = 1
    after = apply(label_map, suv)
    assert np.argwhere(after == 1).tolist() == [[0, 0, 0]]


def test_internal_classes_are_background_once_no_rule_names_them():
    label_map, suv = two_halves(organ_suv=20)
    after = apply(label_map, suv, internal=(2,))
    np.testing.assert_array_equal(after, np.where(label_map == 1, 1, 0))
    click = {"tumor": np.array([[4, 4, 10]])}  # on what the network took for an organ
    assert apply(label_map, suv, CLICKS, internal=(2,), points=click)[4, 4, 10] == 1


def test_nothing_labelled_and_no_organ_are_left_alone():
    empty = np.zeros((4, 4, 4), np.uint8)
    assert not apply(empty, np.ones((4, 4, 4), np.float32)).any()
    lesion = np.ones((4, 4, 4), np.uint8)
    assert apply(lesion, np.ones((4, 4, 4), np.float32)).all()


def test_it_needs_something_to_compare_with():
    alone = Rule(name="shared_uptake", labels=("lesion",), value=0.35)
    with pytest.raises(PredictorError, match="at least 2 labels"):
        postprocess.check_rules([alone])
