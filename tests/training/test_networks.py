"""Statistics of batch normalisation are those of the weights that are kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flarekit.training.networks import estimate_statistics


def images(count: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [3 + 2 * torch.randn(2, 1, 4, 8, 8) for _ in range(count)]


def normalising() -> nn.Sequential:
    return nn.Sequential(nn.Dropout(0.5), nn.BatchNorm3d(1), nn.Conv3d(1, 2, 1))


def test_statistics_are_means_over_the_batches_whatever_they_were():
    network, batches = normalising(), images()
    network[1].running_var.fill_(torch.inf)
    network[1].running_mean.fill_(-7)
    assert estimate_statistics(network, batches) == 3
    assert float(network[1].running_mean) == pytest.approx(
        sum(float(batch.mean()) for batch in batches) / 3, rel=1e-4
    )
    assert float(network[1].running_var) == pytest.approx(
        sum(float(batch.var()) for batch in batches) / 3, rel=1e-4
    )


def test_nothing_else_of_the_network_changes():
    network = normalising()
    network[1].momentum = 0.25
    network.train()
    network[2].eval()
    before = {name: value.clone() for name, value in network.named_parameters()}
    estimate_statistics(network, images())
    assert [layer.training for layer in network] == [True, True, False]
    assert network[1].momentum == 0.25
    assert all(torch.equal(before[name], value) for name, value in network.named_parameters())


def test_without_a_batch_statistics_stay():
    network = normalising()
    network[1].running_mean.fill_(5)
    assert estimate_statistics(network, []) == 0
    assert float(network[1].running_mean) == 5


def test_for_a_network_without_batch_normalisation_no_image_is_drawn():
    def refused():
        raise AssertionError
        yield

    assert estimate_statistics(nn.Sequential(nn.InstanceNorm3d(1)), refused()) == 0


def test_a_network_that_fails_is_left_as_it_was():
    network = nn.Sequential(nn.BatchNorm3d(1), nn.Conv3d(3, 1, 1)).eval()
    with pytest.raises(RuntimeError):
        estimate_statistics(network, images())
    assert not network[0].training
    assert network[0].momentum == 0.1
