from __future__ import annotations

import hashlib
import itertools

import pytest
import torch

from flarekit import models
from flarekit.core.errors import PredictorError, WeightsMismatchError
from tests.models.golden import read_golden

# for the tests of every architecture
SMALL = ({"width": 0.125, "input_channels": 1, "num_classes": 3}, (2, 1, 32, 32))


def small(**arguments):
    torch.manual_seed(0)
    network = models.create("attention_unet", width=0.125, num_classes=4, **arguments)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False)


@pytest.mark.long
def test_full_width_has_the_paper_s_parameters():
    network = models.create("attention_unet")
    assert sum(parameter.numel() for parameter in network.parameters()) == 24_496_331


def test_without_attention_it_is_the_flare21_network_of_20_735_897_parameters():
    network = models.create("attention_unet", attention=False, num_classes=5)
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_735_897
    keys = models.official_state_dict_keys("attention_unet", network)
    assert "deblock1.up.weight" in keys
    assert "deblock4.conv.double_conv.4.running_var" in keys
    assert not any("att" in key for key in keys)


@pytest.mark.long
def test_slices_in_a_batch_give_what_single_slices_give():
    slices = torch.randn(3, 3, 32, 48)
    for batch_statistics, attention in itertools.product((False, True), repeat=2):
        network = small(batch_statistics=batch_statistics, attention=attention)
        together = network(slices)
        alone = torch.cat([network(one[None]) for one in slices])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_batch_statistics_are_those_of_a_network_that_is_still_training():
    one = torch.randn(1, 3, 32, 32)
    switched = small(batch_statistics=True)(one)
    training = small().train()(one)
    torch.testing.assert_close(switched, training, atol=1e-5, rtol=1e-5)


def test_deep_supervision_adds_the_four_heads():
    one = torch.randn(1, 3, 32, 32)
    outputs = small(deep_supervision=True)(one)
    assert [tuple(output.shape) for output in outputs] == [(1, 4, 32, 32)] * 5
    torch.testing.assert_close(outputs[0], small()(one))


def test_slices_that_cannot_be_halved_four_times_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        small()(torch.zeros(1, 3, 40, 32))


def test_official_tensors_load_strictly_in_both_directions():
    network = small()
    keys = models.official_state_dict_keys("attention_unet", network)
    assert len(keys) == len(set(keys)) == 243
    with pytest.raises(WeightsMismatchError, match="encoder.0.weight is missing"):
        models.load_official_state_dict("attention_unet", network, {})
    with pytest.raises(WeightsMismatchError, match="surplus is not known"):
        models.load_official_state_dict("attention_unet", network, {"surplus": torch.zeros(1)})


@pytest.mark.quick(2)
@pytest.mark.parametrize("width", [0.01, 0.1, 0.2, 0.33, 0.5, 0.7])
def test_any_width_runs(width):
    network = models.create("attention_unet", width=width, num_classes=2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 16, 32)).shape == (1, 2, 16, 32)


@pytest.mark.parametrize("bad", [{"width": 0}, {"num_classes": 0}, {"input_channels": 0}])
def test_counts_that_make_no_network_are_refused(bad):
    with pytest.raises(PredictorError, match="positive"):
        models.create("attention_unet", **bad)


def run(**arguments):
    golden = read_golden("pengan_flare23")
    network = models.create("attention_unet", deep_supervision=True, **arguments).eval()
    models.load_official_state_dict("attention_unet", network, golden.filled_state_dict())
    with torch.inference_mode():
        return network(golden.tensors["in/x"]), golden.tensors


@pytest.mark.data
def test_keys_and_shapes_are_the_authors():
    golden = read_golden("pengan_flare23")
    keys = models.official_state_dict_keys("attention_unet", models.create("attention_unet"))
    shapes = golden.facts["state_dict_shapes"]
    listing = "\n".join(f"{key}:{tuple(shapes[key])}" for key in sorted(keys))
    assert hashlib.sha256(listing.encode()).hexdigest() == golden.facts["state_dict_key_sha256"]


@pytest.mark.data
def test_the_authors_outputs_are_reproduced():
    outputs, tensors = run()
    torch.testing.assert_close(outputs[0], tensors["out/0"], atol=1e-4, rtol=0)
    for level in range(1, 5):
        thinned = outputs[level][:, :, ::2, ::2]
        torch.testing.assert_close(thinned, tensors[f"out_sub2/{level}"], atol=1e-4, rtol=0)


@pytest.mark.data
def test_the_authors_outputs_on_each_slice_s_own_statistics_are_reproduced():
    outputs, tensors = run(batch_statistics=True)
    torch.testing.assert_close(outputs[0], tensors["out_bn_batch_mode/0"], atol=1e-4, rtol=0)
