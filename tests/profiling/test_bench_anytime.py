from __future__ import annotations

import json
import time
from contextlib import nullcontext

import bench_anytime
import bench_deadlines
import psutil
import pytest

from flarekit.cli.main import app
from flarekit.core.errors import UsageError


@pytest.fixture
def _in_this_process(monkeypatch):
    """Processes would spend their time on loading torch."""

    def run(command):
        began = time.monotonic()
        assert app(list(map(str, command[3:])), standalone_mode=False) in (0, None)
        return {"wall_s": time.monotonic() - began, "cpu_s": 0.0, "peak_rss_mib": 0.0}

    monkeypatch.setattr(bench_anytime, "run", run)


@pytest.mark.long
@pytest.mark.usefixtures("_in_this_process")
def test_a_quick_run_measures_both_ends_of_the_time(located, make_dataset, tmp_path):
    options = ["--dataset", str(make_dataset()), "--quick", "--output", str(tmp_path)]
    path = bench_anytime.main([str(located.folder), *options])
    result = json.loads(path.read_text())
    (scan,) = result["idle"]["scans"]
    assert scan["least"]["tiles"] == 0
    assert scan["least"]["traded"]
    assert scan["full"]["tiles"] > 0
    assert scan["full"]["traded"] == []
    assert [row["s"] for row in scan["budgets"]] == [1.0, 0.0]
    assert scan["without_locator"]["curve"] == []
    assert {row["s"] for row in result["idle"]["summary"]} == {1.0, 0.0}
    assert all(row["kept"].endswith(" of 1") for row in result["idle"]["summary"])


@pytest.mark.long
@pytest.mark.usefixtures("_in_this_process")
def test_a_loaded_run_has_a_result_of_its_own(located, make_dataset, tmp_path, monkeypatch):
    loops = []
    monkeypatch.setattr(bench_anytime, "busy", lambda count: loops.append(count) or nullcontext())
    options = ["--dataset", str(make_dataset()), "--quick", "--loaded", "--output", str(tmp_path)]
    path = bench_anytime.main([str(located.folder), *options])
    assert loops == [2]
    assert path.stem.endswith("_loaded")
    assert "idle" not in json.loads(path.read_text())


def test_without_scans_there_is_nothing_to_measure(located_toy, tmp_path):
    arguments = bench_anytime.parse_arguments([str(located_toy.folder)])
    with pytest.raises(UsageError, match="no scans"):
        bench_anytime.trials(arguments, located_toy, tmp_path)


def test_other_processes_are_busy_as_long_as_they_should_be():
    others = set(psutil.Process().children())
    with bench_anytime.busy(1):
        (busy,) = set(psutil.Process().children()) - others
    assert not busy.is_running()


@pytest.mark.long
@pytest.mark.usefixtures("_in_this_process")
def test_many_runs_are_counted_by_whether_they_kept_their_budgets(located, make_dataset, tmp_path):
    options = ["--dataset", str(make_dataset()), "--quick", "--busy", "0"]
    options += ["--output", str(tmp_path)]
    result = json.loads(bench_deadlines.main([str(located.folder), *options]).read_text())
    assert result["runs"] == 3
    assert result["kept"] == sum(late <= 0.2 for late in result["late"]) + 3 - len(result["late"])
    ((least_s, full_s),) = result["ends_s"]
    assert least_s <= full_s


def test_what_is_kept_is_what_ended_in_time_and_the_tolerance():
    runs = [
        {
            "budget_s": 2.0,
            "taken_s": taken,
            "late_s": round(taken - 2.0, 2),
            "traded": told,
            "load": 1.0,
        }
        for taken, told in ((1.5, ["a"]), (2.2, []), (2.5, ["b"]))
    ]
    found = bench_deadlines.summary(runs)
    assert (found["runs"], found["kept"], found["latest_s"]) == (3, 2, 0.5)
    assert found["used"] == 1.0
