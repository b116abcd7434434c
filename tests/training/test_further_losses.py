"""The losses and schedules that the papers list as tried, beside their equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from flarekit.core.errors import PredictorError
from flarekit.training.losses import (
    MAYBE,
    Target,
    balanced_cross_entropy,
    binary_cross_entropy,
    boundary_loss,
    cross_entropy,
    dice_loss,
    focal_loss,
    region_tversky_loss,
)
from flarekit.training.recipe_changes import changes_between
from flarekit.training.regimes import Objective, Schedule

NOTHING = torch.zeros(1, 2, dtype=torch.bool)


def rows(values):
    """Return N rows of K numbers as logits (1, K, 1, 1, N)."""
    return torch.tensor(values).log().T.reshape(1, len(values[0]), 1, 1, -1)


def target_of(*values, classes=2, possible=()):
    may_be = torch.zeros(1, classes, dtype=torch.bool)
    may_be[:, list(possible)] = True
    return Target(torch.tensor(values).reshape(1, 1, 1, -1), may_be)


def test_focal_loss_of_hand_computed_voxels():
    loss = focal_loss(rows([[0.9, 0.1], [0.4, 0.6]]), target_of(0, 1))
    expected = -(0.1**2 * math.log(0.9) + 0.4**2 * math.log(0.6)) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_without_a_focus_is_cross_entropy():
    logits = torch.randn(2, 3, 4, 4, 4)
    classes = torch.randint(0, 3, (2, 4, 4, 4))
    classes[:, 0] = MAYBE
    target = Target(classes, torch.tensor([[True, False, True], [True, True, True]]))
    torch.testing.assert_close(focal_loss(logits, target, focus=0.0), cross_entropy(logits, target))


def test_balanced_cross_entropy_gives_each_of_two_classes_the_other_s_share():
    """Three voxels of background, one of the label: HED's beta is 3/4."""
    p = [[0.7, 0.3], [0.8, 0.2], [0.6, 0.4], [0.5, 0.5]]
    loss = balanced_cross_entropy(rows(p), target_of(0, 0, 0, 1))
    background = -sum(map(math.log, (0.7, 0.8, 0.6)))
    expected = (0.25 * background - 0.75 * math.log(0.5)) / (3 * 0.25 + 0.75)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_binary_cross_entropy_is_the_second_part_of_equation_19_of_mpu_net():
    p = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    loss = binary_cross_entropy(p.T.reshape(1, 2, 1, 1, 2), target_of(0, 1))
    expected = -(math.log(1 - 0.3) + math.log(0.6)) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_boundary_loss_weighs_probabilities_by_their_signed_distance():
    truth = np.zeros((1, 6, 6), np.int64)
    truth[0, 1:4, 2:5] = 1
    p = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0))
    both = torch.stack([1 - p, p], dim=1)
    signed = distance_transform_edt(truth[0] == 0) - distance_transform_edt(truth[0] == 1)
    expected = (p[0].numpy() * signed / 6).mean()
    loss = boundary_loss(both, Target(torch.from_numpy(truth), NOTHING))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    inside, outside = (
        float(boundary_loss(torch.stack([1 - each, each], dim=1),
                            Target(torch.from_numpy(truth), NOTHING)))
        for each in (torch.from_numpy(truth).float(), torch.from_numpy(1 - truth).float())
    )  # fmt: skip
    assert inside < 0 < outside


TERMS = ("focal", "boundary", "binary_cross_entropy", "region_dice")


@pytest.mark.parametrize("term", [*TERMS, "balanced"])
def test_an_unlabelled_organ_is_never_punished_where_it_may_be(term):
    terms = {"balanced": True} if term == "balanced" else {term: 1.0, "cross_entropy": 0.0}
    objective = Objective(**terms)
    target = target_of(MAYBE, MAYBE, MAYBE, 0, classes=3, possible=(0, 2))
    logits = torch.zeros(1, 3, 1, 1, 4)
    towards_2 = logits.clone()
    towards_2[0, 2, ..., :3] = 6.0
    before, after = (float(objective.at_one_level(each, target)) for each in (logits, towards_2))
    assert after <= before + 1e-6


