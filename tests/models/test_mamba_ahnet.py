from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from flarekit import models
from flarekit.core.errors import PredictorError
from flarekit.models.mamba_ahnet import (
    AttentionGate,
    VisionMambaLayer,
    VisionStateSpace,
    _directed,
    _undirected,
)
from flarekit.models.selective_scan import selective_scan

ROWS = {
    "HUNet": {"attention": False, "mamba": False, "reconstruction": False},
    "AHNet": {"mamba": False, "reconstruction": False},
    "AHNet + reconstruction": {"mamba": False},
    "Mamba-AHNet": {"reconstruction": False},
    "Mamba-AHNet + reconstruction": {},
}


def small(**arguments):
    torch.manual_seed(0)
    return models.create("mamba_ahnet", width=0.25, **arguments)


def test_full_width_has_9_3_million_parameters_and_16_4_gmac():
    network = models.create("mamba_ahnet", reconstruction=False).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 9_319_550
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 1, 256, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(16.4, abs=0.05)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_tables_has_its_parts_and_no_others(row):
    names = [name for name, _ in small(**ROWS[row]).named_parameters()]
    assert any(".gate." in name for name in names) == ("HUNet" not in row.split())
    assert any(".mamba." in name for name in names) == ("Mamba" in row)
    assert any(name.startswith("reconstruction") for name in names) == ("reconstruction" in row)


@pytest.mark.parametrize("row", ROWS)
def test_the_image_is_reconstructed_while_training_only(row):
    network, slices = small(**ROWS[row]), torch.rand(2, 1, 32, 48)
    with torch.no_grad():
        trained, evaluated = network.train()(slices), network.eval()(slices)
    assert evaluated.shape == (2, 2, 32, 48)
    if "reconstruction" not in row:
        assert trained.shape == (2, 2, 32, 48)
        return
    logits, image = trained
    assert logits.shape == (2, 2, 32, 48)
    assert image.shape == slices.shape
    assert 0 < float(image.min()) < float(image.max()) < 1


@pytest.mark.parametrize("directions", [1, 4])
def test_gradients_reach_every_parameter(directions):
    network = small(scan_directions=directions).train()
    logits, image = network(torch.rand(2, 1, 32, 32))
    (logits.square().mean() + image.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_slices_of_a_batch_do_not_see_each_other():
    network, slices = small().eval(), torch.rand(3, 1, 32, 32)
    with torch.inference_mode():
        forwards, backwards = network(slices), network(slices.flip(0))
    torch.testing.assert_close(forwards, backwards.flip(0), atol=1e-5, rtol=1e-5)


def test_the_gate_is_algorithm_3():
    torch.manual_seed(0)
    gate = AttentionGate(4).eval()
    skip, raised = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    with torch.inference_mode():
        theta = gate.theta[0](skip) / (1 + 1e-3) ** 0.5
        phi = gate.phi[0](raised) / (1 + 1e-3) ** 0.5
        psi = gate.psi[0](torch.relu(theta + phi)) / (1 + 1e-3) ** 0.5
        torch.testing.assert_close(gate(skip, raised), skip * torch.sigmoid(psi))


def test_the_vision_state_space_is_equation_7():
    torch.manual_seed(0)
    vss = VisionStateSpace(4, 1).double()
    w = torch.randn(2, 6, 4).double()
    scan = vss.scans[0]
    u = vss.expand(w).transpose(1, 2)
    taps = functional.pad(u, (3, 0)).unfold(2, 4, 1)  # causal: three zeros before
    u = functional.silu((taps * vss.dwconv.weight[:, 0, None]).sum(-1) + vss.dwconv.bias[:, None])
    dt, B, C = scan.x_proj(u.transpose(1, 2)).split([1, 16, 16], dim=-1)
    y = selective_scan(
        u, functional.softplus(scan.dt_proj(dt)).transpose(1, 2), -scan.A_log.exp(),
        B.transpose(1, 2), C.transpose(1, 2), scan.D, backend="reference",
    )  # fmt: skip
    w1 = vss.norm(y.transpose(1, 2))
    expected = vss.shrink(w1 * functional.silu(vss.gate(w)))
    torch.testing.assert_close(vss(w, (2, 3)), expected)


def test_the_vision_mamba_layer_is_equations_5_and_6():
    torch.manual_seed(0)
    layer = VisionMambaLayer(4, 1).double()
    with torch.no_grad():
        layer.scale.normal_()
    features = torch.randn(1, 4, 2, 3).double()
    tokens = features[0].reshape(4, 6).T[None]  # pixels row by row
    m = layer.vss(layer.norm_in(tokens), (2, 3)) + layer.scale * tokens
    expected = layer.project(layer.norm_out(m))[0].T.reshape(1, 4, 2, 3)
    torch.testing.assert_close(layer(features), expected)


def test_the_four_directions_run_along_rows_and_columns_both_ways():
    tokens = torch.arange(6.0).reshape(1, 1, 6)  # rows 0 1 2 / 3 4 5
    orders = [_directed(tokens, (2, 3), k)[0, 0].int().tolist() for k in range(4)]
    assert orders == [
        [0, 1, 2, 3, 4, 5],
        [5, 4, 3, 2, 1, 0],
        [0, 3, 1, 4, 2, 5],
        [5, 2, 4, 1, 3, 0],
    ]
    for k in range(4):
        assert torch.equal(_undirected(_directed(tokens, (2, 3), k), (2, 3), k), tokens)


def test_half_precision_leaves_the_mamba_layers_in_float32():
    network, seen = small().eval(), []
    for module in network.modules():
        if isinstance(module, VisionStateSpace):
            module.register_forward_hook(lambda _, given, out: seen.extend([given[0], out]))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(1, 1, 32, 32))
    assert {tensor.dtype for tensor in seen} == {torch.float32}


@pytest.mark.parametrize("bad", [{"width": 0}, {"num_classes": 0}, {"scan_directions": 2}])
def test_arguments_that_make_no_network_are_refused(bad):
    with pytest.raises(PredictorError):
        models.create("mamba_ahnet", **bad)


def test_slices_that_cannot_be_halved_four_times_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        small()(torch.zeros(1, 1, 40, 32))
