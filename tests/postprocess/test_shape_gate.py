"""The rule that drops components unlike any training lesion."""

from __future__ import annotations

import numpy as np
import pytest

from flarekit import postprocess
from flarekit.core.errors import PredictorError
from flarekit.core.gate import Gate, component_features
from flarekit.core.spec import Rule
from flarekit.postprocess import Scan

LABELS = {"lesion": 1, "organ": 2}
SPACING = (2.0, 1.0, 1.0)


def scene():
    label_map = np.zeros((20, 40, 60), np.uint8)
    label_map[4:9, 8:18, 8:18] = 1
    label_map[12, 20, 2:58] = 1
    label_map[16:19, 30:36, 30:36] = 2
    level = np.full(label_map.shape, 40.0, np.float32)
    return label_map, level


def gate(level=40.0):
    label_map, voxels = scene()
    inside = label_map[4:9, 8:18, 8:18] == 1
    mean = component_features(inside, voxels[4:9, 8:18, 8:18], SPACING)
    mean[3] = level
    covariance = np.diag([1.0, 0.2, 0.05, 100.0])
    return Gate(
        channel="CT",
        mean=tuple(mean.tolist()),
        covariance=tuple(map(tuple, covariance.tolist())),
        components=30,
    )


def rule(**changes):
    facts = {"name": "shape_gate", "labels": ("lesion",), "value": 4.0, "gate": gate()}
    return Rule(**(facts | changes))


def apply(rule):
    label_map, level = scene()
    scan = Scan(spacing_mm_ZYX=SPACING, channels={"ct": level})
    return postprocess.apply_rules(label_map, [rule], LABELS, voxel_ml=0.002, scan=scan)


def test_a_thread_is_dropped_and_a_compact_lesion_stays():
    label_map, _ = scene()
    expected = label_map.copy()
    expected[12, 20, 2:58] = 0
    np.testing.assert_array_equal(apply(rule()), expected)


def test_the_wider_the_gate_the_more_stays():
    label_map, _ = scene()
    np.testing.assert_array_equal(apply(rule(value=1e3)), label_map)


def test_what_is_as_bright_as_no_lesion_is_dropped():
    kept = apply(rule(gate=gate(level=90.0)))
    assert set(np.unique(kept)) == {0, 2}


def test_a_label_with_nothing_in_it_stays_empty():
    label_map = np.zeros((4, 5, 6), np.uint8)
    scan = Scan(spacing_mm_ZYX=SPACING, channels={"CT": label_map})
    found = postprocess.apply_rules(label_map, [rule()], LABELS, voxel_ml=0.002, scan=scan)
    assert not found.any()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (rule(gate=None), "needs a gate"),
        (Rule(name="fill_holes", labels=("lesion",), gate=gate()), "takes no gate"),
        (rule(value=None), "needs a positive value"),
    ],
)
def test_a_rule_and_its_gate_belong_together(wrong, words):
    with pytest.raises(PredictorError, match=words):
        postprocess.check_rules([wrong], ["CT"])


def test_the_channel_of_the_gate_has_to_be_there():
    with pytest.raises(PredictorError, match="needs a channel named 'CT'"):
        postprocess.check_rules([rule()], ["PET"])
