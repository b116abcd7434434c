from __future__ import annotations

import math

import pytest
import torch

from flarekit.training.losses import partial_label_loss
from flarekit.training.samples import MAYBE


def logits_of(probabilities):
    """Return (1, K, 1, 1, N) logits whose softmax is the given N rows of K probabilities."""
    return torch.tensor(probabilities).log().T.reshape(1, len(probabilities[0]), 1, 1, -1)


def classes_of(*values):
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_loss_of_hand_computed_voxels():
    p = [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]
    dice_of_1 = (2 * 0.8 + 1) / (1 + (0.25 + 0.8) + 1)
    expected = -(math.log(0.5) + math.log(0.8)) / 2 + 1 - dice_of_1
    loss = partial_label_loss(logits_of(p), classes_of(0, 1), unlabelled=())
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_maybe_voxel_costs_the_log_of_background_plus_unlabelled():
    p = [[0.2, 0.5, 0.3], [0.1, 0.8, 0.1]]
    dice_of_1 = (2 * 0.8 + 1) / (1 + 0.8 + 1)  # the maybe voxel is in no Dice
    expected = -(math.log(0.2 + 0.3) + math.log(0.8)) / 2 + 1 - dice_of_1
    loss = partial_label_loss(logits_of(p), classes_of(MAYBE, 1), unlabelled=(2,))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_an_unlabelled_organ_is_never_punished_where_it_may_be():
    logits = logits_of([[0.3, 0.3, 0.4], [0.1, 0.8, 0.1]]).requires_grad_()
    partial_label_loss(logits, classes_of(MAYBE, 1), unlabelled=(2,)).backward()
    gradient = logits.grad[0, :, 0, 0, 0]
    assert gradient[0] < 0
    assert gradient[2] < 0
    assert gradient[1] > 0


def test_perfect_logits_cost_nothing():
    classes = torch.randint(0, 3, (2, 4, 4, 4))
    logits = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float() * 100
    assert float(partial_label_loss(logits, classes, ())) == pytest.approx(0, abs=1e-4)


def test_background_alone_has_no_dice_term():
    loss = partial_label_loss(
        torch.zeros(1, 3, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.long), ()
    )
    assert float(loss) == pytest.approx(math.log(3), rel=1e-5)
