"""Whether tiles are begun only where they end in time, on a clock that the tests move."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.engine import TilePace


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def paced(budget_s, **how):
    clock = Clock()
    pace = TilePace(clock.now + budget_s, now=clock, **how)
    pace.begin()
    return pace, clock


def run(pace, clock, tile_s):
    """Run tiles of these times as long as there is time, and return how many."""
    done = 0
    while done < len(tile_s) and pace.affordable(len(tile_s) - done):
        clock.now += tile_s[done]
        pace.count()
        done += 1
    return done


def test_without_a_deadline_there_is_time_for_everything():
    assert TilePace().affordable(1000) == 1000


def test_a_tile_is_begun_only_where_it_ends_in_time():
    pace, clock = paced(1.0, expected_s=0.3)
    assert run(pace, clock, [0.3] * 9) == 3
    assert clock.now <= 101.0


def test_the_last_tile_gets_the_time_of_the_longest_of_the_latest():
    pace, clock = paced(2.0, expected_s=0.2)
    run(pace, clock, [0.2, 0.2, 0.2, 0.5, 0.2])  # 0.7 s are left, and a tile took 0.5 of late
    assert pace.affordable(1) == 1
    clock.now += 0.2
    assert pace.affordable(1) == 0  # 0.5 s are left: less than 1.1 times as much


def test_tiles_that_get_slower_count_and_those_of_long_ago_do_not():
    pace, clock = paced(100.0, expected_s=0.1)
    run(pace, clock, [0.1] * 50 + [1.0] * 8)
    left_s = pace.deadline - clock.now
    assert pace.affordable(1000) <= left_s / 1.0


def test_tiles_that_are_running_need_their_time_as_well():
    pace, _ = paced(1.0, expected_s=0.3)
    assert [pace.affordable(9, running) for running in range(4)] == [3, 2, 1, 0]


def test_what_follows_the_tiles_has_its_time():
    pace, clock = paced(1.0, expected_s=0.1, after_s=0.55)
    assert run(pace, clock, [0.1] * 9) == 4


def test_what_follows_takes_longer_on_a_machine_that_turns_out_slower():
    pace, clock = paced(4.0, expected_s=0.1, after_s=0.5)
    run(pace, clock, [0.1, 0.1, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])
    assert 104.0 - clock.now >= 2 * 0.5


@pytest.mark.parametrize("batch", [3, 8, 16])
def test_tiles_that_are_done_together_share_the_time_that_it_took(batch):
    pace, clock = paced(20.0, together=batch)
    for number in range(6):
        clock.now += 0.1 * batch + (1.0 if number == 0 else 0.0)
        for _ in range(batch):
            pace.count()
    assert pace.later_s == pytest.approx(0.1)
    assert pace.took_longer_s == pytest.approx(1.0)
    left_s = pace.deadline - clock.now
    assert left_s / 0.1 - 1.2 * batch <= pace.affordable(1000) <= left_s / 0.1


def test_one_slow_tile_is_no_measure_of_what_follows():
    pace, clock = paced(100.0, expected_s=0.01, after_s=1.0)
    run(pace, clock, [10.0])
    assert pace.affordable(100) > 0


def test_the_first_tile_takes_longer_and_that_is_known():
    pace, _ = paced(1.0, expected_s=0.3, starting_s=0.8)
    assert pace.affordable(9) == 0
    pace, _ = paced(1.2, expected_s=0.3, starting_s=0.8)
    assert pace.affordable(9) == 1


def test_before_any_tile_was_run_the_last_one_gets_the_longest_time_that_is_known():
    pace, _ = paced(1.0, expected_s=0.2, longest_s=0.7)
    assert pace.affordable(9) == 2
    pace, _ = paced(0.6, expected_s=0.2, longest_s=0.7)
    assert pace.affordable(9) == 0


def test_the_first_tile_alone_is_not_believed_too_much():
    pace, clock = paced(10.0, expected_s=0.3)
    run(pace, clock, [3.0])
    assert pace.affordable(100) >= int(6.9 / 0.6)


def test_a_tile_of_which_nothing_is_known_is_begun_only_with_time_to_spare():
    pace, _ = paced(1.0, unknown_s=1.5)
    assert pace.affordable(9) == 0
    pace, _ = paced(2.0, unknown_s=1.5)
    assert pace.affordable(9) == 9


def test_where_none_is_left_out_less_follows():
    assert paced(1.0, expected_s=0.3, after_s=0.2)[0].affordable(3) == 2
    assert paced(1.0, expected_s=0.3, after_s=0.2, spare_s=0.15)[0].affordable(3) == 3


def test_the_first_two_tiles_come_together_and_do_not_tell_of_a_slower_machine():
    pace, clock = paced(2.0, expected_s=0.15, longest_s=0.15, starting_s=0.1, after_s=0.3)
    for seconds in (0.2, 0.3):
        clock.now += seconds
        pace.count()
    assert pace.affordable(9) == 6  # of 0.2 s each, in 1.2 s
    assert pace.tiles == 2
    assert pace.later_s is None


def test_a_tile_that_stays_alone_takes_less_than_the_first_of_several():
    pace, clock = paced(0.4, expected_s=0.2, starting_s=0.3, alone_s=0.35)
    assert pace.affordable(9) == 1
    assert pace.affordable(9, running=1) == 0
    clock.now += 0.1
    assert pace.affordable(9) == 0


@pytest.mark.parametrize(("first_s", "tiles"), [(0.5, 5), (1.0, 2), (9.0, 2)])
def test_a_first_tile_that_takes_as_long_as_ever_does_not_tell_of_slower_ones(first_s, tiles):
    pace, clock = paced(first_s + 1.0, expected_s=0.2, starting_s=0.1, alone_s=0.5)
    clock.now += first_s
    pace.count()
    assert pace.affordable(9) == tiles


def test_surely_there_is_time_for_fewer_tiles_unless_there_is_for_all():
    pace, _ = paced(1.0, expected_s=0.2, longest_s=0.3)
    assert pace.affordable(9) == 4
    assert pace.affordable(9, surely=True) == 3
    assert pace.affordable(4, surely=True) == 4


def test_tiles_that_have_to_be_run_are_run_and_that_they_are_late_is_told():
    pace, clock = paced(-5.0, expected_s=0.3, at_least=1)
    assert pace.affordable(9) == 1
    assert pace.affordable(9, running=1) == 0
    clock.now += 1
    pace.count()
    assert pace.affordable(8) == 0
    assert pace.is_late


def test_a_tile_that_ends_in_time_is_not_late():
    pace, clock = paced(5.0, expected_s=0.3, at_least=1)
    run(pace, clock, [0.3] * 30)
    assert not pace.is_late


def test_there_are_no_more_tiles_than_wait():
    pace, _ = paced(-5.0, at_least=3)
    assert pace.affordable(0) == 0
    assert pace.affordable(2) == 2


def test_how_long_tiles_took_can_be_read_afterwards():
    pace, clock = paced(100.0)
    run(pace, clock, [1.5, 0.5, 0.25, 0.25, 0.25])
    clock.now += 2
    pace.passed(16)
    clock.now += 1
    pace.passed(0)
    assert pace.tiles == 5
    assert pace.later_s == pytest.approx(0.25)
    assert pace.took_longer_s == pytest.approx(1.5)  # beside two tiles of 0.25
    assert pace.tiles_s == pytest.approx(2.75)
    assert (pace.slices, pace.slices_s) == (16, pytest.approx(3.0))


def test_slices_that_leave_the_window_are_no_part_of_the_next_tile():
    pace, clock = paced(100.0, expected_s=0.3)
    for _ in range(4):
        clock.now += 0.3
        pace.count()
        clock.now += 5.0
        pace.passed(8)
    assert pace.later_s == pytest.approx(0.3)


def test_slices_that_have_still_to_leave_the_window_have_their_time():
    pace, _ = paced(1.0, expected_s=0.1, slice_s=0.01)
    assert pace.affordable(9, 0, lambda _: 0) == 9
    assert pace.affordable(9, 0, lambda _: 60) == 4
    assert pace.affordable(9, 0, lambda count: 10 * count) == 5


def test_slices_that_take_longer_than_expected_tell_of_those_to_come():
    pace, clock = paced(2.0, expected_s=0.1, slice_s=0.01)
    clock.now += 0.1
    pace.count()
    clock.now += 0.5
    pace.passed(10)
    assert pace.affordable(9, 0, lambda count: 10 * count) == 2


@pytest.mark.long
@settings(deadline=None, max_examples=200)
@given(
    tile_s=st.floats(0.05, 3.0),
    load=st.lists(st.floats(1.0, 1.5), min_size=60, max_size=60),
    budget_s=st.floats(0.1, 60.0),
    expected=st.floats(0.7, 1.0),
)
def test_tiles_that_vary_by_a_half_never_end_later_than_half_of_one(
    tile_s, load, budget_s, expected
):
    pace, clock = paced(budget_s, expected_s=tile_s / expected)
    done = run(pace, clock, [tile_s * each for each in load])
    assert done == 0 or clock.now <= pace.deadline + tile_s / 2
    if done < 60:
        assert pace.deadline - clock.now <= 2.5 * max(1 / expected, 1.5) * tile_s
