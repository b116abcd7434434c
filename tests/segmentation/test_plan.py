from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from flarekit.core.errors import BudgetError
from flarekit.core.first_pass import Locator
from flarekit.core.grid import Grid
from flarekit.core.spec import parse_spec
from flarekit.core.volume import Geometry, Volume
from flarekit.engine import TileRow
from flarekit.engine._tiles import fitted_rows
from flarekit.preprocess import locate
from flarekit.segmentation.ending import (
    after_tiles_s,
    filling_s,
    restore_amount,
    restoring_s,
    slice_s,
)
from flarekit.segmentation.limits import Limits, Pace
from flarekit.segmentation.locator import LocatorMap
from flarekit.segmentation.memory import Memory
from flarekit.segmentation.plan import fits_whole, plan_case
from flarekit.segmentation.priorities import Priorities
from flarekit.segmentation.speeds import Speeds

NEAR = Locator(sha256="0" * 64, margin_mm=1.0)


class Engine:
    """Counts tiles as a window of 4 voxels does; a tile takes as long as it is told to."""

    depth_at_once = 4
    grid = Grid(spacing_mm_ZYX=(1.0, 1.0, 1.0), tile_ZYX=(4, 4, 4))

    def __init__(self, seconds, *, is_loaded=True):
        self.seconds, self.is_loaded = seconds, is_loaded
        self.timed = []

    def seconds_per_tile(self, tile_CZYX):
        self.timed.append(tile_CZYX)
        return self.seconds

    def count_tiles(self, shape_ZYX, step, _needed_ZYX=None):
        return int(np.prod([max(1, round(n / (4 * step))) for n in shape_ZYX]))

    def rows(self, shape_ZYX, step, needed_ZYX, *, fitted):
        if fitted:
            return fitted_rows(needed_ZYX, (4, 4, 4), step)
        starts = range(0, shape_ZYX[0] - 3, max(1, round(4 * step)))
        places = tuple((y, x) for y in starts for x in starts)
        return [TileRow(z=z, depth=4, places=places) for z in starts]


pytestmark = pytest.mark.usefixtures("still")


@pytest.fixture
def case(facts):
    voxels = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    geometry = Geometry(shape_ZYX=voxels.shape, affine=np.eye(4), header=None)
    volumes = [Volume(voxels_ZYX=voxels, geometry=geometry, path=Path("x"))]
    return locate(volumes, facts), facts


class Paced(Pace):
    """Knows nothing of the machine but what it is told."""

    @classmethod
    def of(cls, engine, known=None):
        speeds = Speeds(None, waiting=lambda: 1.0)
        if known is not None:
            speeds.learn("tile", known)
        for what in ("place", "settle", "finish", "fill", "rules", "write"):
            speeds.learn(what, 0.0)
        size = (1, 4, 4, 4)
        return cls(engine=engine, speeds=speeds, middle_tile=lambda _: np.ones(size, np.float32))


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
    deadline = None if seconds_left is None else time.monotonic() + seconds_left
    return plan_case(*case, Paced.of(engine, known), Limits(deadline=deadline)), engine


def test_without_a_limit_nothing_is_traded_and_nothing_timed(case):
    plan, engine = plan_within(case, None, 1.0)
    assert plan.effort.step == 0.5
    assert plan.effort.runs == 8
    assert plan.traded == ()
    assert not engine.timed


# 16^3 tiles at half steps: 4096 x 8 flips; at 0.75: 11^3; at 1: 8^3
@pytest.mark.long
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


@pytest.mark.long
def test_at_last_the_grid_gets_coarser_and_the_whole_scan_is_still_looked_at(case):
    plan, _ = plan_within(case, 0.5, 1e-3)
    assert plan.effort.step == 1.0
    assert plan.placement.shape_ZYX[0] < 32
    assert "coarser" in plan.traded[-1]
    back = plan.placement.restore(np.ones(plan.placement.shape_ZYX, np.uint8))
    assert back.shape == (32, 32, 32)


