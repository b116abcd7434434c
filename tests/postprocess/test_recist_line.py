"""The rule that keeps a lesion to the line that was drawn across it."""

from __future__ import annotations

import numpy as np

from flarekit import postprocess
from flarekit.core.line import lesion_at_line
from flarekit.core.spec import Rule
from flarekit.postprocess import Scan

RULE = Rule(name="recist_line", labels=("lesion",), value=1.15)
LINE = np.array([(4, 10, x) for x in range(6, 15)])


def apply(label_map, points):
    scan = Scan(spacing_mm_ZYX=(1.0, 1.0, 1.0), channels={}, points=points)
    labels = {"lesion": 1, "organ": 2}
    return postprocess.apply_rules(label_map, [RULE], labels, voxel_ml=0.001, scan=scan)


def scene():
    label_map = np.zeros((9, 21, 40), np.uint8)
    label_map[3:6, 8:13, 5:16] = 1
    label_map[4, 10, 16:40] = 1
    label_map[4, 12:15, 8:12] = 2
    return label_map


def test_the_lesion_is_bounded_by_its_line_and_other_labels_stay():
    label_map = scene()
    ruled = apply(label_map, {"line": LINE})
    wanted = lesion_at_line(label_map == 1, (1.0, 1.0, 1.0), LINE, 1.15)
    np.testing.assert_array_equal(ruled == 1, wanted & (label_map != 2))
    np.testing.assert_array_equal(ruled == 2, label_map == 2)
    assert not (ruled[4, 10, 24:] == 1).any()


def test_without_a_line_nothing_changes():
    np.testing.assert_array_equal(apply(scene(), {}), scene())
