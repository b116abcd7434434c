from __future__ import annotations

from functools import cache

import pytest
import torch

openvino = pytest.importorskip("openvino")

from flarekit import models  # noqa: E402
from flarekit.engine._openvino_convert import to_openvino  # noqa: E402
from flarekit.engine._openvino_scan import ScanShape  # noqa: E402
from flarekit.models._mamba import MambaLayer  # noqa: E402
from flarekit.models.selective_scan import SelectiveScan  # noqa: E402
from tests.models.test_models import NNUNET, small  # noqa: E402
from tests.processor import needs_bf16  # noqa: E402

NAMES = sorted(set(models.names()) - set(models.PEERS))
# where the processor has no bf16, OpenVINO computes in f32 whatever it is asked for
each_precision = pytest.mark.parametrize(
    "precision", ["f32", pytest.param("bf16", marks=needs_bf16)]
)
MAMBA = ("umamba", "att_umamba", "mamba_clinix")
FLAT = {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]]}
OTHERS = {
    "2D with Mamba, a batch of slices": ("umamba", NNUNET | FLAT, (3, 1, 16, 24)),
    "tokens that are channels": (
        "umamba",
        NNUNET | {"mamba": "enc", "input_size": [4, 16, 16], "deep_supervision": True},
        (1, 1, 4, 16, 16),
    ),
    "four scans over a plane": (
        "mamba_ahnet",
        {"width": 0.25, "num_classes": 3, "scan_directions": 4},
        (2, 1, 48, 32),
    ),
    "heads and embedded positions": (
        "mpu_net",
        {
            "width": 0.25,
            "num_classes": 3,
            "paper_parts": ["position_embedding", "multi_head", "multi_scale"],
        },
        (1, 1, 8, 16, 24),
    ),
    "statistics of a slice": (
        "attention_unet",
        {"width": 0.125, "input_channels": 1, "num_classes": 3, "batch_statistics": True},
        (2, 1, 32, 32),
    ),
}


def relative(ours, reference):
    return float((ours - reference).abs().max() / reference.abs().max())


def run(model, image, precision="f32"):
    settings = {"INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return torch.from_numpy(compiled([image.numpy()])[0].copy()), compiled


def prepared(name, arguments, shape):
    torch.manual_seed(0)
    network = models.create(name, **arguments).eval().requires_grad_(False)
    image = torch.randn(shape)
    output = network(image)
    return network, image, output[0] if isinstance(output, list) else output


@cache
def converted(name):
    network, image, expected = prepared(name, *small(name))
    return network, image, expected, to_openvino(network, tuple(image.shape))


@pytest.mark.long(3)
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_gives_the_same_logits_in_openvino(name):
    network, image, expected, model = converted(name)
    assert model.input().element_type == model.output().element_type == openvino.Type.f32
    assert tuple(model.output().shape) == tuple(expected.shape)
    assert relative(run(model, image)[0], expected) < 1e-4
    assert torch.equal(network(image), expected)


@pytest.mark.long
@needs_bf16
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_gives_nearly_the_same_classes_in_bf16(name):
    _, image, expected, model = converted(name)
    rounded, compiled = run(model, image, "bf16")
    assert (rounded.argmax(1) == expected.argmax(1)).float().mean() > 0.95
    if name in MAMBA:
        assert half_precision_operations(compiled, island="mamba") == []
    assert half_precision_operations(compiled, island="") != []


@pytest.mark.slow
@pytest.mark.parametrize("what", OTHERS)
def test_other_forms_of_the_architectures_convert_too(what):
    network, image, expected = prepared(*OTHERS[what])
    assert relative(run(to_openvino(network, tuple(image.shape)), image)[0], expected) < 1e-4


class Scan(torch.nn.Module):
    """A scan whose every input comes from the image (B, D + D + N + N, L)."""

    float32_island = True

    def __init__(self, channels, states):
        super().__init__()
        self.sizes = [channels, channels, states, states]
        self.A = torch.nn.Parameter(-torch.randn(channels, states).exp(), requires_grad=False)
        self.D = torch.nn.Parameter(torch.randn(channels), requires_grad=False)
        self.scan = SelectiveScan()

    def forward(self, image):
        u, delta, B, C = image.split(self.sizes, dim=1)
        return self.scan(u, torch.nn.functional.softplus(delta - 2), self.A, B, C, self.D)


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("batch", "channels", "states", "tokens"),
    [(1, 4, 3, 1), (1, 4, 3, 2), (2, 5, 1, 7), (1, 8, 16, 101), (3, 8, 4, 960), (1, 4096, 16, 5)],
)
@each_precision
def test_scans_of_every_length_are_right_to_float32(precision, batch, channels, states, tokens):
    torch.manual_seed(0)
    scan = torch.nn.Sequential(Scan(channels, states))
    image = torch.randn(batch, 2 * channels + 2 * states, tokens)
    model = to_openvino(scan, tuple(image.shape))
    assert relative(run(model, image, precision)[0], scan(image)) < 1e-5


def test_a_scan_is_cut_into_chunks_that_hold_all_tokens_and_none_is_empty():
    for tokens in range(1, 300):
        shape = ScanShape(batch=1, channels=64, states=16, tokens=tokens)
        assert (shape.chunks - 1) * shape.chunk_tokens < tokens
        assert tokens <= shape.chunks * shape.chunk_tokens


@cache
def mamba_layer(size):
    torch.manual_seed(0)
    layer = torch.nn.Sequential(MambaLayer(32)).eval().requires_grad_(False)
    image = torch.randn(1, 32, *size)
    return layer, image, to_openvino(layer, tuple(image.shape))


@pytest.mark.quick(2)
@each_precision
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "size",
    [
        (3, 5, 7),
        pytest.param((1, 1, 1), marks=pytest.mark.long),
        pytest.param((4, 16, 16), marks=pytest.mark.long),
    ],
)
def test_a_mamba_layer_is_float32_in_a_network_of_any_precision(
    size, compress, precision, tmp_path
):
    layer, image, model = mamba_layer(size)
    openvino.save_model(model, tmp_path / "a.xml", compress_to_fp16=compress)
    output, compiled = run(openvino.Core().read_model(tmp_path / "a.xml"), image, precision)
    assert relative(output, layer(image)) < 1e-5
    imported = openvino.Core().import_model(compiled.export_model(), "CPU")
    assert relative(torch.from_numpy(imported([image.numpy()])[0]), layer(image)) < 1e-5


@pytest.mark.long
def test_conversion_leaves_the_network_untouched():
    network, image, _ = prepared("mamba_clinix", *small("mamba_clinix"))
    network.train()
    network.encoder.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attributes = {name: dict(vars(module)) for name, module in network.named_modules()}
    model = to_openvino(network, tuple(image.shape))
    for name, module in network.named_modules():
        assert vars(module).keys() == attributes[name].keys()
        assert module.training == attributes[name]["training"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    first = run(model, image)[0]
    for parameter in network.parameters():
        parameter.zero_()
    assert torch.equal(run(model, image)[0], first)


def half_precision_operations(compiled, *, island):
    """Return the names of the operations in an island that the CPU computes in bf16."""
    names = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {
            key: node.rt_info[key].astype(str)
            for key in ("originalLayersNames", "runtimePrecision", "outputPrecisions")
            if key in node.rt_info
        }
        layers = info.pop("originalLayersNames", "")
        if layers and island in layers and "bf16" in info.values():
            names.append(layers)
    return names