@pytest.mark.long
def test_what_follows_the_tiles_has_its_time_and_more_of_it_on_a_busy_machine(case):
    placement = plan_within(case, 10, 1e-6)[0].placement
    speeds = Speeds(None, waiting=lambda: 1.0)
    usual_s = after_tiles_s(placement, speeds)
    assert 0 < usual_s < 1
    assert after_tiles_s(placement, speeds, fills=True) > usual_s
    speeds.slowdown = 4.0
    assert after_tiles_s(placement, speeds) == pytest.approx(4 * usual_s)


@pytest.mark.long
def test_a_step_that_once_took_long_has_that_time(case):
    placement = plan_within(case, 10, 1e-6)[0].placement
    speeds = Speeds(None, waiting=lambda: 1.0)
    for seconds in (0.1, 0.1, 0.15):
        speeds.learn("rules", seconds, 32**3)
    assert after_tiles_s(placement, speeds) > 0.15


@pytest.mark.long
def test_the_more_slices_leave_the_window_the_longer_that_takes(case):
    placement = plan_within(case, 10, 1e-6)[0].placement
    speeds = Speeds(None, waiting=lambda: 1.0)
    few_s, all_s = restoring_s(placement, speeds, 4), restoring_s(placement, speeds)
    assert 0 < few_s < all_s
    assert restoring_s(placement, speeds, 10**6) == all_s
    speeds.learn("restore", 3.0, 32 * restore_amount(placement))
    assert restoring_s(placement, speeds) == pytest.approx(3.0)
    assert slice_s(placement, speeds) >= 3.0 / 32


def test_without_a_locator_a_machine_too_slow_for_everything_sees_the_middle_of_the_body(case):
    plan, _ = plan_within(case, 0.0, 1e-3)
    assert 1 <= len(plan.tiles) < plan.usual
    assert not plan.has_map
    middle = np.array(plan.tiles[0]) + 2
    assert np.abs(middle - np.array(plan.placement.shape_ZYX) / 2).max() <= 4


def test_without_a_locator_the_grid_stays_where_coarser_ones_show_no_more(facts):
    voxels = np.ones((4, 4, 4), np.float32)
    geometry = Geometry(shape_ZYX=voxels.shape, affine=np.eye(4), header=None)
    small = locate([Volume(voxels_ZYX=voxels, geometry=geometry, path=Path("x"))], facts)
    plan, engine = plan_within((small, facts), -1.0, 1e-3)
    assert plan.placement.shape_ZYX == (4, 4, 4)
    assert plan.traded == ("no mirroring", "tiles 1 of a tile apart instead of 0.5")
    assert not engine.timed  # there is no time for that either


@pytest.mark.long
@pytest.mark.parametrize(("count", "factor"), [(1, 1.6), (60, 1.6), (350, 1.25), (500, 1.0)])
def test_without_a_locator_few_tiles_show_more_on_a_coarser_grid(case, count, factor):
    plan, _ = plan_within(case, count * 1.05 + 0.7, 1.0, known=1.0)
    assert plan.placement.shape_ZYX[0] == round(32 / factor)


def test_a_window_that_begins_in_the_middle_keeps_its_grid(case):
    located, facts = case
    engine = Engine(1e-3)
    centred = facts.grid.model_copy(update={"order": "centre"})
    facts, engine.grid = facts.model_copy(update={"grid": centred}), centred
    pace = Paced.of(engine, known=1e-3)
    plan = plan_case(located, facts, pace, Limits(deadline=time.monotonic()))
    assert plan.tiles is None
    assert plan.placement.shape_ZYX == (32, 32, 32)


@pytest.mark.long
def test_a_tile_is_timed_only_where_nothing_is_known_and_it_is_one_of_the_scan(case):
    _, engine = plan_within(case, 60, 1e-3, known=1e-3)
    assert not engine.timed
    plan, engine = plan_within(case, 60, 1e-3)
    (tile,) = engine.timed
    assert tile.all()
    assert plan.traded == ()


