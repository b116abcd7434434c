from __future__ import annotations

import json

import pytest

from flarekit.segmentation.speeds import Speeds, Waiting


def speeds_of(folder, *facts, slower=1.0):
    """Return speeds of a machine whose threads take so many times longer than they compute."""
    return Speeds(folder, *facts, waiting=lambda: slower)


def test_what_was_learnt_is_known_in_the_next_run(tmp_path):
    speeds = speeds_of(tmp_path, "cpu", "network")
    assert speeds.seconds("tile") is None
    speeds.learn("tile", 0.5)
    speeds.learn("rules", 2.0, 1000)
    speeds.save()
    again = speeds_of(tmp_path, "cpu", "network")
    assert again.seconds("tile") == 0.5
    assert again.seconds("rules", 500) == 1.0


def test_another_network_or_device_has_speeds_of_its_own(tmp_path):
    speeds = speeds_of(tmp_path, "cpu", "network")
    speeds.learn("tile", 0.5)
    speeds.save()
    assert speeds_of(tmp_path, "cuda:0", "network").seconds("tile") is None
    assert speeds_of(tmp_path, "cpu", "other").seconds("tile") is None


def learnt(folder, **times):
    speeds = speeds_of(folder, "cpu")
    for what, seconds in times.items():
        for each in seconds:
            speeds.learn(what, each)
    speeds.save()


def test_a_machine_that_is_busy_now_takes_longer_for_everything(tmp_path):
    learnt(tmp_path, tile=[1.0], locator=[0.1])
    busy = speeds_of(tmp_path, "cpu", slower=2.0)
    busy.compare("locator", 0.2)
    assert busy.slowdown == pytest.approx(2.0)
    assert busy.seconds("tile") == pytest.approx(2.0)


def test_threads_that_wait_for_a_processor_tell_it_before_anything_was_run(tmp_path):
    learnt(tmp_path, tile=[1.0])
    assert speeds_of(tmp_path, "cpu", slower=3.0).seconds("tile") == pytest.approx(3.0)


def test_both_measures_of_a_busy_machine_count(tmp_path):
    learnt(tmp_path, tile=[1.0], locator=[0.1])
    busy = speeds_of(tmp_path, "cpu", slower=4.5)
    busy.compare("locator", 0.2)
    assert busy.slowdown == pytest.approx(3.0)


def test_where_the_kernel_tells_nothing_of_waiting_the_other_measure_counts(tmp_path):
    learnt(tmp_path, tile=[1.0], locator=[0.1])
    busy = speeds_of(tmp_path, "cpu", slower=None)
    assert busy.slowdown == 1.0
    busy.compare("locator", 0.2)
    assert busy.slowdown == pytest.approx(2.0)


@pytest.mark.parametrize("seconds", [0.08, 0.1, 0.13])
def test_what_varies_from_run_to_run_is_no_slower_machine(tmp_path, seconds):
    learnt(tmp_path, tile=[1.0], locator=[0.1])
    speeds = speeds_of(tmp_path, "cpu")
    speeds.compare("locator", seconds)
    assert speeds.seconds("tile") == pytest.approx(1.0)
    speeds.learn("write", 0.5)
    assert speeds.seconds("write") == pytest.approx(0.5)


def compared(folder, seconds, runs):
    """Compare in so many runs of their own, and return how slow the last one was."""
    for _ in range(runs):
        speeds = speeds_of(folder, "cpu")
        speeds.compare("locator", seconds)
        speeds.save()
    return speeds.slowdown


def test_what_is_compared_by_as_a_busy_machine_had_it_is_learnt_anew_at_once(tmp_path):
    learnt(tmp_path, locator=[1.0])
    assert compared(tmp_path, 0.1, 1) < 0.5
    assert compared(tmp_path, 0.1, 12) == 1.0


def test_a_machine_that_stays_busy_is_told_from_a_slower_one_for_many_runs(tmp_path):
    learnt(tmp_path, locator=[0.1])
    assert compared(tmp_path, 0.3, 15) > 1.35
    assert compared(tmp_path, 0.3, 60) == 1.0
    assert compared(tmp_path, 0.1, 12) == 1.0


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0.0, -1.0])
def test_no_time_that_cannot_be_is_compared(tmp_path, seconds):
    learnt(tmp_path, locator=[0.1])
    speeds = speeds_of(tmp_path, "cpu")
    speeds.compare("locator", seconds)
    assert speeds.slowdown == 1.0


def test_what_is_learnt_on_a_busy_machine_is_remembered_as_of_an_idle_one(tmp_path):
    learnt(tmp_path, locator=[0.1])
    busy = speeds_of(tmp_path, "cpu", slower=4.0)
    busy.compare("locator", 0.4)
    busy.learn("write", 2.0)
    busy.save()
    assert speeds_of(tmp_path, "cpu").seconds("write") == pytest.approx(0.5)


def test_the_first_run_of_all_on_a_busy_machine_is_taken_for_one(tmp_path):
    speeds = speeds_of(tmp_path, "cpu", slower=2.0)
    speeds.compare("locator", 0.4)
    assert speeds.slowdown == pytest.approx(2.0)
    speeds.save()
    assert speeds_of(tmp_path, "cpu").seconds("locator") == pytest.approx(0.2)


