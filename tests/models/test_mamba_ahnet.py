"""Mamba-AHNet: the paper's five rows, its gate and its Eq. 5-7 done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from flarekit import models
from flarekit.core.errors import PredictorError
from flarekit.models._ahnet_blocks import AttentionGate, StateSpace, VMLayer

# for the tests of every architecture
SMALL = ({"width": 0.25, "num_classes": 3}, (2, 1, 32, 32))
FLAGS = ("attention", "residual", "mamba", "reconstruction")
ROWS = {
    "HUNet": (False, False, False, False),
    "AHNet": (True, True, False, False),
    "AHNet + reconstruction": (True, True, False, True),
    "Mamba-AHNet": (True, True, True, False),
    "Mamba-AHNet + reconstruction": (True, True, True, True),
}
MARKS = (".gate.", ".residual.", ".vm.", "reconstruction")  # of each flag's tensors


def build(row="Mamba-AHNet + reconstruction", **arguments):
    torch.manual_seed(0)
    flags = dict(zip(FLAGS, ROWS[row], strict=True))
    return models.create("mamba_ahnet", width=0.25, num_classes=3, **flags, **arguments)


def with_random_statistics(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.3)
    return network.eval().requires_grad_(False)


def multiplications(network, shape):
    """Count those of convolutions, linear layers and scans (3 per state, 1 for D)."""
    counts = []

    def count(module, inputs, output):
        if isinstance(module, nn.ConvTranspose2d):
            counts.append(inputs[0].numel() * module.weight[0].numel())
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            counts.append(output.numel() * module.weight[0].numel())
        elif isinstance(module, StateSpace):
            counts.append(output.numel() * (3 * module.A_log.shape[1] + 1))

    handles = [module.register_forward_hook(count) for module in network.modules()]
    with torch.inference_mode():
        network(torch.zeros(shape))
    for handle in handles:
        handle.remove()
    return sum(counts)


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "parameters"),
    [
        ("HUNet", 6_979_650),
        ("AHNet", 8_636_538),
        ("AHNet + reconstruction", 12_559_155),
        ("Mamba-AHNet", 9_313_914),
        ("Mamba-AHNet + reconstruction", 13_236_531),
    ],
)
def test_each_row_of_the_tables_has_its_own_size(row, parameters):
    with torch.device("meta"):
        network = models.create("mamba_ahnet", **dict(zip(FLAGS, ROWS[row], strict=True)))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.slow
def test_a_full_slice_costs_16_5_billion_multiplications():
    network = models.create("mamba_ahnet").eval()
    assert multiplications(network, (1, 1, 256, 256)) == pytest.approx(16.5e9, rel=0.01)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_the_parts_that_its_flags_name_and_no_others(row):
    names = [name for name, _ in build(row).named_parameters()]
    found = tuple(any(mark in name for name in names) for mark in MARKS)
    assert found == ROWS[row]


def test_only_the_three_deepest_levels_of_the_segmentation_have_mamba():
    names = [name for name, _ in build().named_parameters() if ".vm." in name]
    assert {name.split(".vm.")[0] for name in names} == {f"decoder.blocks.{i}" for i in range(3)}


@pytest.mark.quick(2)
@pytest.mark.parametrize("row", ROWS)
def test_reconstruction_is_returned_only_while_training(row):
    network, slices = build(row), torch.randn(2, 1, 32, 48)
    assert network.eval()(slices).shape == (2, 3, 32, 48)
    output = network.train()(slices)
    if ROWS[row][3]:
        output, image = output
        assert image.shape == slices.shape
        assert 0 <= image.min() < image.max() <= 1
    assert output.shape == (2, 3, 32, 48)


def test_a_network_without_the_reconstruction_has_the_same_tensors_otherwise():
    full, lean = build().eval(), build("Mamba-AHNet")
    kept = {k: v for k, v in full.state_dict().items() if not k.startswith("reconstruction")}
    lean.load_state_dict(kept)
    slices = torch.randn(1, 1, 32, 32)
    assert torch.equal(full(slices), lean.eval()(slices))


def test_deep_supervision_adds_coarser_logits_while_training():
    network, slices = build("AHNet", deep_supervision=True), torch.randn(2, 1, 32, 32)
    sizes = [tuple(logits.shape) for logits in network(slices)]
    assert sizes == [(2, 3, n, n) for n in (32, 16, 8, 4)]
    assert network.eval()(slices).shape == (2, 3, 32, 32)
    outputs, image = build(deep_supervision=True)(slices)
    assert len(outputs) == 4
    assert image.shape == slices.shape


@pytest.mark.quick(1)
@pytest.mark.parametrize("directions", [1, 4])
def test_gradients_reach_every_parameter(directions):
    network = build(scan_directions=directions)
    logits, image = network(torch.randn(2, 1, 32, 32))
    ((logits * torch.randn_like(logits)).sum() + image.square().sum()).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_permuting_the_slices_of_a_batch_permutes_the_logits():
    network, slices = with_random_statistics(build()), torch.randn(3, 1, 32, 48)
    order = [2, 0, 1]
    torch.testing.assert_close(network(slices[order]), network(slices)[order], atol=1e-5, rtol=1e-5)


def test_the_gate_is_algorithm_3_done_by_hand():
    gate = AttentionGate(2).eval()
    for module, weight in ((gate.theta, [[1.0, 0.0]]), (gate.phi, [[0.0, 2.0]]), (gate.psi, [[3]])):
        module[0].weight.data = torch.tensor(weight).float()[..., None, None]
        module[1].running_var.fill_(1 - 1e-3)  # the norm is the identity
    gate.psi[1].bias.data.fill_(-3.0)
    skip = torch.tensor([[1.0, 5.0], [-4.0, 7.0]]).T.reshape(1, 2, 1, 2)  # (1, 5) and (-4, 7)
    raised = torch.tensor([[9.0, 0.5], [9.0, 1.0]]).T.reshape(1, 2, 1, 2)  # (9, 0.5) and (9, 1)
    # ReLU(1 + 2 * 0.5) = 2 and ReLU(-4 + 2) = 0, so psi is 3 * 2 - 3 = 3 and -3
    rate = torch.tensor([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))])
    torch.testing.assert_close(gate(skip, raised), skip * rate)


def state_space(scan, tokens_LD):
    """Return y of one selective scan, token by token, in the order given."""
    rank, states = scan.dt_proj.in_features, scan.A_log.shape[1]
    A, h, ys = -scan.A_log.exp(), torch.zeros_like(scan.A_log), []
    for u in tokens_LD:
        dt, B, C = torch.split(scan.x_proj.weight @ u, [rank, states, states])
        delta = (1 + (scan.dt_proj.weight @ dt + scan.dt_proj.bias).exp()).log()
        h = (delta[:, None] * A).exp() * h + (delta * u)[:, None] * B
        ys.append(h @ C + scan.D * u)
    return torch.stack(ys)


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def silu(x):
    return x / (1 + (-x).exp())


def literal_vm(layer, plane_CYX, ssm_of_u):
    """Eq. 5, 6 and 7 on one plane; `ssm_of_u` is SSM(SiLU(DWConv(.))) of its (L, D) argument."""
    vss, x = layer.vss, plane_CYX.flatten(1).T
    first, second = (layer_norm(x, layer.norm) @ part.T for part in vss.in_proj.weight.chunk(2))
    w1 = layer_norm(ssm_of_u(first), vss.norm)  # Eq. 7
    w2 = silu(second)
    m = (w1 * w2) @ vss.out_proj.weight.T + layer.scale * x  # Eq. 5
    out = layer_norm(m, layer.out_norm) @ layer.projection.weight.T + layer.projection.bias  # Eq. 6
    return out.T.reshape(plane_CYX.shape)


def random_vm(directions):
    torch.manual_seed(1)
    layer = VMLayer(4, directions=directions).double().requires_grad_(False)
    for parameter in layer.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return layer, torch.randn(2, 4, 3, 5, dtype=torch.float64)


def test_the_vm_layer_is_eq_5_to_7_taken_literally():
    layer, planes = random_vm(directions=1)
    conv, (scan,) = layer.vss.conv, layer.vss.scans

    def ssm_of_u(u_LD):
        convolved = torch.stack(
            [
                conv.bias
                + sum(conv.weight[:, 0, 3 - k] * u_LD[t - k] for k in range(4) if t - k >= 0)
                for t in range(len(u_LD))
            ]
        )
        return state_space(scan, silu(convolved))

    expected = torch.stack([literal_vm(layer, plane, ssm_of_u) for plane in planes])
    torch.testing.assert_close(layer(planes), expected)


def test_four_directions_scan_rows_and_columns_forwards_and_backwards():
    layer, planes = random_vm(directions=4)
    rows = list(range(15))
    columns = [5 * y + x for x in range(5) for y in range(3)]

    def ssm_of_u(u_LD):
        plane = layer.vss.conv(u_LD.T.reshape(1, -1, 3, 5))[0]
        tokens, total = silu(plane).flatten(1).T, 0
        for scan, order in zip(
            layer.vss.scans, (rows, rows[::-1], columns, columns[::-1]), strict=True
        ):
            y = torch.empty_like(tokens)
            y[order] = state_space(scan, tokens[order])
            total = total + y
        return total

    expected = torch.stack([literal_vm(layer, plane, ssm_of_u) for plane in planes])
    torch.testing.assert_close(layer(planes), expected)


def test_half_precision_leaves_the_scan_in_float32(monkeypatch):
    seen = []
    forward = StateSpace.forward
    monkeypatch.setattr(StateSpace, "forward", lambda *a: seen.append(forward(*a)) or seen[-1])
    network, slices = with_random_statistics(build()), torch.randn(1, 1, 32, 32)
    exact = network(slices)
    with torch.autocast("cpu", torch.bfloat16):
        halved = network(slices)
    assert {y.dtype for y in seen} == {torch.float32}
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), exact, atol=0.15, rtol=0.1)


def test_slices_that_cannot_be_halved_four_times_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        build()(torch.zeros(1, 1, 40, 32))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"width": 0}, "positive"),
        ({"num_classes": 0}, "positive"),
        ({"scan_directions": 2}, "1 or 4"),
    ],
)
def test_arguments_that_make_no_network_are_refused(bad, message):
    with pytest.raises(PredictorError, match=message):
        models.create("mamba_ahnet", **bad)
