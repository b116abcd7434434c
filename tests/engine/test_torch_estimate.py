from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from flarekit import models
from flarekit.core.spec import read_spec
from flarekit.engine._torch_estimate import estimated_mib
from flarekit.engine._torch_networks import DeviceNetworks, placed

CPU = torch.device("cpu")
WEIGHTS = Path(__file__).parents[2] / "weights"
SHIPPED = sorted(path.parent for path in WEIGHTS.glob("**/predictor.toml"))  # locators, too
FEW = {True: (2, 96, 96), False: (16, 64, 64)}  # slices of a 2D network; of a tile


def counted_mib(network, image, precision):
    """Return the peak of what PyTorch's profiler counts while the network runs."""
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(), half:
        network(image)
        cpu = torch.profiler.ProfilerActivity.CPU
        with torch.profiler.profile(profile_memory=True, activities=[cpu]) as profiled:
            network(image)
    events = profiled.profiler.kineto_results.events()
    memory = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    now = peak = 0
    for event in memory:
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 2**20


@pytest.mark.long
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: str(folder.relative_to(WEIGHTS)))
def test_the_estimate_is_within_a_tenth_of_what_the_profiler_counts(folder, whole, precision):
    """Of a small tile, and of one of the predictor's own size."""
    spec = read_spec(folder).spec
    network = models.create(spec.architecture.name, **spec.architecture.arguments).eval()
    network.requires_grad_(requires_grad=False)
    flat = spec.grid.tile_ZYX[0] == 1
    z, y, x = FEW[flat]
    if whole:
        _, y, x = spec.grid.tile_ZYX
        z = 4 if flat else spec.grid.tile_ZYX[0]
    shape = (z, len(spec.channels), y, x) if flat else (1, len(spec.channels), z, y, x)
    once, layout = placed(network, CPU, precision, flat=flat)
    image = torch.zeros(shape).contiguous(memory_format=layout)
    counted = counted_mib(once, image, precision)
    estimated = estimated_mib(once, shape, CPU, precision, layout)
    assert estimated == pytest.approx(counted, rel=0.1)


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
