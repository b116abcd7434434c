from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from flarekit import models
from flarekit.core.errors import WeightsMismatchError
from tests.models.golden import hash_filled


def small(**arguments):
    torch.manual_seed(0)
    network = models.create("attention_unet", width=0.125, num_classes=4, **arguments)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False)


def test_full_width_has_the_paper_s_parameters():
    network = models.create("attention_unet")
    assert sum(parameter.numel() for parameter in network.parameters()) == 24_496_331


def test_slices_in_a_batch_give_what_single_slices_give():
    slices = torch.randn(3, 3, 32, 48)
    for batch_statistics in (False, True):
        network = small(batch_statistics=batch_statistics)
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


@pytest.fixture(scope="module")
def golden(shared):
    stem = shared / "golden" / "pengan_flare23"
    facts = json.loads(stem.with_suffix(".json").read_text())
    aliases = facts["aliases_of_shared_storage"]
    shapes = facts["state_dict_shapes"]
    # counters are not listed as aliases, but are zero all the same
    state_dict = hash_filled((key, shape) for key, shape in shapes.items() if key not in aliases)
    state_dict |= {alias: state_dict[key] for alias, key in aliases.items()}
    return facts, state_dict, load_file(stem.with_suffix(".safetensors"))


def run(golden, **arguments):
    _, state_dict, tensors = golden
    network = models.create("attention_unet", deep_supervision=True, **arguments).eval()
    models.load_official_state_dict("attention_unet", network, state_dict)
    with torch.inference_mode():
        return network(tensors["in/x"])


@pytest.mark.data
def test_keys_and_shapes_are_the_authors(golden):
    facts, state_dict, _ = golden
    keys = models.official_state_dict_keys("attention_unet", models.create("attention_unet"))
    listing = "\n".join(f"{key}:{tuple(state_dict[key].shape)}" for key in sorted(keys))
    assert hashlib.sha256(listing.encode()).hexdigest() == facts["state_dict_key_sha256"]


@pytest.mark.data
def test_the_authors_outputs_are_reproduced(golden):
    outputs, tensors = run(golden), golden[2]
    torch.testing.assert_close(outputs[0], tensors["out/0"], atol=1e-4, rtol=0)
    for level in range(1, 5):
        thinned = outputs[level][:, :, ::2, ::2]
        torch.testing.assert_close(thinned, tensors[f"out_sub2/{level}"], atol=1e-4, rtol=0)


@pytest.mark.data
def test_the_authors_outputs_on_each_slice_s_own_statistics_are_reproduced(golden):
    outputs = run(golden, batch_statistics=True)
    torch.testing.assert_close(outputs[0], golden[2]["out_bn_batch_mode/0"], atol=1e-4, rtol=0)
