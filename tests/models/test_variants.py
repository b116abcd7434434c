"""Every option of the papers' networks: output shape, a gradient for every parameter, counts."""

from __future__ import annotations

import pytest
import torch

from flarekit import models
from flarekit.core.errors import PredictorError

FAMILY = {
    "n_stages": 4,
    "features_per_stage": [16, 16, 32, 32],
    "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 1, 1]],
    "n_conv_per_stage": 2,
    "n_conv_per_stage_decoder": 2,
    "deep_supervision": True,
}
VOLUME, SLICE = (4, 8, 8), (16, 32)
BLOCKS = {
    "conv": {"blocks": ["conv"] * 4},
    "mamba": {"blocks": ["mamba"] * 4},
    "hgcn": {"blocks": ["hgcn"] * 4, "orders": [2, 3, 4, 5]},
    "bot": {"blocks": ["hgcn", "hgcn", "hgcn", "mamba"], "orders": [4, 4, 4, 0]},
    "mixed": {"blocks": ["conv", "mamba", "hgcn", "conv"], "orders": [0, 0, 3, 0]},
    "of table 4": {"blocks": ["hgcn"] * 4, "orders": [2, 3, 4, 4], "gated_channels": 8},
}
PARTS = ("cross_attention", "layer_norm", "multi_head", "multi_scale")
VARIANTS = {
    **{f"mamba_clinix {key}": ("mamba_clinix", FAMILY | each, VOLUME)
       for key, each in BLOCKS.items()},
    **{f"{name} {where}": (name, FAMILY | {"mamba": where, "input_size": VOLUME}, VOLUME)
       for name in ("att_umamba",) for where in ("bot", "enc")},
    **{f"mpu_net {part}": ("mpu_net", {"width": 0.25, "paper_parts": [part]}, (8, 16, 16))
       for part in (*PARTS, "position_embedding", "sequence_layer")},
    "mpu_net patches": ("mpu_net", {"width": 0.25, "paper_parts": ["patches"]}, (16, 16, 32)),
    "mpu_net baseline": ("mpu_net", {"width": 0.25, "baseline": True, "deep_supervision": True},
                         (16, 16, 16)),
    "attention_unet dropout": ("attention_unet", {"width": 0.125, "dropout": 0.3,
                                                  "deep_supervision": True}, SLICE),
    "attention_unet origin": ("attention_unet", {"width": 0.125, "attention": False,
                                                 "deep_supervision": True}, SLICE),
    **{f"mamba_ahnet {key}": ("mamba_ahnet", {"width": 0.25, **each}, SLICE) for key, each in {
        "HUNet": {"attention": False, "residual": False, "mamba": False, "reconstruction": False},
        "AHNet": {"mamba": False, "reconstruction": False},
        "AHNet drawn": {"mamba": False},
        "Mamba-AHNet": {"reconstruction": False},
        "Mamba-AHNet drawn": {},
        "encoder": {"encoder_mamba": True},
        "stochastic depth": {"stochastic_depth": 0.5},
        "four directions": {"scan_directions": 4, "encoder_mamba": True},
    }.items()},
}  # fmt: skip
DEAR = (  # 0.3 s and more each
    "mpu_net cross_attention",
    "mpu_net multi_scale",
    "mpu_net layer_norm",
    "mamba_ahnet four directions",
)
NEVER = ("skip_scale", "unused.")  # in the authors' weights, and not in what they compute


def build(variant):
    name, arguments, size = VARIANTS[variant]
    torch.manual_seed(0)
    channels = {} if name == "attention_unet" else {"input_channels": 1}
    network = models.create(
        name, **{"input_channels": 1, "num_classes": 3, **channels, **arguments}
    )
    return network, torch.randn(2, 1, *size)


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(each, marks=[pytest.mark.long] if each in DEAR else [])
        for each in VARIANTS
        if "stochastic" not in each
    ],
)
def test_a_gradient_reaches_every_parameter_and_the_output_has_the_image_s_size(variant):
    network, image = build(variant)
    with torch.no_grad():  # factors that start from nothing let no gradient past
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
            if name.endswith("gamma1"):
                parameter.fill_(1.0)
    outputs = network.train()(image)
    loss = torch.zeros(())
    for output in flat(outputs):
        loss = loss + (output * torch.randn_like(output)).mean()
    loss.backward()
    without = {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None
        or (not name.endswith("bias") and not parameter.grad.abs().max())  # a norm undoes biases
    }
    assert {name for name in without if not any(each in name for each in NEVER)} == set()
    first = flat(network.eval()(image))[0]
    assert first.shape == (2, 3, *image.shape[2:])


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [each for output in outputs for each in flat(output)]


