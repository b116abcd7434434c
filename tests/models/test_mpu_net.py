from __future__ import annotations

from functools import cache

import pytest
import torch

from flarekit import models
from flarekit.core.errors import PredictorError, WeightsMismatchError
from flarekit.models import _mpu_blocks
from flarekit.models.mpu_net import PAPER_PARTS
from tests.models.golden import read_golden

# for the tests of every architecture
SMALL = ({"width": 0.25, "num_classes": 3}, (2, 1, 8, 16, 24))
PARTS = sorted(PAPER_PARTS)
IMAGE = torch.linspace(-1, 1, 16 * 16 * 32).sin().reshape(1, 1, 16, 16, 32)


def small(**arguments):
    torch.manual_seed(0)
    network = models.create("mpu_net", **{"width": 0.25, **arguments})
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, _mpu_blocks.PositionAttention | _mpu_blocks.CrossAttention):
            torch.nn.init.constant_(module.gamma, 0.7)
    return network.eval().requires_grad_(False)


def parameters(**arguments):
    with torch.device("meta"):
        network = models.create("mpu_net", **arguments)
    return sum(parameter.numel() for parameter in network.parameters())


def test_full_width_has_the_paper_s_parameters():
    assert parameters() == 22_557_009


def test_the_baseline_has_the_paper_s_parameters():
    assert parameters(baseline=True) == 2_326_638


def test_layers_that_never_run_receive_no_gradient_and_all_others_do():
    network = small().train().requires_grad_(True)
    network(torch.cat([IMAGE, -IMAGE]))[:, 1].log().mean().backward()
    idle = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert idle == {name for name, _ in network.named_parameters() if name.startswith("unused.")}


@pytest.mark.long
def test_without_layers_that_never_run_weights_load_from_files_with_and_without_them(tmp_path):
    whole, lean, again = small(), small(unused=False), small(unused=False)
    assert parameters() - parameters(unused=False) == 1_049_754
    for number, (network, other) in enumerate([(whole, lean), (lean, again)]):
        path = tmp_path / f"{number}.safetensors"
        models.save_weights(network, path, dtype=torch.float32)
        with torch.no_grad():
            other.maps[0].weight.zero_()
        models.load_weights(other, path)
        assert torch.equal(network(IMAGE), other(IMAGE))
    with pytest.raises(WeightsMismatchError, match="unused.* is missing"):
        models.load_weights(whole, path)


def test_the_authors_weights_load_without_the_layers_that_never_run():
    whole, lean = small(), small(unused=False)
    with torch.no_grad():
        lean.maps[0].weight.zero_()
    own, keys = models.own_tensors(whole), models.official_keys_of("mpu_net", whole)
    official = {key: own[ours] for ours, (key,) in keys.items()}
    models.load_official_state_dict("mpu_net", lean, official)
    assert torch.equal(whole(IMAGE), lean(IMAGE))
    known = models.official_state_dict_keys("mpu_net", lean)
    assert sorted(known) == sorted(models.official_state_dict_keys("mpu_net", whole))


@pytest.mark.long
@pytest.mark.parametrize("arguments", [{}, {"baseline": True}, {"paper_parts": PARTS}])
def test_classes_sum_to_one_in_every_map(arguments):
    image = torch.randn(1, 1, 16, 16, 32)
    outputs = small(num_classes=3, deep_supervision=True, **arguments)(image)
    assert [tuple(output.shape) for output in outputs] == [(1, 3, 16, 16, 32)] * 4
    for output in outputs:
        torch.testing.assert_close(output.sum(dim=1), torch.ones(1, 16, 16, 32))
    torch.testing.assert_close(outputs[0], small(num_classes=3, **arguments)(image))


@pytest.mark.parametrize("multi_head", [False, True])
def test_queries_in_small_lots_give_what_all_at_once_give(monkeypatch, multi_head):
    torch.manual_seed(0)
    attention = _mpu_blocks.PositionAttention(32, paper_parts=["multi_head"] if multi_head else [])
    torch.nn.init.constant_(attention.gamma, 0.7)
    features = torch.randn(2, 32, 2, 3, 4)
    whole = attention(features)
    monkeypatch.setattr(_mpu_blocks, "QUERIES_AT_ONCE", 5)
    torch.testing.assert_close(attention(features), whole)


def test_position_attention_is_the_softmax_of_unscaled_products():
    torch.manual_seed(0)
    attention = _mpu_blocks.PositionAttention(16, paper_parts=()).double()
    torch.nn.init.constant_(attention.gamma, 0.7)
    features = torch.randn(2, 16, 2, 3, 4).double()
    parts = (attention.query_conv, attention.key_conv, attention.value_conv)
    query, key, value = (part(features).flatten(2) for part in parts)
    weights = torch.einsum("bci,bcj->bij", query, key).softmax(dim=2)
    attended = torch.einsum("bij,bcj->bci", weights, value).reshape(features.shape)
    torch.testing.assert_close(attention(features), 0.7 * attended + features)


