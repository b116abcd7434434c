from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.training.losses import (
    MAYBE,
    Target,
    cross_entropy,
    dice_loss,
    reconstruction_loss,
    region_tversky_loss,
    tversky_loss,
)


def rows(values):
    """Return N rows of K numbers as (1, K, 1, 1, N)."""
    return torch.tensor(values).T.reshape(1, len(values[0]), 1, 1, -1)


def target_of(*values, classes=3, possible=()):
    may_be = torch.zeros(1, classes, dtype=torch.bool)
    may_be[:, list(possible)] = True
    return Target(torch.tensor(values).reshape(1, 1, 1, -1), may_be)


def test_cross_entropy_of_hand_computed_voxels():
    p = [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]
    loss = cross_entropy(rows(p).log(), target_of(0, 1))
    assert float(loss) == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2, rel=1e-5)


def test_a_maybe_voxel_costs_the_log_of_the_sum_of_what_is_possible():
    p = [[0.2, 0.5, 0.3], [0.1, 0.8, 0.1]]
    loss = cross_entropy(rows(p).log(), target_of(MAYBE, 1, possible=(0, 2)))
    assert float(loss) == pytest.approx(-(math.log(0.2 + 0.3) + math.log(0.8)) / 2, rel=1e-5)


def test_a_voxel_that_may_be_anything_is_left_out():
    p = [[0.2, 0.5, 0.3], [0.1, 0.8, 0.1]]
    loss = cross_entropy(rows(p).log(), target_of(MAYBE, 1, possible=(0, 1, 2)))
    assert float(loss) == pytest.approx(-math.log(0.8), rel=1e-5)


def test_dice_is_equation_14_of_mambaclinix_averaged_over_the_foreground():
    p = [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]
    epsilon = 1e-2
    dice_of_1 = (2 * 0.8 + epsilon) / ((0.25 + 0.8) + 1 + epsilon)
    dice_of_2 = epsilon / ((0.25 + 0.1) + epsilon)
    loss = dice_loss(rows(p), target_of(0, 1), smooth=epsilon)
    assert float(loss) == pytest.approx(1 - (dice_of_1 + dice_of_2) / 2, rel=1e-5)
    alone = dice_loss(rows(p), target_of(0, 1), smooth=epsilon, skip_absent=True)
    assert float(alone) == pytest.approx(1 - dice_of_1, rel=1e-5)


def test_dice_over_the_batch_adds_up_before_it_divides():
    p = torch.cat([rows([[0.4, 0.6]]), rows([[0.9, 0.1]])])
    target = Target(torch.tensor([1, 1]).reshape(2, 1, 1, 1), torch.zeros(2, 2, dtype=torch.bool))
    together = dice_loss(p, target, smooth=0)
    apart = dice_loss(p, target, smooth=0, over_batch=False)
    assert float(together) == pytest.approx(1 - 2 * 0.7 / (0.7 + 2), rel=1e-5)
    one, other = 2 * 0.6 / 1.6, 2 * 0.1 / 1.1
    assert float(apart) == pytest.approx(1 - (one + other) / 2, rel=1e-5)


def test_tversky_is_equation_19_of_mpu_net_over_both_classes():
    p = [[0.7, 0.3], [0.4, 0.6], [0.8, 0.2]]
    indices = []
    for k, truth in ((0, (1, 0, 0)), (1, (0, 1, 1))):
        tp = sum(row[k] for row, yes in zip(p, truth, strict=True) if yes)
        fp = sum(row[k] for row, yes in zip(p, truth, strict=True) if not yes)
        fn = sum(1 - row[k] for row, yes in zip(p, truth, strict=True) if yes)
        indices.append((tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1))
    loss = tversky_loss(rows(p), target_of(0, 1, 1, classes=2))
    assert float(loss) == pytest.approx(1 - sum(indices) / 2, rel=1e-5)


def test_tversky_with_equal_weights_is_dice():
    p = torch.rand(2, 3, 4, 4, 4).softmax(dim=1)
    target = Target(torch.randint(0, 3, (2, 4, 4, 4)), torch.zeros(2, 3, dtype=torch.bool))
    half = tversky_loss(p, target, false_positives=0.5, false_negatives=0.5, smooth=0)
    onehot = torch.nn.functional.one_hot(target.classes, 3).movedim(-1, 1)
    overlap, sizes = (p * onehot).flatten(2).sum(2), (p + onehot).flatten(2).sum(2)
    torch.testing.assert_close(half, 1 - (2 * overlap / sizes).mean())


