from __future__ import annotations

import pytest
import torch
from torch import nn

from flarekit.engine._torch_estimate import estimated_mib
from flarekit.engine._torch_networks import DeviceNetworks

CPU = torch.device("cpu")


@pytest.mark.long
def test_a_batch_of_slices_is_estimated_as_the_images_it_becomes():
    network = nn.Conv2d(1, 3, 3, padding=1).eval()
    networks = DeviceNetworks([network], CPU, class_count=3, flat=True)
    one = networks.estimated_mib((1, 1, 4, 64, 64), "fp32")
    two = networks.estimated_mib((2, 1, 4, 64, 64), "fp32")
    assert two == pytest.approx(2 * one, rel=0.01)


@pytest.mark.long
def test_nothing_is_allocated_for_an_estimate():
    network = nn.Conv3d(1, 64, 1).eval()
    shape = (1, 1, 4096, 4096, 4096)  # 16 TiB
    assert estimated_mib(network, shape, CPU, "fp32", torch.contiguous_format) >= 2**24