@cache
def usual_output():
    return small()(IMAGE)


@pytest.mark.quick(2)
@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_the_paper_changes_the_output(part):
    assert not torch.allclose(small(paper_parts=[part])(IMAGE), usual_output())
    assert parameters(paper_parts=[part]) > parameters()


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiples of 16 voxels"):
        small(paper_parts=["patches"])(torch.zeros(1, 1, 8, 16, 16))


def test_patches_are_embedded_as_one_matrix_product_each():
    """Eq. 2: x_p E, with E of (P^3 C, D)."""
    attention = _mpu_blocks.PositionAttention(8, paper_parts=["patches"])
    features = torch.randn(1, 8, 2, 4, 2)
    patches = features.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2)  # B C z y x P P P
    flat = patches.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(1, 2, -1)
    expected = flat @ attention.embed.weight.flatten(1).T + attention.embed.bias
    torch.testing.assert_close(attention.embed(features).flatten(2).transpose(1, 2), expected)


@pytest.mark.parametrize(("baseline", "multiple"), [(False, 8), (True, 16)])
def test_volumes_that_cannot_be_halved_often_enough_are_refused(baseline, multiple):
    network = small(baseline=baseline)
    with pytest.raises(ValueError, match=f"multiples of {multiple} voxels"):
        network(torch.zeros(1, 1, multiple, multiple, multiple + 4))
    with pytest.raises(ValueError, match=f"multiples of {multiple} voxels"):
        network(torch.zeros(1, 1, multiple, multiple))


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("width", [0.01, 0.33, 0.5])
def test_any_width_runs_on_several_channels(baseline, width):
    network = small(width=width, baseline=baseline, input_channels=2)
    assert network(torch.randn(1, 2, 16, 16, 16)).shape == (1, 2, 16, 16, 16)


@pytest.mark.parametrize("bad", [{"width": 0}, {"num_classes": 0}, {"input_channels": 0}])
def test_counts_that_make_no_network_are_refused(bad):
    with pytest.raises(PredictorError, match="positive"):
        models.create("mpu_net", **bad)


@pytest.mark.parametrize(
    "bad",
    [{"paper_parts": ["lstm"]}, {"paper_parts": "multi_head"}]
    + [{"baseline": True, "paper_parts": PARTS}],
)
def test_parts_that_a_network_does_not_have_are_refused(bad):
    with pytest.raises(PredictorError, match="paper_parts"):
        models.create("mpu_net", **bad)


@pytest.mark.parametrize(
    "arguments", [{"baseline": True}, pytest.param({"paper_parts": PARTS}, marks=pytest.mark.long)]
)
def test_official_names_cover_the_variants(arguments):
    network, other = small(**arguments), small(**arguments)
    keys = models.official_keys_of("mpu_net", network)
    own = models.own_tensors(network)
    official = {key: own[ours] for ours, (key,) in keys.items()}
    models.load_official_state_dict("mpu_net", other, official)
    image = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(network(image), other(image))


def test_the_authors_weights_do_not_fit_the_paper_s_parts():
    network = small()
    keys = models.official_keys_of("mpu_net", network)
    own = models.own_tensors(network)
    with pytest.raises(WeightsMismatchError, match="is missing"):
        models.load_official_state_dict(
            "mpu_net",
            small(paper_parts=["multi_scale"]),
            {key: own[ours] for ours, (key,) in keys.items()},
        )


@pytest.mark.data
def test_keys_and_shapes_are_the_authors():
    network = models.create("mpu_net")
    own = models.own_tensors(network)
    keys = models.official_keys_of("mpu_net", network)
    shapes = {key: list(own[ours].shape) for ours, (key,) in keys.items()}
    facts = read_golden("mpunet_lits").facts
    assert shapes == facts["state_dict_shapes"]
    assert len(shapes) == facts["n_state_dict_keys"]
    assert parameters() == facts["n_parameters"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("dtype", "reference", "tolerance"),
    [(torch.float32, "head_sub", 1e-3), (torch.float64, "head64_sub", 1e-8)],
)
def test_the_authors_outputs_are_reproduced(dtype, reference, tolerance):
    golden = read_golden("mpunet_lits")
    network = models.create("mpu_net", deep_supervision=True).eval()
    models.load_official_state_dict("mpu_net", network, golden.filled_state_dict())
    with torch.inference_mode():
        outputs = network.to(dtype)(golden.tensors["in/x"].to(dtype))
    torch.testing.assert_close(outputs[0].float(), golden.tensors["out/0"], atol=1e-3, rtol=0)
    for output, number in zip(outputs, (4, 3, 2, 1), strict=True):
        expected = golden.tensors[f"{reference}/output{number}"]
        torch.testing.assert_close(output[:, :, ::2, ::4, ::4], expected, atol=tolerance, rtol=0)