@pytest.mark.parametrize("term", TERMS)
def test_every_term_has_finite_gradients_at_extreme_logits(term):
    logits = (100 * torch.randn(2, 3, 2, 4, 4)).requires_grad_()
    target = Target(torch.randint(0, 3, (2, 2, 4, 4)), torch.zeros(2, 3, dtype=torch.bool))
    loss = Objective(**{term: 1.0}).at_one_level(logits, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


# --- MambaClinix, Table 5


def whole(target_shape=(2, 4, 4, 4)):
    generator = torch.Generator().manual_seed(1)
    p = torch.rand(2, 3, *target_shape[1:], generator=generator).softmax(dim=1)
    classes = torch.randint(0, 3, target_shape, generator=generator)
    return p, Target(classes, torch.zeros(2, 3, dtype=torch.bool))


def test_dice_by_region_with_one_region_is_dice_over_the_batch():
    p, target = whole()
    one = region_tversky_loss(p, target, regions=(1, 1, 1), weights=(0.5, 0.5), smooth=0)
    torch.testing.assert_close(one, dice_loss(p, target, smooth=0))


def test_fixed_weights_are_equation_16_with_alpha_and_beta_of_table_5():
    p, target = whole()
    truth = target.is_class
    loss = region_tversky_loss(p, target, regions=(2, 2, 2), weights=(0.3, 0.7))
    indices = []
    for z in (slice(0, 2), slice(2, 4)):
        for y in (slice(0, 2), slice(2, 4)):
            for x in (slice(0, 2), slice(2, 4)):
                here = (slice(None), slice(1, None), z, y, x)
                tp = (p[here] * truth[here]).mean((2, 3, 4)).sum(0)
                fp = (p[here] * (1 - truth[here])).mean((2, 3, 4)).sum(0)
                fn = ((1 - p[here]) * truth[here]).mean((2, 3, 4)).sum(0)
                indices.append((tp + 1e-5) / (tp + 0.3 * fp + 0.7 * fn + 1e-5))
    torch.testing.assert_close(loss, 1 - torch.stack(indices).mean(), rtol=1e-4, atol=1e-5)


# --- recipes


def test_a_recipe_takes_the_columns_of_table_5(make_recipe):
    columns = {
        "dice = 1": {"dice": 1.0, "region_tversky": 0.0},
        "dice = 0\nregion_dice = 1": {"dice": 0.0, "region_dice": 1.0},
        "region_tversky = 0.8\nregion_weights = [0.3, 0.7]\nregions = [4, 4, 4]": {
            "region_tversky": 0.8, "region_weights": (0.3, 0.7), "regions": (4, 4, 4),
        },
    }  # fmt: skip
    for text, expected in columns.items():
        recipe = make_recipe(("[provenance]", f"[training.objective]\n{text}\n\n[provenance]"))
        objective = recipe.regime.objective
        assert {name: getattr(objective, name) for name in expected} == expected


def test_what_a_recipe_does_not_name_stays_the_regime_s(make_recipe):
    paper = ("batch = 1", 'regime = "nnunet"\nbatch = 1')
    plain = make_recipe(paper)
    changed = make_recipe(
        paper,
        ("[provenance]", '[training.schedule]\nkind = "exponential"\nwarm_up = 5\n\n[provenance]'),
    )
    assert changed.regime.objective == plain.regime.objective
    assert changed.regime.schedule.epochs == plain.regime.schedule.epochs
    assert changes_between(plain, changed)


def test_waiting_for_validation_needs_cases_for_it(make_recipe):
    table = "[training.schedule]\nearly_stopping = 3\n\n[provenance]"
    with pytest.raises(PredictorError, match="need validation cases"):
        make_recipe(("[provenance]", table))
    make_recipe(("[provenance]", table), ("batch = 1", 'batch = 1\nvalidation = ["case_c"]'))


# --- schedules


def test_a_warm_up_rises_from_a_hundredth_over_its_epochs():
    schedule = Schedule(kind="poly", epochs=200, warm_up=20)
    assert schedule.factor(0) == pytest.approx(0.01)
    assert schedule.factor(0.05) == pytest.approx((0.01 + 0.99 / 2) * 0.95**0.9)
    assert schedule.factor(0.1) == pytest.approx(0.9**0.9)


def test_an_exponential_schedule_loses_a_part_every_epoch():
    schedule = Schedule(kind="exponential", epochs=100, decay=0.9)
    assert schedule.factor(0.025) == pytest.approx(0.9**2)


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ([], (1.0, False)),
        ([0.1, 0.2, 0.3], (1.0, False)),
        ([0.3, 0.2, 0.3], (0.5, False)),
        ([0.3, 0.2, 0.2, 0.2, 0.2], (0.25, True)),
        ([0.3, 0.2, 0.4, 0.3, 0.3], (0.5, False)),
    ],
)
def test_a_plateau_lowers_the_rate_and_a_longer_one_ends_the_training(dice, expected):
    schedule = Schedule(kind="poly", epochs=200, plateau_patience=2, early_stopping=4)
    assert schedule.after(dice) == expected


def test_without_patience_validation_changes_nothing():
    assert Schedule(kind="poly", epochs=200).after([0.5] * 50) == (1.0, False)