# --- MambaClinix: Table 4


def test_the_default_has_hgcn_of_rising_order_in_the_first_half_and_mamba_in_the_second():
    stated = {"blocks": ["hgcn", "hgcn", "mamba", "mamba"], "orders": [2, 3, 4, 5]}
    plain = models.create("mamba_clinix", input_channels=1, num_classes=3, **FAMILY)
    written = models.create("mamba_clinix", input_channels=1, num_classes=3, **FAMILY, **stated)
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in models.own_tensors(each).items()}
        for each in (plain, written)
    ]
    assert shapes[0] == shapes[1]


def test_the_order_of_a_stage_is_the_number_of_parts_of_its_gated_convolution():
    arguments = FAMILY | {"blocks": ["hgcn"] * 4, "orders": [2, 3, 4, 5]}
    network = models.create("mamba_clinix", input_channels=1, num_classes=3, **arguments)
    layers = network.encoder.encoder_layers
    assert [len(layer.hgConvs.widths) for layer in layers] == [2, 3, 4, 5]
    assert layers[1].hgConvs.widths == [2, 4, 8]  # of C' = 16 / 2


def test_orders_rise_no_further_than_six():
    facts = {
        "n_stages": 8, "features_per_stage": [64] * 8, "kernel_sizes": [[3, 3]] * 8,
        "strides": [[1, 1]] + [[2, 2]] * 7, "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1,
        "input_channels": 1, "num_classes": 2,
    }  # fmt: skip
    network = models.create("mamba_clinix", **facts, blocks=["hgcn"] * 8)
    orders = [len(layer.hgConvs.widths) for layer in network.encoder.encoder_layers]
    assert orders == [2, 3, 4, 5, 6, 6, 6, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": ["conv"] * 3}, "expected 4 entries"),
        ({"orders": [2, 3]}, "expected 4 entries"),
        ({"blocks": ["conv", "hgcn", "lstm", "conv"]}, "lstm"),
        ({"blocks": ["hgcn"] * 4, "orders": [2, 3, 4, 7]}, "from 2 to 6"),
        ({"blocks": ["hgcn"] * 4, "orders": [1, 3, 4, 5]}, "from 2 to 6"),
        ({"blocks": ["hgcn"] * 4, "orders": [5, 5, 5, 5]}, "halved"),
        ({"blocks": ["hgcn"] * 4, "gated_channels": 12}, "12 channels cannot be halved"),
    ],
)
def test_blocks_and_orders_that_make_no_network_are_refused(change, message):
    with pytest.raises(PredictorError, match=message):
        models.create("mamba_clinix", input_channels=1, num_classes=3, **FAMILY, **change)


# --- others


@pytest.mark.long
def test_dropout_and_stochastic_depth_act_in_training_alone():
    for variant in ("attention_unet dropout", "mamba_ahnet stochastic depth"):
        network, image = build(variant)
        network.eval()
        assert torch.equal(flat(network(image))[0], flat(network(image))[0])
        network.train()
        outputs = [flat(network(image))[0] for _ in range(4)]
        assert any(not torch.equal(outputs[0], other) for other in outputs[1:])


def test_vm_layers_of_the_encoder_leave_the_other_tensors_names():
    plain, _ = build("mamba_ahnet Mamba-AHNet drawn")
    more, _ = build("mamba_ahnet encoder")
    own, wider = models.own_tensors(plain), models.own_tensors(more)
    assert set(own) < set(wider)
    assert {name.split(".")[1] for name in set(wider) - set(own)} == {"2", "3", "4"}


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("attention_unet", {"dropout": 1.0}),
        ("mamba_ahnet", {"stochastic_depth": -0.1}),
        ("mamba_ahnet", {"encoder_mamba": True, "mamba": False}),
    ],
)
def test_rates_and_pairs_that_make_no_sense_are_refused(name, bad):
    with pytest.raises(PredictorError):
        models.create(name, **bad)
