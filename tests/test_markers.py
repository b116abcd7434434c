"""What markers make of tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import asked_for, spread_over


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [(10, 3, {0, 4, 9}), (10, 1, {0}), (2, 3, {0, 1}), (0, 2, set()), (7, 2, {0, 6})],
)
def test_what_stays_quick_is_spread_over_the_parameters(length, count, expected):
    assert spread_over(length, count) == expected


@pytest.mark.quick(2)
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_others_are_long(request, number):
    is_long = request.node.get_closest_marker("long") is not None
    assert is_long == (number not in (1, 4))


@pytest.mark.long(2)
@pytest.mark.parametrize("number", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_of_long_ones_the_others_are_slow(request, number):
    is_slow = request.node.get_closest_marker("slow") is not None
    assert is_slow == (number in (2, 4))


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("gpu", {"gpu"}),
        ("(data or browser) and not docker and not slow", {"data", "browser"}),
        ("long and not slow", {"long", "quick"}),
        ("slow", {"slow", "long", "quick"}),
        ("not long and not slow", set()),
        ("not (data or gpu) and docker", set()),
        ("", set()),
    ],
)
def test_files_without_the_markers_that_are_asked_for_are_not_read(expression, names):
    assert asked_for(expression) == names


@pytest.mark.slow
@pytest.mark.parametrize("marker", ["browser", "cluster", "data", "docker", "gpu", "long", "slow"])
def test_no_test_is_left_out_with_a_file_that_is_not_read(marker):
    def found(expression):
        line = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", expression]
        folder = Path(__file__).parents[1]
        told = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True).stdout
        return sorted(each for each in told.splitlines() if each.startswith("tests/"))

    assert asked_for(f"{marker} and not (gpu and cluster)") == set()  # every file is read
    assert found(marker) == found(f"{marker} and not (gpu and cluster)") != []
