"""U-Mamba, Att-UMamba, MambaClinix: the authors' numbers."""

from __future__ import annotations

import hashlib

import pytest
import torch

from flarekit import models
from flarekit.models._mamba import Mamba
from flarekit.models.selective_scan import selective_scan
from tests.models.golden import read_golden

OURS = (
    "input_channels", "n_stages", "features_per_stage", "kernel_sizes", "strides",
    "n_conv_per_stage", "num_classes", "n_conv_per_stage_decoder", "deep_supervision", "input_size",
)  # fmt: skip
FIXTURES = [
    ("umamba_bot", "umamba", {}, 5e-4),
    ("umamba_enc", "umamba", {"mamba": "enc"}, 5e-3),
    ("attumamba_bot", "att_umamba", {}, 5e-4),
    ("mambaclinix", "mamba_clinix", {}, 5e-4),
]
STRIDES = {
    "ABD": [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
    "PSMA": [[2, 2, 2]] * 4 + [[1, 2, 1]],
    "Glioblastoma": [[2, 2, 2]] * 4 + [[2, 2, 1]],
    "LiverT": [[2, 2, 2]] * 4 + [[1, 2, 2]],
    "BraTS": [[2, 2, 2]] * 5,
}
# the table of sizes: architecture, arguments, data set, channels, classes, patch, parameters
SIZES = [
    ("umamba", "bot", "ABD", 1, 14, None, 41_945_158),
    ("umamba", "enc", "ABD", 1, 14, [40, 224, 192], 42_842_798),
    ("att_umamba", "bot", "ABD", 1, 14, None, 42_329_653),
    ("att_umamba", "bot", "PSMA", 2, 2, None, 42_505_785),
    ("att_umamba", "enc", "PSMA", 2, 2, [112, 192, 112], 43_677_433),
    ("att_umamba", "bot", "Glioblastoma", 4, 4, None, 42_509_187),
    ("mamba_clinix", None, "ABD", 1, 14, None, 48_726_169),
    ("mamba_clinix", None, "LiverT", 1, 2, None, 48_874_189),
    ("mamba_clinix", None, "BraTS", 4, 4, None, 48_878_391),
]


@pytest.mark.quick(2)
@pytest.mark.parametrize(("name", "mamba", "data", "channels", "classes", "patch", "count"), SIZES)
def test_full_width_has_the_published_parameters(
    name, mamba, data, channels, classes, patch, count
):
    extra = {} if mamba is None else {"mamba": mamba, "input_size": patch}
    with torch.device("meta"):
        network = models.create(
            name,
            input_channels=channels,
            n_stages=6,
            features_per_stage=[32, 64, 128, 256, 320, 320],
            kernel_sizes=[[1, 3, 3] if data == "ABD" else [3, 3, 3]] + [[3, 3, 3]] * 5,
            strides=[[1, 1, 1], *STRIDES[data]],
            n_conv_per_stage=2,
            num_classes=classes,
            n_conv_per_stage_decoder=2,
            **extra,
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def loaded(fixture, name, extra):
    golden = read_golden(fixture)
    arguments = {
        key: golden.facts["constructor"][key] for key in OURS if key in golden.facts["constructor"]
    }
    network = models.create(name, **arguments, **extra).eval().requires_grad_(False)
    models.load_official_state_dict(name, network, golden.stored_state_dict())
    return network, golden


@pytest.mark.data
@pytest.mark.parametrize(("fixture", "name", "extra", "tolerance"), FIXTURES)
def test_the_authors_outputs_are_reproduced_at_every_level(fixture, name, extra, tolerance):
    network, golden = loaded(fixture, name, extra)
    image = golden.tensors["in/x"]
    single, double = network(image), network.double()(image.double())
    assert len(single) == len(golden.facts["output_shapes"])
    for level, (ours, exact) in enumerate(zip(single, double, strict=True)):
        torch.testing.assert_close(ours, golden.tensors[f"out/{level}"], atol=tolerance, rtol=0)
        thinned = exact[:, :, ::2, ::4, ::4]
        torch.testing.assert_close(thinned, golden.tensors[f"out64_sub/{level}"], atol=1e-9, rtol=0)


@pytest.mark.data
@pytest.mark.parametrize(("fixture", "name", "extra", "tolerance"), FIXTURES)
def test_keys_and_shapes_are_the_authors(fixture, name, extra, tolerance):  # noqa: ARG001
    network, golden = loaded(fixture, name, extra)
    shapes = {key: tuple(tensor.shape) for key, tensor in golden.stored_state_dict().items()}
    keys = models.official_state_dict_keys(name, network)
    listing = "\n".join(f"{key}:{shapes[key]}" for key in sorted(keys))
    assert hashlib.sha256(listing.encode()).hexdigest() == golden.facts["state_dict_key_sha256"]


@pytest.mark.data
def test_the_mamba_block_is_mamba_ssm_s():
    golden = read_golden("mamba_block_d16_L37")
    block = Mamba(16).double()
    block.load_state_dict(golden.stored_state_dict())
    x, y = golden.tensors["in/x"], golden.tensors["out/y"]
    for backend in ("reference", "chunked"):
        block.backend = backend
        torch.testing.assert_close(block(x), y, atol=1e-12, rtol=0)
    single = block.float()(x.float())
    torch.testing.assert_close(single, golden.tensors["out/y_float32"], atol=1e-5, rtol=0)


@pytest.mark.data
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_the_scan_alone_is_mamba_ssm_s(backend):
    golden = read_golden("mamba_block_d16_L37")
    state, mid = golden.stored_state_dict(), golden.tensors
    y = selective_scan(
        mid["mid/u_conv"], mid["mid/delta"], -state["A_log"].exp(),
        mid["mid/B"].transpose(1, 2), mid["mid/C"].transpose(1, 2), state["D"], backend=backend,
    )  # fmt: skip
    torch.testing.assert_close(y, mid["mid/y_scan_plus_D"], atol=1e-12, rtol=0)


def test_enc_needs_the_tile_s_size():
    from flarekit.core.errors import PredictorError

    arguments = {
        "input_channels": 1, "n_stages": 2, "features_per_stage": [4, 8],
        "kernel_sizes": [[3, 3]] * 2, "strides": [[1, 1], [2, 2]], "n_conv_per_stage": 1,
        "num_classes": 2, "n_conv_per_stage_decoder": 1,
    }  # fmt: skip
    with pytest.raises(PredictorError, match="input_size"):
        models.create("umamba", **arguments, mamba="enc")
    with pytest.raises(PredictorError, match="'bot' or 'enc'"):
        models.create("umamba", **arguments, mamba="all")
    network = models.create("umamba", **arguments, mamba="enc", input_size=[4, 4])
    assert network(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)


@pytest.mark.parametrize("name", ["umamba", "att_umamba", "mamba_clinix"])
def test_half_precision_leaves_the_mamba_layers_in_float32(name):
    network = models.create(
        name, input_channels=1, n_stages=3, features_per_stage=[8, 16, 16],
        kernel_sizes=[[3, 3, 3]] * 3, strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        n_conv_per_stage=2, num_classes=2, n_conv_per_stage_decoder=2,
    ).eval().requires_grad_(False)  # fmt: skip
    seen = []
    for module in network.modules():
        if isinstance(module, Mamba):
            module.register_forward_hook(lambda _, given, out: seen.extend([given[0], out]))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(1, 1, 8, 8, 8))
    assert {tensor.dtype for tensor in seen} == {torch.float32}
