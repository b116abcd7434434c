"""Labels decided on the device are those that the host decides."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.core.grid import Grid
from flarekit.engine import Restoration, _torch_restore
from flarekit.engine._torch_memory import NoRoom, attempt
from flarekit.engine._torch_restore import TorchRestorer
from flarekit.engine.torch import TorchEngine
from flarekit.preprocess.axis_maps import axis_map, matrix_of
from flarekit.preprocess.decide import Decider
from tests.engine.test_torch import NearestClass

CPU = torch.device("cpu")
VALUES = np.array([0, 3, 1, 7], np.uint8)


def restoration_of(grid, target, orders, padding, *, values=VALUES, regions=False):
    weights = [
        matrix_of(axis_map(n, m, order)) for n, m, order in zip(grid, target, orders, strict=True)
    ]
    return Restoration(
        padding=padding,
        weights_Z=weights[0],
        weights_Y=weights[1],
        weights_X=weights[2],
        class_values=values,
        regions=regions,
    )


def smooth_logits(shape, classes, seed):
    """Return logits without ties: differences of order 1 between neighbours would be unusual."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(classes, *shape)).astype(np.float32)


def both(grid, target, orders, padding, cuts, *, regions=False, seed=0):
    """Return the labels that the device and the host decide from the same slabs."""
    padded = tuple(low + n + high for (low, high), n in zip(padding, grid, strict=True))
    values = VALUES[1:] if regions else VALUES
    logits = smooth_logits(padded, len(values), seed)
    expected = np.zeros(target, np.uint8)
    decider = Decider(grid, expected, orders, values, regions=regions, padding=padding)
    restorer = TorchRestorer(
        restoration_of(grid, target, orders, padding, values=values, regions=regions), CPU
    )
    parts, edges = [], [0, *sorted({min(cut, padded[0]) for cut in cuts}), padded[0]]
    for first, last in zip(edges, edges[1:], strict=False):
        slab = logits[:, first:last]
        decider.add(slab)
        parts.append(restorer.add(torch.from_numpy(slab)))
    decider.finish()
    return np.concatenate(parts), expected


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 14)] * 3),
    st.sampled_from([(1, 1, 1), (0, 1, 1), (3, 3, 3), (0, 3, 3)]),
    st.lists(st.integers(0, 12), max_size=3),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 3),
    st.booleans(),
)
def test_the_device_decides_as_the_host_whatever_the_grids(
    grid, target, orders, cuts, padding, regions
):
    ours, expected = both(grid, target, orders, padding, cuts, regions=regions)
    assert ours.shape == expected.shape
    assert (ours != expected).mean() <= 0.01  # near-ties fall either way


def test_a_slice_at_a_time_gives_the_same_labels(monkeypatch):
    whole, _ = both((9, 8, 7), (30, 20, 10), (1, 1, 1), ((0, 0),) * 3, [3, 5])
    monkeypatch.setattr(_torch_restore, "_MOST_BYTES", 1)
    single, expected = both((9, 8, 7), (30, 20, 10), (1, 1, 1), ((0, 0),) * 3, [3, 5])
    np.testing.assert_array_equal(single, whole)
    assert (single != expected).mean() < 1e-3


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_device_without_room_leaves_it_to_the_host(monkeypatch, failing):
    calls = []

    def attempted(work):
        calls.append(1)
        return NoRoom("not enough") if len(calls) - 1 == failing else attempt(work)

    monkeypatch.setattr(_torch_restore, "attempt", attempted)
    ours, expected = both((9, 8, 7), (30, 20, 10), (1, 1, 1), ((0, 0),) * 3, [3, 5])
    assert (ours != expected).mean() < 1e-3


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_sweep_gives_the_labels_of_the_scans_grid(device):
    truth = np.random.default_rng(0).integers(0, 4, (12, 20, 17))
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 8, 8))
    compute = TorchEngine(
        [NearestClass(4)], grid, class_count=4, device=torch.device(device, 0), precision="fp32"
    )
    target = (24, 40, 34)
    made = partial(restoration_of, truth.shape, target, (0, 0, 0), ((0, 0),) * 3)
    parts = []
    for slab in compute.sweep(truth[None].astype(np.float32)):
        slab.sums.on_host = False  # as on a device
        parts.append(slab.labels(made))
    expected = VALUES[truth].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_on_the_host_nothing_is_decided_for_the_caller():
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 8, 8))
    compute = TorchEngine([NearestClass(4)], grid, class_count=4, device=CPU, precision="fp32")
    slabs = compute.sweep(np.zeros((1, 4, 8, 8), np.float32))
    assert [slab.labels(lambda: pytest.fail("not asked for")) for slab in slabs] == [None]
