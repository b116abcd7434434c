from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from flarekit.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 200), (200, 8), (32, 32)])
def test_orthogonal_evens_out_the_singular_values(shape):
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    sizes = torch.linspace(0.05, 1, min(shape))
    result = orthogonal(u @ torch.diag(sizes) @ vh)
    values = torch.linalg.svdvals(result)
    assert result.shape == shape
    assert values.min() > 0.6
    assert values.max() < 1.3
    directions = u.T @ result @ vh.T  # they stay what they were
    assert (directions - torch.diag(directions.diag())).abs().max() < 0.1


def test_orthogonal_of_nothing_is_nothing():
    assert not orthogonal(torch.zeros(8, 27)).any()


def test_matrices_move_by_the_learning_rate_whatever_their_gradients_size():
    for size in (1e-6, 1e3):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.zeros(16, 16, 3, 3, 3))
        weight.grad = size * torch.randn_like(weight)
        Muon([weight], 1e-2, weight_decay=0).step()
        root_mean_square = weight.detach().square().mean().sqrt()
        assert float(root_mean_square) == pytest.approx(0.2e-2, rel=0.3)


def test_weights_decay_by_themselves_and_not_what_adam_moves():
    weight, bias = nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8))
    weight.grad, bias.grad = torch.zeros(8, 8), torch.zeros(8)
    Muon([weight, bias], 0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((8, 8), 0.95))
    torch.testing.assert_close(bias.detach(), torch.ones(8))


def test_vectors_and_narrow_weights_are_moved_by_adam():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(2, 16, 1, 1, 1))]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    muon = Muon(ours, 1e-2)
    adam = torch.optim.Adam(theirs, 1e-2, betas=(0.9, 0.95))
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        muon.step()
        adam.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_a_parameter_without_a_gradient_stays():
    parameter = nn.Parameter(torch.ones(8, 8))
    Muon([parameter], 1.0).step()
    assert (parameter == 1).all()


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    def gradients(seed: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(8, 12, generator=generator), torch.randn(8, generator=generator)]

    def move(parameters: list[nn.Parameter], optimiser: Muon, seed: int) -> None:
        for parameter, gradient in zip(parameters, gradients(seed), strict=True):
            parameter.grad = gradient
        optimiser.step()

    first = [nn.Parameter(torch.ones(8, 12)), nn.Parameter(torch.ones(8))]
    optimiser = Muon(first, 1e-2)
    move(first, optimiser, 0)
    stream = io.BytesIO()
    torch.save(optimiser.state_dict(), stream)
    second = [nn.Parameter(parameter.detach().clone()) for parameter in first]
    resumed = Muon(second, 1.0)
    stream.seek(0)
    resumed.load_state_dict(torch.load(stream, weights_only=True))
    move(first, optimiser, 1)
    move(second, resumed, 1)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)
