from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.core.grid import Grid
from flarekit.engine import Effort, EngineFacts, Schedule, TilePace
from flarekit.engine._slab import NumpySums, Run
from flarekit.engine._tiles import window_weights
from flarekit.engine._window import WindowEngine


class Thresholds(WindowEngine):
    """Class 1 where the image is positive; every tile may take a while."""

    def __init__(self, tile, step=0.5, seconds=0.0):
        super().__init__()
        self.grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=tile, step=step)
        self.facts = EngineFacts(engine="toy", device="cpu", device_name="toy", precision="fp32")
        self.seconds = seconds
        self.seen = []

    @contextmanager
    def run(self, depth, size_YX):
        slab = np.zeros((3, depth, *size_YX), np.float32)
        weights = window_weights(self.grid.tile_ZYX, "gaussian")
        yield Run(sums=NumpySums(slab_KZYX=slab, weights_ZYX=weights))

    def tiles(self, image_CZYX, row, places, _flips, _run):
        _, height, width = self.grid.tile_ZYX
        for y, x in places:
            time.sleep(self.seconds)
            self.seen.append((row.z, y, x))
            part = image_CZYX[0, row.z : row.z + row.depth, y : y + height, x : x + width]
            yield (y, x), np.stack([-part, part])


def classes_of(sweep):
    return np.concatenate([slab.classes() for slab in sweep])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_tiles_where_nothing_is_needed_are_left_out_and_the_rest_is_as_before(data):
    shape = data.draw(st.tuples(*[st.integers(4, 20)] * 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    needed = rng.random(shape) < 0.01
    engine = Thresholds((4, 6, 6))
    sweep = engine.sweep(image, needed_ZYX=needed)
    classes = classes_of(sweep)
    whole = engine.sweep(image)
    np.testing.assert_array_equal(classes[needed], classes_of(whole)[needed])
    assert sweep.done + sweep.empty == whole.done
    assert sweep.done == engine.count_tiles(shape, 0.5, needed)


def test_slabs_ascend_and_hold_every_slice_once():
    image = np.ones((1, 23, 9, 7), np.float32)
    slabs = [(slab.z, slab.count) for slab in Thresholds((6, 8, 8)).sweep(image)]
    assert [z for z, _ in slabs] == list(np.cumsum([0, *(count for _, count in slabs)])[:-1])
    assert sum(count for _, count in slabs) == 23


def test_voxels_that_no_tile_covers_are_background():
    image = np.ones((1, 8, 8, 8), np.float32)
    needed = np.zeros((8, 8, 8), bool)
    needed[0, 0, 0] = True
    sweep = Thresholds((4, 4, 4), step=1.0).sweep(image, needed_ZYX=needed)
    logits = np.concatenate([slab.logits().copy() for slab in sweep], axis=1)
    assert logits[1, :4, :4, :4].min() > 0
    assert not logits[:, 4:].any()
    assert (sweep.done, sweep.empty) == (1, 7)


@pytest.mark.usefixtures("still")
def test_the_time_of_a_tile_is_measured():
    engine = Thresholds((4, 4, 4), seconds=0.02)
    tile = np.ones((1, 4, 4, 4), np.float32)
    assert engine.seconds_per_tile(tile) == pytest.approx(0.02, abs=0.0001)
    assert len(engine.seen) == 1


def test_an_effort_counts_its_runs():
    assert Effort(step=0.5).runs == 1
    assert Effort(step=0.5, mirror_axes=(0, 1, 2)).runs == 8


def centred(tile, step=1.0):
    engine = Thresholds(tile, step=step)
    engine.grid = engine.grid.model_copy(update={"order": "centre"})
    return engine


def test_from_the_centre_a_tile_s_neighbours_are_run_only_where_it_found_something():
    image = np.full((1, 20, 20, 20), -1, np.float32)
    image[0, 9:11, 9:11, 9:18] = 1
    engine = centred((4, 4, 4))
    sweep = engine.sweep(image)
    np.testing.assert_array_equal(classes_of(sweep) == 1, image[0] > 0)
    # the middle one of 5 x 5 x 5, two more along X that found it, and all their neighbours
    assert sweep.done == 3 + 4 * 3 + 1
    assert sweep.done + sweep.empty == 125
    assert engine.seen[0] == (8, 8, 8)


def test_from_the_centre_nothing_found_is_one_tile():
    sweep = centred((4, 4, 4)).sweep(np.full((1, 20, 20, 20), -1, np.float32))
    assert not classes_of(sweep).any()
    assert sweep.done == 1


@settings(deadline=None, max_examples=20)
@given(st.tuples(*[st.integers(4, 17)] * 3), st.sampled_from([0.5, 0.75, 1.0]))
def test_from_the_centre_with_everything_found_is_the_whole_sweep(shape, step):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32) + 9
    one, other = centred((4, 6, 6), step).sweep(image), Thresholds((4, 6, 6), step).sweep(image)
    np.testing.assert_array_equal(classes_of(one), classes_of(other))
    assert one.done == other.done


def places_of(rows):
    return [(row.z, y, x) for row in rows for y, x in row.places]


@pytest.mark.long
@settings(deadline=None, max_examples=30)
@given(st.data())
def test_scheduled_tiles_without_a_limit_are_the_sweep_over_the_same_tiles(data):
    shape = data.draw(st.tuples(*[st.integers(4, 20)] * 3))
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    engine = Thresholds((4, 6, 6))
    tiles = places_of(engine.rows(image[0].shape, 0.5))
    schedule = Schedule(data.draw(st.permutations(tiles)))
    sweep = engine.sweep(image, schedule=schedule)
    np.testing.assert_array_equal(classes_of(sweep), classes_of(engine.sweep(image)))
    assert sweep.done == len(tiles)
    assert [tile for tile, _ in sweep.ran] == tiles
    assert (sweep.dropped, schedule.waiting) == (0, [])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_scheduled_tiles_decide_what_they_cover_and_nothing_else(data):
    shape = data.draw(st.tuples(*[st.integers(6, 24)] * 3))
    corner = st.tuples(*[st.integers(0, n - 6) for n in shape])
    tiles = data.draw(st.lists(corner, max_size=5, unique=True))
    sweep = Thresholds((6, 6, 6)).sweep(np.ones((1, *shape), np.float32), schedule=Schedule(tiles))
    slabs = [(slab.z, slab.classes()) for slab in sweep]
    assert [z for z, _ in slabs] == list(np.cumsum([0, *(len(c) for _, c in slabs)])[:-1])
    covered = np.zeros(shape, bool)
    for z, y, x in tiles:
        covered[z : z + 6, y : y + 6, x : x + 6] = True
    np.testing.assert_array_equal(np.concatenate([c for _, c in slabs]) == 1, covered)


@pytest.mark.usefixtures("still")
def test_of_the_scheduled_tiles_the_best_are_run_that_there_is_time_for():
    engine = Thresholds((4, 4, 4), seconds=0.05)
    best_first = [(8, 0, 0), (20, 0, 0), (0, 0, 0), (4, 0, 0), (12, 0, 0), (16, 0, 0)]
    image = np.ones((1, 24, 4, 4), np.float32)
    pace = TilePace(time.monotonic() + 0.13, expected_s=0.05)
    sweep = engine.sweep(image, schedule=Schedule(best_first), pace=pace)
    classes_of(sweep)
    assert [tile for tile, _ in sweep.ran] == [(8, 0, 0), (20, 0, 0)]
    assert sweep.dropped == 4


@pytest.mark.usefixtures("still")
def test_where_there_is_time_for_two_tiles_the_best_is_run_first():
    engine = Thresholds((4, 4, 4))
    image = np.ones((1, 24, 4, 4), np.float32)
    pace = TilePace(time.monotonic() + 50, expected_s=20.0, longest_s=20.0)
    best_first = [(8, 0, 0), (0, 0, 0), (20, 0, 0)]
    sweep = engine.sweep(image, schedule=Schedule(best_first), pace=pace)
    classes_of(sweep)
    assert sweep.ran[0][0] == (8, 0, 0)


@pytest.mark.usefixtures("still")
def test_tiles_that_turn_out_slow_cost_those_that_add_least():
    engine = Thresholds((4, 4, 4), seconds=0.1)
    best_first = [(20, 0, 0), (0, 0, 0), (8, 0, 0), (4, 0, 0), (12, 0, 0), (16, 0, 0)]
    image = np.ones((1, 24, 4, 4), np.float32)
    pace = TilePace(time.monotonic() + 0.38, expected_s=0.001)
    sweep = engine.sweep(image, schedule=Schedule(best_first), pace=pace)
    classes_of(sweep)
    ran = [tile for tile, _ in sweep.ran]
    assert (20, 0, 0) in ran
    assert 2 <= len(ran) <= 3


def test_a_schedule_beyond_the_deadline_runs_nothing():
    engine = Thresholds((4, 4, 4))
    sweep = engine.sweep(
        np.ones((1, 8, 4, 4), np.float32), schedule=Schedule([(0, 0, 0)]), pace=TilePace(0.0)
    )
    assert not classes_of(sweep).any()
    assert (sweep.done, sweep.dropped) == (0, 1)


def test_rows_are_what_a_sweep_runs():
    engine = Thresholds((4, 4, 4))
    image = np.ones((1, 9, 7, 5), np.float32)
    sweep = engine.sweep(image)
    classes_of(sweep)
    assert engine.seen == places_of(engine.rows((9, 7, 5), 0.5))


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(("spare_s", "done"), [(0.0, 1), (1.0, 3)])
def test_a_sweep_that_leaves_nothing_out_may_end_later(spare_s, done):
    engine = Thresholds((4, 4, 4), seconds=0.1)
    tiles = [(0, 0, 0), (4, 0, 0), (8, 0, 0)]
    pace = TilePace(time.monotonic() + 0.15, expected_s=0.1, spare_s=spare_s)
    image = np.ones((1, 12, 4, 4), np.float32)
    sweep = engine.sweep(image, schedule=Schedule(tiles), pace=pace)
    classes_of(sweep)
    assert sweep.done == done


def test_slices_that_no_tile_covers_are_told_and_hold_nothing():
    engine = Thresholds((4, 4, 4))
    image = np.ones((1, 30, 4, 4), np.float32)
    blank = np.zeros(30, bool)
    for slab in engine.sweep(image, schedule=Schedule([(9, 0, 0), (11, 0, 0), (20, 0, 0)])):
        blank[slab.z : slab.z + slab.count] = slab.is_blank
        if slab.is_blank:
            assert not slab.logits().any()
    assert not blank[9:15].any()
    assert not blank[20:24].any()
    assert blank[:8].all()
    assert blank[24:].all()


def test_without_a_schedule_no_slice_is_blank():
    sweep = Thresholds((4, 4, 4)).sweep(np.ones((1, 9, 4, 4), np.float32))
    blank = [slab.is_blank for slab in sweep]
    assert blank
    assert not any(blank)


def test_from_the_centre_one_tile_at_least_is_run():
    engine = centred((4, 4, 4))
    pace = TilePace(0.0, at_least=1)
    sweep = engine.sweep(np.ones((1, 20, 20, 20), np.float32), pace=pace)
    classes_of(sweep)
    assert sweep.done == 1
    assert sweep.dropped > 0
    assert pace.is_late
