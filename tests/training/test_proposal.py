from __future__ import annotations

import subprocess
import sys

import pytest

from flarekit.training.proposal import fit, step_bytes, topology

STEP = """
import resource, sys
import torch
from flarekit import models
from flarekit.training.losses import Target
from flarekit.training.proposal import topology
from flarekit.training.regimes import REGIMES

tile, classes = (32, 64, 64), 8
plan = topology((3.0, 1.5, 1.5), tile, 16)
stages = len(plan.features)
network = models.create(
    "nnunet", input_channels=1, n_stages=stages, features_per_stage=list(plan.features),
    kernel_sizes=list(plan.kernels), strides=list(plan.strides), num_classes=classes,
    n_conv_per_stage=[1] + [2] * (stages - 1), n_conv_per_stage_decoder=[1] * (stages - 1),
    deep_supervision=True)
optimiser = REGIMES["compact"].optimiser.build(network.parameters())
for _ in range(2):
    image, target = torch.randn(2, 1, *tile), torch.randint(0, classes, (2, *tile))
    known = Target(target, torch.zeros(2, classes, dtype=torch.bool))
    loss = REGIMES["compact"].objective(network(image), known, image, architecture="nnunet")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_an_axis_of_thick_slices_is_neither_convolved_nor_halved_at_first():
    network = topology((5.0, 1.0, 1.0), (16, 64, 64), 16)
    assert network.kernels[0] == (1, 3, 3)
    assert network.strides[:2] == ((1, 1, 1), (1, 2, 2))
    assert network.kernels[-1] == (3, 3, 3)


@pytest.mark.parametrize("memory_gib", [0.7, 2, 16])
def test_a_tile_fits_the_memory_and_the_network_can_halve_it(memory_gib):
    found = fit(
        [(100, 512, 512)] * 3,
        [(3.0, 0.8, 0.8)] * 3,
        (20.0, 20.0, 20.0),
        classes=5,
        channels=1,
        memory_bytes=memory_gib * 2**30,
        on_gpu=False,
    )
    assert found.step_bytes <= memory_gib * 2**30
    assert all(n % each == 0 for n, each in zip(found.tile, found.topology.multiple, strict=True))
    assert found.spacing_mm[1] > 0.8  # a scan is many tiles large


def test_a_grid_does_not_get_so_coarse_that_the_smallest_label_vanishes():
    def spacing(extent_mm):
        scans = [(300, 512, 512)] * 3, [(1.0, 0.8, 0.8)] * 3
        return fit(
            *scans, extent_mm, classes=2, channels=1, memory_bytes=2**31, on_gpu=False
        ).spacing_mm

    assert max(spacing((4.0, 4.0, 4.0))) <= 1.0
    assert min(spacing((80.0, 80.0, 80.0))) > 1.5


@pytest.mark.slow
def test_what_a_step_is_said_to_take_is_about_what_it_takes():
    said = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    taken = int(said.stdout)
    network = topology((3.0, 1.5, 1.5), (32, 64, 64), 16)
    assert 0.8 < step_bytes(network, (32, 64, 64), 2, 8, 1) / taken < 1.6
