from __future__ import annotations

from importlib import import_module

import pytest
import safetensors.torch
import torch

from flarekit import models
from flarekit.core.errors import PredictorError, UsageError, WeightsMismatchError

NNUNET = {
    "input_channels": 1,
    "n_stages": 3,
    "features_per_stage": [8, 8, 16],
    "kernel_sizes": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2],
    "num_classes": 3,
    "n_conv_per_stage_decoder": [2, 2],
}
SMALL = dict.fromkeys(
    ("nnunet", "umamba", "att_umamba", "mamba_clinix"), (NNUNET, (1, 1, 4, 16, 16))
)


def official_state_dict(name, network):
    """Return a module's tensors under the authors' keys, aliases included."""
    own = models.own_tensors(network)
    return {
        key: own[ours]
        for ours, keys in models.official_keys_of(name, network).items()
        for key in keys
    }


def small(name):
    """Return the arguments of a small network and its image's shape, as its own tests state it."""
    return SMALL[name] if name in SMALL else import_module(f"tests.models.test_{name}").SMALL


def build(name, seed=0):
    torch.manual_seed(seed)
    arguments, shape = small(name)
    return models.create(name, **arguments).eval().requires_grad_(False), shape


OURS = [name for name in models.names() if name not in models.PEERS]  # those: test_peers.py


@pytest.mark.parametrize("name", OURS)
def test_logits_have_the_image_s_size_and_one_channel_per_class(name):
    network, shape = build(name)
    assert network(torch.randn(shape)).shape == (shape[0], 3, *shape[2:])


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", OURS)
def test_weights_survive_a_safetensors_file_exactly(name, tmp_path):
    network, shape = build(name)
    other, _ = build(name, seed=1)
    models.save_weights(network, tmp_path / "w.safetensors", dtype=torch.float32)
    models.load_weights(other, tmp_path / "w.safetensors")
    image = torch.randn(shape)
    assert torch.equal(network(image), other(image))


def test_half_precision_leaves_what_does_not_fit_it(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.BatchNorm3d(2))
    with torch.no_grad():
        network[0].weight[0] = 1e6
        network[1].running_var.copy_(torch.tensor([1e-9, 2e5]))
    models.save_weights(network, tmp_path / "w.safetensors", dtype=torch.float16)
    stored = safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert stored["0.bias"].dtype == stored["1.weight"].dtype == torch.float16
    for name in ("0.weight", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(stored[name], network.state_dict()[name])


def test_eight_bits_and_a_scale_hold_a_network_in_half_the_bytes_of_sixteen(tmp_path):
    network, shape = build("nnunet")
    with torch.no_grad():
        network.encoder.stages[0][0].convs[0].conv.weight[0] = 0  # has no scale of its own
    sizes = {}
    for dtype in (torch.float16, torch.int8):
        path = tmp_path / f"{dtype}.safetensors"
        models.save_weights(network, path, dtype=dtype)
        sizes[dtype] = sum(t.nbytes for t in safetensors.torch.load_file(path).values())
    assert sizes[torch.int8] < 0.6 * sizes[torch.float16]
    other, _ = build("nnunet", seed=1)
    models.load_weights(other, path)
    for name, tensor in models.own_tensors(network).items():
        step = tensor.flatten(1).abs().amax(1) / 127 if tensor.ndim > 1 else tensor.abs() / 1000
        away = (models.own_tensors(other)[name] - tensor).abs()
        assert bool((away.flatten(1).amax(1) if tensor.ndim > 1 else away).le(step * 0.501).all())
    image = torch.randn(shape)
    same = network(image).argmax(1) == other(image).argmax(1)
    assert 0.97 < same.float().mean() <= 1


@pytest.mark.parametrize(
    "scale", [None, torch.ones(3), torch.ones(8, dtype=torch.int64), torch.full((8,), torch.inf)]
)
def test_eight_bits_without_the_scale_that_they_need_are_refused(scale, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 1))
    path = tmp_path / "w.safetensors"
    models.save_weights(network, path, dtype=torch.int8)
    stored = safetensors.torch.load_file(path)
    del stored["0.weight.scale"]
    safetensors.torch.save_file(stored | ({} if scale is None else {"0.weight.scale": scale}), path)
    with pytest.raises(WeightsMismatchError, match=r"0\.weight"):
        models.load_weights(network, path)


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", OURS)
def test_official_names_cover_every_tensor_and_load_back(name):
    network, shape = build(name)
    other, _ = build(name, seed=1)
    own = models.own_tensors(network)
    official = official_state_dict(name, network)
    assert len(own) <= len(official)
    models.load_official_state_dict(name, other, official)
    image = torch.randn(shape)
    assert torch.equal(network(image), other(image))


@pytest.mark.parametrize("name", ["nnunet", "umamba", "att_umamba", "mamba_clinix"])
def test_the_nnunet_family_is_2d_where_kernels_have_two_axes(name):
    flat = {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]]}
    network = models.create(name, **NNUNET | flat, deep_supervision=True).eval()
    outputs = network(torch.zeros(2, 1, 16, 16))
    assert [tuple(output.shape) for output in outputs] == [(2, 3, 16, 16), (2, 3, 8, 8)]


def test_nnunet_takes_its_own_state_dict_aliases_included():
    network, _ = build("nnunet")
    state_dict = network.state_dict()
    assert set(models.official_state_dict_keys("nnunet", network)) == set(state_dict)
    models.load_official_state_dict("nnunet", build("nnunet", seed=1)[0], state_dict)


def test_a_near_miss_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean 'nnunet'"):
        models.create("nnunett")


@pytest.mark.parametrize("name", OURS)
def test_arguments_that_an_architecture_does_not_take_are_an_error(name):
    with pytest.raises(PredictorError, match="does not take"):
        models.create(name, colour="red")
