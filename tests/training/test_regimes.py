from __future__ import annotations

import math

import pytest
import torch

from flarekit import models
from flarekit.training.losses import (
    Target,
    cross_entropy,
    dice_loss,
    region_tversky_loss,
    tversky_loss,
)
from flarekit.training.regimes import (
    REGIMES,
    Objective,
    Optimiser,
    RegimeFacts,
    Schedule,
    as_logits,
    supervision_weights,
)


def batch(classes=2, size=(16, 16, 16)):
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(0, classes, (2, *size), generator=generator)
    target = Target(labels, torch.zeros(2, classes, dtype=torch.bool))
    return torch.rand(2, 1, *size, generator=generator), target


def test_every_network_with_a_paper_has_its_regime():
    assert {*ARGUMENTS, *models.PEERS} <= set(models.names()) & set(REGIMES)


def test_nnunet_halves_the_weights_and_leaves_the_coarsest_output_out():
    assert supervision_weights("halving", 4, 0) == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0])
    assert supervision_weights("halving", 1, 0) == [1]


def test_mpu_net_s_coarser_maps_fade_by_a_fifth_every_thirty_epochs():
    assert supervision_weights("fading", 4, 0) == pytest.approx([1, 0.4, 0.4, 0.4])
    assert supervision_weights("fading", 4, 29) == pytest.approx([1, 0.4, 0.4, 0.4])
    assert supervision_weights("fading", 4, 61) == pytest.approx([1, *[0.4 * 0.64] * 3])


def test_att_umamba_s_loss_is_dice_plus_cross_entropy_over_its_levels():
    image, target = batch(3)
    outputs = [torch.randn(2, 3, n, n, n) for n in (16, 8, 4)]
    loss = REGIMES["att_umamba"].objective(outputs, target, image, architecture="att_umamba")
    expected = 0.0
    for weight, logits in zip((2 / 3, 1 / 3), outputs, strict=False):
        there = target.resized(logits.shape[2:])
        expected += weight * float(
            cross_entropy(logits, there) + dice_loss(logits.softmax(1), there)
        )
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_mamba_clinix_adds_eight_tenths_of_the_region_specific_term():
    image, target = batch(3)
    logits = torch.randn(2, 3, 16, 16, 16)
    loss = REGIMES["mamba_clinix"].objective([logits], target, image, architecture="mamba_clinix")
    p = logits.softmax(1)
    expected = cross_entropy(logits, target) + dice_loss(p, target)
    expected = expected + 0.8 * region_tversky_loss(p, target, regions=(8, 8, 14))
    torch.testing.assert_close(loss, expected)


def test_mpu_net_s_loss_takes_probabilities_and_fades():
    image, target = batch()
    maps = [torch.rand(2, 2, 16, 16, 16).softmax(1) for _ in range(4)]
    objective = REGIMES["mpu_net"].objective
    loss = objective(maps, target, image, architecture="mpu_net", epoch=30)
    each = [
        tversky_loss(p, target) + torch.nn.functional.nll_loss(p.log(), target.classes)
        for p in maps
    ]
    torch.testing.assert_close(loss, each[0] + 0.4 * 0.8 * sum(each[1:]))


def test_the_attention_u_net_s_loss_is_the_mean_of_five_cross_entropies():
    image, target = batch(3, (16, 16))
    outputs = [torch.randn(2, 3, 16, 16) for _ in range(5)]
    objective = REGIMES["attention_unet"].objective
    loss = objective(outputs, target, image, architecture="attention_unet")
    expected = sum(torch.nn.functional.cross_entropy(logits, target.classes) for logits in outputs)
    torch.testing.assert_close(loss, expected / 5)


def test_mamba_ahnet_s_loss_is_joint():
    image, target = batch(2, (16, 16))
    logits, drawn = torch.randn(2, 2, 16, 16), torch.rand(2, 1, 16, 16)
    objective = REGIMES["mamba_ahnet"].objective
    joint = objective((logits, drawn), target, image, architecture="mamba_ahnet")
    alone = objective(logits, target, image, architecture="mamba_ahnet")
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    error = ((drawn - (image - low) / (high - low)) ** 2).mean()
    torch.testing.assert_close(joint, alone + 0.1 * error)


