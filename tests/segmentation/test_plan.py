from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from flarekit.core.errors import BudgetError
from flarekit.core.spec import parse_spec
from flarekit.core.volume import Geometry, Volume
from flarekit.preprocess import locate
from flarekit.segmentation.memory import Memory
from flarekit.segmentation.plan import Limits, TileTimer, plan_case, tiles_deadline


class Engine:
    """Counts tiles as a window of 4 voxels does; a tile takes as long as it is told to."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.timed = 0

    def seconds_per_tile(self, _channels):
        self.timed += 1
        return self.seconds

    def count_tiles(self, shape_ZYX, step, _needed_ZYX=None):
        return int(np.prod([max(1, round(n / (4 * step))) for n in shape_ZYX]))


@pytest.fixture
def case(facts):
    voxels = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    geometry = Geometry(shape_ZYX=voxels.shape, affine=np.eye(4), header=None)
    volumes = [Volume(voxels_ZYX=voxels, geometry=geometry, path=Path("x"))]
    return locate(volumes, facts), facts


@pytest.fixture
def facts():
    grid = {"spacing_mm_ZYX": [1.0, 1.0, 1.0], "tile_ZYX": [4, 4, 4], "mirror_axes": [0, 1, 2]}
    content = {
        "name": "n",
        "title": "t",
        "convention": "flare",
        "architecture": {"name": "nnunet"},
        "channels": [{"name": "CT", "intensity": {"kind": "z_score"}}],
        "grid": grid,
        "labels": {"organ": 1},
        "weights": {"sha256": "0" * 64, "parameters": 1},
    }
    return parse_spec(content, source="test")


def plan_within(case, seconds_left, tile_s, known=None):
    engine = Engine(tile_s)
    timer = TileTimer(engine=engine, channels=1, seconds=known)
    deadline = None if seconds_left is None else time.monotonic() + seconds_left
    return plan_case(*case, timer, Limits(deadline=deadline)), engine


def test_without_a_limit_nothing_is_traded_and_nothing_timed(case):
    plan, engine = plan_within(case, None, 1.0)
    assert plan.effort.step == 0.5
    assert plan.effort.runs == 8
    assert plan.traded == ()
    assert engine.timed == 0


# 16^3 tiles at half steps: 4096 x 8 flips; at 0.75: 11^3; at 1: 8^3
@pytest.mark.parametrize(
    ("seconds_left", "step", "runs", "traded"),
    [
        (60, 0.5, 8, 0),
        (10, 0.5, 1, 1),
        (3, 0.75, 1, 2),
        (1.2, 1.0, 1, 2),
    ],
)
def test_flips_go_first_then_tiles_stand_further_apart(case, seconds_left, step, runs, traded):
    plan, _ = plan_within(case, seconds_left, 1e-3)
    assert (plan.effort.step, plan.effort.runs) == (step, runs)
    assert len(plan.traded) == traded
    assert plan.placement.shape_ZYX == (32, 32, 32)


def test_at_last_the_grid_gets_coarser_and_the_whole_scan_is_still_looked_at(case):
    plan, _ = plan_within(case, 0.6, 1e-3)
    assert plan.effort.step == 1.0
    assert plan.placement.shape_ZYX[0] < 32
    assert "coarser" in plan.traded[-1]
    back = plan.placement.restore(np.ones(plan.placement.shape_ZYX, np.uint8))
    assert back.shape == (32, 32, 32)


def test_the_tiles_get_what_the_mask_leaves(case):
    plan, _ = plan_within(case, 10, 1e-6)
    deadline = time.monotonic() + 10
    assert 9 < tiles_deadline(plan.placement, deadline) - time.monotonic() < 10


def test_a_tile_that_was_timed_before_is_timed_again_only_where_it_matters(case):
    _, engine = plan_within(case, 60, 1e-3, known=1e-3)
    assert engine.timed == 0
    plan, engine = plan_within(case, 60, 1e-3, known=1.0)
    assert engine.timed == 1
    assert plan.traded == ()


def test_a_grid_that_does_not_fit_into_memory_gets_coarser(case, monkeypatch):
    monkeypatch.setattr("flarekit.segmentation.memory.resident_mib", lambda: 100.0)
    monkeypatch.setattr(
        "flarekit.segmentation.plan.resampling_mib",
        lambda placement: float(np.prod(placement.shape_ZYX)) / 1e3,
    )

    def plan_in(budget_mib):
        return plan_case(*case, None, Limits(memory=Memory(budget_mib=budget_mib)))

    roomy = plan_in(1000.0)
    assert roomy.placement.shape_ZYX == (32, 32, 32)
    assert roomy.traded == ()
    tight = plan_in(134.0)  # 32768 voxels ask for 33 MiB; 24 are set aside
    assert tight.placement.shape_ZYX == (20, 20, 20)
    assert tight.traded == ("for memory: a grid 1.6 times coarser",)
    with pytest.raises(BudgetError, match="even on the coarsest grid, takes up to 4 MiB"):
        plan_in(125.0)


def test_nothing_is_resampled_to_make_a_plan(case, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("resampled")

    monkeypatch.setattr("flarekit.preprocess.resample.resample", forbidden)
    monkeypatch.setattr("flarekit.preprocess.route.resample", forbidden)
    plan, _ = plan_within(case, 0.6, 1e-3)
    assert "coarser" in plan.traded[-1]
