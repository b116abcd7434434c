from __future__ import annotations

import json

import pytest

from flarekit.segmentation.speeds import Speeds


def test_what_was_learnt_is_known_in_the_next_run(tmp_path):
    speeds = Speeds(tmp_path, "cpu", "network")
    assert speeds.seconds("tile") is None
    speeds.learn("tile", 0.5)
    speeds.learn("rules", 2.0, 1000)
    speeds.save()
    again = Speeds(tmp_path, "cpu", "network")
    assert again.seconds("tile") == 0.5
    assert again.seconds("rules", 500) == 1.0


def test_another_network_or_device_has_speeds_of_its_own(tmp_path):
    speeds = Speeds(tmp_path, "cpu", "network")
    speeds.learn("tile", 0.5)
    speeds.save()
    assert Speeds(tmp_path, "cuda:0", "network").seconds("tile") is None
    assert Speeds(tmp_path, "cpu", "other").seconds("tile") is None


def test_a_machine_that_is_busy_now_takes_longer_for_everything(tmp_path):
    speeds = Speeds(tmp_path, "cpu")
    speeds.learn("tile", 1.0)
    speeds.learn("locator", 0.1)
    speeds.save()
    busy = Speeds(tmp_path, "cpu")
    busy.compare("locator", 0.2)
    assert busy.slowdown == pytest.approx(2.0)
    assert busy.seconds("tile") == pytest.approx(2.0)


def test_one_odd_moment_is_no_measure_of_the_machine(tmp_path):
    speeds = Speeds(tmp_path, "cpu")
    speeds.learn("locator", 0.001)
    speeds.save()
    later = Speeds(tmp_path, "cpu")
    later.compare("locator", 5.0)
    assert later.slowdown == 3.0


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"k": 3}', '{"k": {"tile": "fast"}}', '{"k": {"tile": -1}}']
)
def test_a_file_that_holds_something_else_is_as_good_as_none(tmp_path, content):
    (tmp_path / "speeds.json").write_text(content)
    speeds = Speeds(tmp_path, "cpu")
    assert speeds.seconds("tile") is None
    speeds.learn("tile", 1.0)
    speeds.save()
    assert Speeds(tmp_path, "cpu").seconds("tile") == 1.0


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_no_time_that_cannot_be_is_learnt(seconds):
    speeds = Speeds(None)
    speeds.learn("tile", seconds)
    assert speeds.seconds("tile") is None


def test_a_home_that_cannot_be_written_is_no_matter(tmp_path):
    (tmp_path / "home").write_text("no folder")
    speeds = Speeds(tmp_path / "home" / "cache", "cpu")
    speeds.learn("tile", 1.0)
    speeds.save()
    assert speeds.seconds("tile") == 1.0


def test_the_file_stays_small(tmp_path):
    for number in range(230):
        speeds = Speeds(tmp_path, str(number))
        speeds.learn("tile", 1.0)
        speeds.save()
    assert len(json.loads((tmp_path / "speeds.json").read_text())) <= 201
    assert Speeds(tmp_path, "229").seconds("tile") == 1.0