def test_region_tversky_is_equation_16_with_adaptive_weights_in_every_region():
    p = [[0.6, 0.4], [0.1, 0.9], [0.7, 0.3], [0.2, 0.8]]  # two regions of two voxels
    truth = (0, 1, 1, 1)
    indices = []
    for region in ((0, 1), (2, 3)):
        tp = sum(p[n][1] * truth[n] for n in region) / 2  # means, as the authors pool
        fp = sum(p[n][1] * (1 - truth[n]) for n in region) / 2
        fn = sum((1 - p[n][1]) * truth[n] for n in region) / 2
        alpha = 0.3 + 0.4 * (fp + 1e-5) / (fp + fn + 1e-5)
        beta = 0.3 + 0.4 * (fn + 1e-5) / (fp + fn + 1e-5)
        indices.append((tp + 1e-5) / (tp + alpha * fp + beta * fn + 1e-5))
    loss = region_tversky_loss(rows(p), target_of(*truth, classes=2), regions=(1, 1, 2))
    assert float(loss) == pytest.approx(1 - sum(indices) / 2, rel=1e-4)


def test_one_missed_region_costs_more_than_the_same_fault_spread_out():
    """What the region-specific term is for: whole-volume Tversky cannot tell these apart."""
    truth = torch.ones(1, 4, 4, 8, dtype=torch.long)
    missed = torch.full((1, 4, 4, 8), 0.99)
    missed[..., :2] = 0.03
    spread = torch.full((1, 4, 4, 8), float(missed.mean()))
    target = Target(truth, torch.zeros(1, 2, dtype=torch.bool))
    losses = [
        float(region_tversky_loss(torch.stack([1 - p, p], dim=1), target, regions=(2, 2, 4)))
        for p in (missed, spread)
    ]
    assert losses[0] > 1.1 * losses[1]


def test_reconstruction_is_measured_against_the_image_stretched_to_one():
    image = torch.tensor([[[[-2.0, 0.0], [2.0, 0.0]]]])
    drawn = torch.tensor([[[[0.0, 0.5], [0.5, 0.5]]]])
    assert float(reconstruction_loss(drawn, image)) == pytest.approx(0.25 / 4)
    assert math.isfinite(float(reconstruction_loss(drawn, torch.ones_like(image))))


TERMS = {
    "cross entropy": lambda logits, t: cross_entropy(logits, t),
    "dice": lambda logits, t: dice_loss(logits.softmax(1), t),
    "tversky": lambda logits, t: tversky_loss(logits.softmax(1), t),
    "region tversky": lambda logits, t: region_tversky_loss(
        logits.softmax(1), t, regions=(1, 1, 1)
    ),
}


@pytest.mark.parametrize("term", TERMS)
def test_an_unlabelled_organ_is_never_punished_where_it_may_be(term):
    logits = torch.randn(1, 3, 1, 1, 4, generator=torch.Generator().manual_seed(1))
    target = target_of(MAYBE, 1, MAYBE, 0, possible=(0, 2))
    values = [
        float(TERMS[term](logits + push, target))
        for push in (0, rows([[0, 0, 9.0], [0, 0, 0], [0, 0, 9.0], [0, 0, 0]]))
    ]
    assert values[1] <= values[0] + 1e-6


@pytest.mark.parametrize("term", TERMS)
def test_a_labelled_organ_is_punished_where_it_is_known_not_to_be(term):
    logits = torch.zeros(1, 3, 1, 1, 2)
    target = target_of(MAYBE, 1, possible=(0, 2))
    values = [
        float(TERMS[term](logits + push, target)) for push in (0, rows([[0, 9.0, 0], [0, 0, 0]]))
    ]
    assert values[1] > values[0] + 0.01


@pytest.mark.parametrize("term", TERMS)
def test_voxels_that_may_be_anything_give_no_gradient(term):
    logits = torch.randn(1, 3, 1, 1, 3, requires_grad=True)
    TERMS[term](logits, target_of(MAYBE, 1, 0, possible=(0, 1, 2))).backward()
    assert torch.count_nonzero(logits.grad[..., 0]) == 0
    assert torch.count_nonzero(logits.grad[..., 1:]) > 0


@pytest.mark.parametrize("term", TERMS)
def test_perfect_logits_cost_nothing(term):
    classes = torch.randint(0, 3, (2, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float() * 100
    target = Target(classes, torch.zeros(2, 3, dtype=torch.bool))
    assert float(TERMS[term](logits, target)) == pytest.approx(0, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_permuting_the_samples_of_a_batch_changes_no_loss(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 3, 2, 2, 2, generator=generator)
    target = Target(
        torch.randint(0, 3, (3, 2, 2, 2), generator=generator), torch.zeros(3, 3, dtype=torch.bool)
    )
    order = torch.randperm(3, generator=generator)
    shuffled = Target(target.classes[order], target.possible_BK[order])
    for term in TERMS.values():
        torch.testing.assert_close(term(logits[order], shuffled), term(logits, target))


def test_a_resized_target_keeps_its_classes_and_what_is_possible():
    classes = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    classes[:, 2:] = MAYBE
    target = Target(classes, torch.tensor([[True, False]]))
    half = target.resized((2, 2, 2))
    assert half.classes.unique().tolist() == [0, MAYBE]
    assert half.classes[0, 1].unique().tolist() == [MAYBE]
    assert half.possible_BK is target.possible_BK
    assert target.resized((4, 4, 4)) is target
