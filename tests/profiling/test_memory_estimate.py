"""The estimate of a network's memory beside what PyTorch's profiler counts, network by network."""

from __future__ import annotations

import json
from pathlib import Path

import memory_estimate
import pytest

from flarekit.core.spec import read_spec
from flarekit.engine._cpu import cpu_runs_bf16
from tests.processor import needs_bf16

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights"
NETWORKS = sorted(path.parent for path in WEIGHTS.glob("**/predictor.toml"))  # locators, too
each_network = pytest.mark.parametrize(
    "folder", NETWORKS, ids=lambda folder: str(folder.relative_to(WEIGHTS))
)


@pytest.mark.long(2)
@pytest.mark.parametrize(
    "precision",
    [
        pytest.param("bf16", marks=needs_bf16),
        pytest.param("fp32", marks=[pytest.mark.slow] if cpu_runs_bf16() else []),
    ],
)
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
@each_network
def test_the_estimate_is_within_a_tenth_of_what_the_profiler_counts(folder, whole, precision):
    """Of a small tile, and of one of the predictor's own size."""
    spec = read_spec(folder).spec
    told = memory_estimate.mib_of(spec, memory_estimate.shape_of(spec, whole=whole), precision)
    assert told["estimated_mib"] == pytest.approx(told["counted_mib"], rel=0.1)


@each_network
def test_it_was_within_a_tenth_for_every_shipped_network_s_own_tile(folder):
    """As `profiling/memory_estimate.py NAME` measured it."""
    results = json.loads((ROOT / "profiling" / memory_estimate.NAME).read_text())["networks"]
    row = results[str(folder.relative_to(WEIGHTS))]
    assert row["shape"] == list(memory_estimate.shape_of(read_spec(folder).spec))
    for precision in memory_estimate.PRECISIONS:
        told = row[precision]
        assert told["estimated_mib"] == pytest.approx(told["counted_mib"], rel=0.1)