@pytest.mark.slow
def test_every_tile_in_turn_adds_most_to_those_before_it(case):
    located, facts = case
    placement = located.placement(facts)
    worth = np.random.default_rng(1).random(placement.shape_ZYX) ** 8
    priorities = Priorities(worth, worth, placement, (4, 4, 4))
    grid = range(0, 13, 4)
    tiles = [(z, y, x) for z in grid for y in grid for x in grid] * 2  # each is run once
    order = priorities.ordered(tiles)
    assert sorted(order) == sorted(set(tiles))
    for count in range(6):
        gains = {tile: priorities.added([*order[:count], tile]) for tile in order[count:]}
        assert gains[order[count]] == max(gains.values())


@pytest.fixture
def found(case):
    """A locator's map with a label in one corner of the scan, half sure of it."""
    located, facts = case
    placement = located.placement(facts)
    logits = np.full((2, *placement.shape_ZYX), 9, np.float32)
    logits[1] = -9
    logits[1, 2:10, 2:10, 2:10] = 9.5
    return LocatorMap.of(logits, np.array([0, 1], np.uint8), placement, NEAR)


def test_with_a_locator_only_tiles_that_may_hold_a_label_are_run(case, found):
    pace = Paced.of(Engine(1e-3))
    plan = plan_case(*case, pace, Limits(), found)
    starts = np.array(plan.tiles)
    assert starts.min() >= 0
    assert (starts + 4).max() <= 14
    assert plan.traded == ()
    covered = np.zeros((32, 32, 32), bool)
    for z, y, x in plan.tiles:
        covered[z : z + 4, y : y + 4, x : x + 4] = True
    assert covered[1:11, 1:11, 1:11].all()


@pytest.mark.parametrize(
    ("least", "holds_faint", "holds_nothing"),
    [(0.05, False, False), (0.01, True, False), (0.0, True, True)],
)
def test_where_a_label_is_possible_is_decided_by_the_probability_the_facts_name(
    case, least, holds_faint, holds_nothing
):
    located, facts = case
    placement = located.placement(facts)
    logits = np.zeros((3, *placement.shape_ZYX), np.float32)
    logits[1:] = -200
    logits[1:, 20, 20, 20] = np.log(0.01)  # two labels that are 2 % together
    logits[1, 4, 4, 4] = 9
    how = NEAR.model_copy(update={"least_probability": least})
    found = LocatorMap.of(logits, np.array([0, 1, 1], np.uint8), placement, how)
    possible = found.possible_ZYX
    assert possible[5, 4, 4]
    assert possible[20, 20, 21] == holds_faint
    assert possible[30, 30, 30] == holds_nothing


def test_with_a_locator_the_grid_stays_and_the_best_tiles_come_first(case, found):
    located, facts = case
    pace = Paced.of(Engine(1e-3), known=0.1)
    deadline = time.monotonic() + 1.0
    plan = plan_case(located, facts, pace, Limits(deadline=deadline), found)
    assert plan.placement.shape_ZYX == (32, 32, 32)
    assert 0 < len(plan.tiles) < plan.usual
    z, y, x = plan.tiles[0]
    assert all(0 <= first <= 10 for first in (z, y, x))
    assert plan.effort.mirror_axes == ()
    assert plan.expected_s == pytest.approx(0.1)


def test_a_first_tile_that_stays_alone_is_quicker_and_counts_only_where_no_other_fits(case, found):
    def tiles_within(seconds, *, first_s):
        pace = Paced.of(Engine(1e-3), known=1.0)
        if first_s is not None:
            pace.speeds.learn("first", first_s)
        return plan_case(*case, pace, Limits(deadline=time.monotonic() + seconds), found).tiles

    assert tiles_within(0.9, first_s=None) == ()
    assert len(tiles_within(0.9, first_s=0.1)) > 0
    assert tiles_within(9.0, first_s=0.1) == tiles_within(9.0, first_s=None)