def test_what_something_takes_at_most_is_the_longest_of_the_latest_times_and_more(tmp_path):
    learnt(tmp_path, write=[0.1, 0.1, 0.15, 0.1])
    speeds = speeds_of(tmp_path, "cpu")
    assert speeds.seconds("write") == pytest.approx(0.1)
    assert 0.15 < speeds.at_most("write") < 0.2
    for _ in range(9):
        speeds.learn("write", 0.1)
    assert speeds.at_most("write") < 0.15


def test_one_of_many_times_that_is_longer_than_the_others_is_an_odd_one(tmp_path):
    learnt(tmp_path, write=[0.1, 0.1, 0.18, 0.12, 0.1])
    assert 0.12 < speeds_of(tmp_path, "cpu").at_most("write") < 0.14
    learnt(tmp_path, write=[0.18])
    assert speeds_of(tmp_path, "cpu").at_most("write") > 0.18


def test_steps_do_not_all_take_their_longest_at_once(tmp_path):
    learnt(tmp_path, write=[0.1, 0.1, 0.5], rules=[0.1, 0.1, 0.5])
    speeds = speeds_of(tmp_path, "cpu")
    one, both = speeds.at_most("write"), speeds.all_at_most({"write": 1, "rules": 1})
    assert one + 0.1 < both < 2 * one
    assert speeds.all_at_most({"write": 1}) == pytest.approx(one)


def test_what_was_seen_once_may_take_much_longer(tmp_path):
    learnt(tmp_path, write=[0.1], rules=[0.1] * 5)
    speeds = speeds_of(tmp_path, "cpu")
    assert speeds.at_most("write") > speeds.at_most("rules")


def test_one_time_that_was_quite_out_of_order_does_not_rule_the_next_runs(tmp_path):
    learnt(tmp_path, write=[0.1, 0.1, 50.0, 0.1])
    assert speeds_of(tmp_path, "cpu").at_most("write") < 1


def test_what_was_never_run_takes_what_it_usually_does():
    assert speeds_of(None).at_most("write", 1e6) > 0
    assert speeds_of(None).at_most("tile") == 0


def test_one_odd_moment_is_no_measure_of_the_machine(tmp_path):
    learnt(tmp_path, locator=[0.001])
    later = speeds_of(tmp_path, "cpu", slower=2.0)
    later.compare("locator", 5.0)
    assert later.slowdown == 10.0


def test_how_long_threads_wait_is_told_by_what_they_did_since_the_last_time():
    seen = iter([(1_000_000_000, 0), (2_000_000_000, 3_000_000_000), (2_000_000_001, 9)])
    waiting = Waiting(lambda: next(seen))
    assert waiting() == pytest.approx(1.0)
    assert waiting() == pytest.approx(4.0)
    assert waiting() >= 1.0  # too little since then: of the whole process


def test_a_kernel_that_tells_nothing_of_waiting_is_no_measure():
    assert Waiting(lambda: (0, 0))() is None


def test_this_process_has_computed():
    sum(range(10**6))
    assert (Waiting()() or 0) >= 1.0


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"k": 3}', '{"k": {"tile": "fast"}}', '{"k": {"tile": [-1]}}']
    + ['{"k": {"tile": 1.0}}', '{"k": {"tile": []}}', '{"k": {"tile": ["fast"]}}'],
)
def test_a_file_that_holds_something_else_is_as_good_as_none(tmp_path, content):
    learnt(tmp_path, other=[1.0])
    (key,) = json.loads((tmp_path / "speeds.json").read_text())
    (tmp_path / "speeds.json").write_text(content.replace("k", key, 1))
    speeds = speeds_of(tmp_path, "cpu")
    assert speeds.seconds("tile") is None
    speeds.learn("tile", 1.0)
    speeds.save()
    assert speeds_of(tmp_path, "cpu").seconds("tile") == 1.0


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_no_time_that_cannot_be_is_learnt(seconds):
    speeds = speeds_of(None)
    speeds.learn("tile", seconds)
    assert speeds.seconds("tile") is None


def test_a_step_that_takes_no_time_at_all_is_remembered_too(tmp_path):
    learnt(tmp_path, fill=[0.0], tile=[1.0])
    assert speeds_of(tmp_path, "cpu").seconds("fill") == 0.0


def test_a_home_that_cannot_be_written_is_no_matter(tmp_path):
    (tmp_path / "home").write_text("no folder")
    speeds = speeds_of(tmp_path / "home" / "cache", "cpu")
    speeds.learn("tile", 1.0)
    speeds.save()
    assert speeds.seconds("tile") == 1.0


@pytest.mark.long
def test_the_file_stays_small(tmp_path):
    for number in range(230):
        speeds = speeds_of(tmp_path, str(number))
        speeds.learn("tile", 1.0)
        speeds.save()
    assert len(json.loads((tmp_path / "speeds.json").read_text())) <= 201
    assert speeds_of(tmp_path, "229").seconds("tile") == 1.0


def test_a_case_with_one_tile_takes_as_long_as_one_without_and_the_tile_at_most():
    speeds = speeds_of(None)
    speeds.learn("first", 2.0)
    assert speeds.with_one_tile_s() == 0  # how long one without takes is not known
    speeds.learn("without tiles", 0.5)
    assert speeds.with_one_tile_s() == pytest.approx(0.5 + speeds.at_most("first"))
    assert speeds.at_most("first") > 2.0
