from __future__ import annotations

import numpy as np
import pytest

from flarekit.evaluation.confusion import dice_per_label

LABELS = {"liver": 1, "spleen": 3, "duodenum": 12}


def test_dice_of_hand_counted_maps():
    predicted = np.array([1, 1, 1, 0, 3, 3], np.uint8)
    truth = np.array([1, 1, 0, 0, 3, 1], np.uint8)
    scores = dice_per_label(predicted, truth, LABELS)
    assert scores == {"liver": 2 * 2 / (3 + 3), "spleen": 2 * 1 / (2 + 1), "duodenum": 1.0}


def test_a_label_that_only_one_of_them_has_scores_zero():
    assert dice_per_label(np.uint8([0]), np.uint8([12]), LABELS)["duodenum"] == 0
    assert dice_per_label(np.uint8([12]), np.uint8([0]), LABELS)["duodenum"] == 0


def test_maps_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        dice_per_label(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), LABELS)
