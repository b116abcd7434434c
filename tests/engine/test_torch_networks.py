from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from flarekit import models
from flarekit.core.spec import read_spec
from flarekit.engine._torch_networks import layout_of, placed

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SHIPPED = sorted(
    path.parent for path in (Path(__file__).parents[2] / "weights").glob("*/predictor.toml")
)


# where bf16 is no instruction, a large network takes PyTorch ten seconds for a small tile
@pytest.mark.slow
@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_weights_cast_once_give_the_bits_of_weights_that_autocast_casts(folder):
    spec = read_spec(folder).spec
    network = models.create(spec.architecture.name, **spec.architecture.arguments).eval()
    models.load_weights(network, folder / spec.weights.file)
    flat = spec.grid.tile_ZYX[0] == 1
    torch.manual_seed(0)
    tile = torch.randn(1, len(spec.channels), *((64, 64) if flat else (16, 32, 32)))
    once, layout = placed(network, CPU, "bf16", flat=flat)
    tile = tile.contiguous(memory_format=layout)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(once(tile), network(tile), rtol=0, atol=0)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


class Island(nn.Module):
    float32_island = True

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(2, 2)


def test_islands_and_norms_keep_float32():
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.InstanceNorm3d(2, affine=True), Island())
    once, _ = placed(network, CPU, "bf16", flat=False)
    dtypes = [parameter.dtype for parameter in once.parameters()]
    assert dtypes == [torch.bfloat16] * 2 + [torch.float32] * 4


@pytest.mark.parametrize(
    ("norm", "flat", "precision", "layout"),
    [
        (nn.InstanceNorm3d(2), False, "fp16", torch.channels_last_3d),
        (nn.InstanceNorm3d(2), False, "fp32", torch.contiguous_format),
        (nn.BatchNorm3d(2), False, "fp16", torch.channels_last_3d),
        (nn.BatchNorm2d(2), True, "fp16", torch.channels_last),
        (nn.LayerNorm(2), False, "fp16", torch.contiguous_format),
        (nn.BatchNorm3d(2), False, "fp32", torch.contiguous_format),
    ],
)
def test_on_a_gpu_half_precision_runs_channels_last(norm, flat, precision, layout):
    assert layout_of(nn.Sequential(norm), CUDA, precision, flat=flat) == layout
