"""Networks are built of somebody's arguments: within limits, and filled with sound numbers only."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from flarekit import models
from flarekit.core.errors import PredictorError, WeightsMismatchError

ARGUMENTS = {
    "input_channels": 1,
    "num_classes": 2,
    "n_stages": 2,
    "features_per_stage": [4, 4],
    "kernel_sizes": [[3, 3, 3]] * 2,
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
}


def test_a_network_that_is_larger_than_it_may_be_is_stopped_before_its_memory_is_filled():
    with pytest.raises(models.TooLargeError, match="numbers"), models.at_most(10_000):
        models.create("nnunet", **{**ARGUMENTS, "features_per_stage": [20_000, 20_000]})


def test_a_network_of_more_layers_than_it_may_have_is_stopped():
    with pytest.raises(models.TooLargeError, match="tensors"), models.at_most(10**9, 50):
        models.create("nnunet", **{**ARGUMENTS, "n_conv_per_stage": [1000, 1000]})


def test_a_network_within_the_limit_is_built_and_the_limit_ends_with_its_block():
    with models.at_most(10_000):
        models.create("nnunet", **ARGUMENTS)
    nn.Linear(1000, 1000)


@pytest.mark.parametrize(
    "changes",
    [
        {"features_per_stage": [-8, 4]},
        {"kernel_sizes": []},
        {"kernel_sizes": 3},
        {"strides": [[1, 1, 1], None]},
        {"n_conv_per_stage": ["a", 1]},
    ],
)
def test_arguments_that_no_network_takes_are_one_sentence(changes):
    with pytest.raises(PredictorError, match="does not take these arguments"):
        models.create("nnunet", **{**ARGUMENTS, **changes})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: (v * 100).to(torch.int8), "is int8, not a floating-point number"),
        (lambda v: v.to(torch.float8_e4m3fn), "is float8_e4m3fn"),
        (lambda v: v.bool(), "is bool"),
        (lambda v: v.double() * 1e300, "holds numbers beyond float32"),
        (lambda v: v * float("nan"), "holds NaN"),
        (lambda v: torch.full_like(v, torch.inf), "holds infinite numbers"),
    ],
)
def test_weights_of_another_kind_of_number_are_refused_and_not_cast(tmp_path, change, words):
    network = nn.Linear(3, 2)
    stored = {name: change(value) for name, value in network.state_dict().items()}
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(WeightsMismatchError, match=words):
        models.load_weights(network, tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_half_and_double_precision_are_taken(tmp_path, dtype):
    network = nn.Linear(3, 2)
    stored = {name: value.to(dtype) for name, value in network.state_dict().items()}
    save_file(stored, tmp_path / "model.safetensors")
    models.load_weights(network, tmp_path / "model.safetensors")
    assert torch.allclose(network.bias.detach(), stored["bias"].float())