def test_probabilities_of_zero_have_finite_logits():
    assert torch.isfinite(as_logits(torch.tensor([[0.0], [1.0]]), "mpu_net")).all()


def test_schedules_follow_the_papers():
    poly = Schedule(kind="poly", epochs=200)
    assert poly.factor(0) == 1
    assert poly.factor(0.25) == pytest.approx(0.75**0.9)
    halved = Schedule(kind="halved", epochs=600)
    assert [halved.factor(p) for p in (0, 0.16, 0.17, 0.5, 0.99)] == [1, 1, 0.5, 1 / 8, 1 / 32]
    cosine = Schedule(kind="cosine", epochs=1)
    assert cosine.factor(0) == pytest.approx(0.01)
    assert cosine.factor(0.5) == pytest.approx(0.5)
    assert cosine.factor(1) == pytest.approx(0)
    assert Schedule(kind="constant", epochs=5).factor(0.9) == 1


@pytest.mark.long
def test_optimisers_have_the_papers_constants():
    parameter = torch.nn.Parameter(torch.zeros(1))
    sgd = REGIMES["att_umamba"].optimiser.build([parameter])
    assert isinstance(sgd, torch.optim.SGD)
    facts = sgd.param_groups[0]
    assert (facts["lr"], facts["weight_decay"], facts["momentum"]) == (1e-2, 3e-5, 0.99)
    assert facts["nesterov"]
    adam = RegimeFacts(regime="mamba_clinix", learning_rate=1e-3).whole_regime.optimiser.build(
        [parameter]
    )
    assert type(adam) is torch.optim.Adam
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["eps"]) == (1e-3, 1e-5)
    assert REGIMES["mpu_net"].optimiser.learning_rate == 1e-4
    assert REGIMES["attention_unet"].optimiser.learning_rate == 1e-5
    assert isinstance(
        Optimiser(kind="adamw", learning_rate=1.0).build([parameter]), torch.optim.AdamW
    )


TOPOLOGY = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 8],
    "kernel_sizes": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 1, 1],
    "n_conv_per_stage_decoder": [1, 1],
}
ARGUMENTS = {
    "nnunet": TOPOLOGY,
    "umamba": TOPOLOGY,
    "att_umamba": TOPOLOGY,
    "mamba_clinix": {**TOPOLOGY, "features_per_stage": [8, 8, 8]},
    "mpu_net": {"width": 0.25},
    "attention_unet": {"width": 0.125},
    "mamba_ahnet": {"width": 0.25},
}


SLOW = ("mpu_net", "mamba_ahnet", "mamba_clinix")  # six steps of these take a second


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in sorted(ARGUMENTS)],
)
def test_every_network_s_outputs_fit_its_regime_and_learn_from_it(name):
    torch.manual_seed(0)
    flat = name in ("attention_unet", "mamba_ahnet")
    arguments = dict(ARGUMENTS[name])
    if name != "mamba_ahnet":
        arguments["deep_supervision"] = True
    network = models.create(name, input_channels=1, num_classes=2, **arguments).train()
    image, _ = batch(2, (32, 32) if flat else (16, 16, 16))
    target = Target((image[:, 0] > 0.5).long(), torch.zeros(2, 2, dtype=torch.bool))
    regime = RegimeFacts(regime=name, learning_rate=2e-3).whole_regime
    optimiser = regime.optimiser.build(network.parameters())
    losses = []
    for _ in range(6):
        loss = regime.objective(network(image), target, image, architecture=name)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), regime.clip)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]


def test_an_objective_without_terms_but_cross_entropy_takes_no_softmax_detour():
    image, target = batch(2)
    logits = torch.randn(2, 2, 16, 16, 16)
    assert torch.equal(Objective().at_one_level(logits, target), cross_entropy(logits, target))
    assert image.shape[1] == 1


def test_att_umamba_s_epochs_are_shorter_than_nnu_net_s_as_its_section_iv_b_says():
    regime = REGIMES["att_umamba"]
    epochs = (regime.schedule.epochs, regime.iterations, regime.validations)
    assert epochs == (200, 50, 25)
    usual = REGIMES["umamba"]
    assert (usual.schedule.epochs, usual.iterations, usual.validations) == (1000, 250, 50)