def test_a_network_that_is_still_to_be_loaded_has_the_less_time_for_its_tiles(case, found):
    def tiles_within(seconds, *, is_loaded, load_s=None):
        pace = Paced.of(Engine(1e-3, is_loaded=is_loaded), known=1.0)
        pace.speeds.learn("first", 0.1)
        if load_s is not None:
            pace.speeds.learn("load", load_s)
        return plan_case(*case, pace, Limits(deadline=time.monotonic() + seconds), found).tiles

    assert len(tiles_within(0.9, is_loaded=True)) > 0
    assert len(tiles_within(0.9, is_loaded=False)) > 0  # a quarter of a second where it is unknown
    assert tiles_within(0.9, is_loaded=False, load_s=0.8) == ()
    assert len(tiles_within(0.9, is_loaded=True, load_s=0.8)) > 0


@pytest.mark.parametrize("limited", [True, False])
def test_all_of_a_case_fits_where_there_is_no_limit_or_nobody_to_keep_it(case, limited):
    limits = Limits(deadline=time.monotonic() if limited else None)
    assert fits_whole(*case, None if limited else Paced.of(Engine(1.0)), limits)


def test_what_a_slice_takes_grows_with_the_network_s_grid(case, facts):
    located, _ = case
    coarse = facts.model_copy(update={"grid": Grid(spacing_mm_ZYX=(2, 2, 2), tile_ZYX=(4, 4, 4))})
    few, many = (
        restore_amount(placement) * placement.shape_ZYX[0]
        for placement in (located.placement(coarse), located.placement(facts))
    )
    assert few < many


def test_what_takes_no_time_has_none(case):
    located, facts = case
    assert filling_s(located.placement(facts), Paced.of(Engine(1.0)).speeds) == 0.0


def test_the_last_of_a_grid_is_counted_in_the_block_it_lies_in(facts):
    grid = Grid(spacing_mm_ZYX=(1.0, 1.0, 1.0), tile_ZYX=(32, 32, 32))
    geometry = Geometry(shape_ZYX=(33, 32, 32), affine=np.eye(4), header=None)
    voxels = np.random.default_rng(0).normal(size=(33, 32, 32)).astype(np.float32)
    volume = Volume(voxels_ZYX=voxels, geometry=geometry, path=Path("x"))
    spec = facts.model_copy(update={"grid": grid})
    placement = locate([volume], spec).placement(spec)
    logits = np.full((2, 33, 32, 32), 9, np.float32)
    logits[1] = -9
    logits[:, 30:32] *= -1
    found = LocatorMap.of(logits, np.array([0, 1], np.uint8), placement, NEAR)
    (share,) = Priorities.of_map(found, placement, (32, 32, 32)).shares([(0, 0, 0)])
    assert share > 0.9


def test_with_a_locator_and_no_time_at_all_no_tile_is_planned(case, found):
    pace = Paced.of(Engine(1e-3), known=0.1)
    plan = plan_case(*case, pace, Limits(deadline=time.monotonic()), found)
    assert plan.tiles == ()


@pytest.mark.long
def test_exact_looks_everywhere_as_long_as_there_is_time(case, found):
    pace = Paced.of(Engine(1e-3), known=1e-6)
    limits = Limits(deadline=time.monotonic() + 100)
    everywhere = plan_case(*case, pace, limits, found, exact=True)
    assert everywhere.usual > 1000
    assert len(everywhere.tiles) == everywhere.usual
    assert everywhere.effort.runs == 8
    hurried = plan_case(*case, Paced.of(Engine(1e-3), known=0.01), limits, found, exact=True)
    assert len(hurried.tiles) < 500
    assert hurried.effort.runs == 1


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


@pytest.mark.long
def test_nothing_is_resampled_to_make_a_plan(case, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("resampled")

    monkeypatch.setattr("flarekit.preprocess.resample.resample", forbidden)
    monkeypatch.setattr("flarekit.preprocess.route.resample", forbidden)
    plan, _ = plan_within(case, 0.5, 1e-3)
    assert "coarser" in plan.traded[-1]
