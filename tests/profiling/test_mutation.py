"""The script that changes the code and sees whether a test notices."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import mutation
import pytest
from mutants import mutants_of
from mutation_code import changed_functions, put_into
from mutation_runs import CRASH, Calls

PROFILING = Path(__file__).parents[2] / "profiling"
FUNCTION = """
@cached
def volume(voxels, size=1.5):
    if not voxels:
        return -1
    return voxels * size
"""


def changes(source):
    return {(each.before, each.after) for each in mutants_of(source)}


@pytest.mark.parametrize(
    ("source", "before", "after"),
    [
        ("a = b + c * d", "c * d", "(c / d)"),
        ("a = b + c * d", "b + c * d", "(b - c * d)"),
        ("total += 1", "total += 1", "total -= 1"),
        ("a = b or c", "b or c", "(b and c)"),
        ("a = b < c < d", "b < c < d", "(b <= c < d)"),
        ("a = b not in c", "b not in c", "(b in c)"),
        ("a = -b", "-b", "(b)"),
        ("a = not b", "not b", "(b)"),
        ("a = 'é', True", "True", "False"),
        ("a = 2", "2", "3"),
        ("a = 0.5", "0.5", "1.0"),
        ("a = b if c else d", "c", "(not (c))"),
    ],
)
def test_one_thing_is_changed_at_a_time(source, before, after):
    (changed,) = [
        each for each in mutants_of(source) if (each.before, each.after) == (before, after)
    ]
    assert changed.source == source.replace(before, after, 1)


@pytest.mark.parametrize(
    "source",
    [
        "a: Literal[1, 2]",
        "def f(a: int | None) -> tuple[int, int] | None: ...",
        "Name = str | None",
        "a = f'{b:.2f} of {c + d}'",
        "a = cast('int | None', b)",
    ],
)
def test_types_and_texts_are_left_alone(source):
    assert not changes(source)


def test_changes_know_their_function_and_which_of_several_they_are():
    found = list(mutants_of(FUNCTION + FUNCTION + "a = 1 - 1"))
    assert {each.function for each in found if each.before == "voxels * size"} == {2, 8}
    assert [each.nth for each in found if each.before == "not voxels"][:4] == [0, 0, 1, 1]
    assert {each.function for each in found if each.before == "1 - 1"} == {0}


class FakeRuns:
    """Tests that fail whatever the code is, and tests that notice every change."""

    def __init__(self, shaky=(), noticing=(), text=""):
        self.shaky, self.noticing, self.text = shaky, noticing, text

    def text_of(self, _file):
        return self.text

    def failures(self, tests, calls, changed, *, all_of_them=False):  # noqa: ARG002
        failing = {*self.shaky, *(self.noticing if changed else ())}
        return [test for test in tests if test in failing]


CALLS = Calls(
    {
        "tests/core/test_a.py::one": {("flarekit/core/a.py", 2)},
        "tests/core/test_a.py::two": {("flarekit/core/a.py", 2)},
        "tests/core/test_b.py::three": {("flarekit/core/b.py", 1)},
    },
    {
        "tests/core/test_a.py::one": 2.0,
        "tests/core/test_a.py::two": 1.0,
        "tests/core/test_b.py::three": 0.5,
    },
)


def killers_of(runs, file="flarekit/core/a.py", source=FUNCTION):
    change = mutation.Change(file, next(mutants_of(source)))
    return list(mutation.Judge(runs, CALLS).killers([change]).values())


def test_a_change_is_noticed_by_the_quickest_test_that_calls_it():
    noticing = [*CALLS.seconds]
    assert killers_of(FakeRuns(noticing=noticing)) == ["tests/core/test_a.py::two"]


def test_a_test_that_fails_without_the_change_has_noticed_nothing():
    shaky = ["tests/core/test_a.py::two"]
    assert killers_of(FakeRuns(shaky=shaky)) == []
    noticing = ["tests/core/test_a.py::one"]
    assert killers_of(FakeRuns(shaky=shaky, noticing=noticing)) == noticing


def test_what_no_test_calls_is_judged_by_all_tests_of_its_package():
    noticing = ["tests/core/test_b.py::three"]
    assert killers_of(FakeRuns(noticing=noticing)) == []
    assert killers_of(FakeRuns(noticing=noticing), "flarekit/core/c.py") == noticing


def test_tests_that_name_a_module_may_run_it_in_a_child_process():
    noticing = ["tests/core/test_b.py::three"]
    assert killers_of(FakeRuns(noticing=noticing, text="from flarekit.core.a import b")) == noticing


def test_what_stands_outside_of_functions_is_judged_by_all_that_call_into_the_file():
    noticing = ["tests/core/test_a.py::one"]
    assert killers_of(FakeRuns(noticing=noticing), source="LIMIT = 5") == noticing


def test_the_share_leaves_equivalent_changes_out():
    rows = [{"killed_by": CRASH}, {"killed_by": "t"}, {"equivalent": "why"}, {}]
    said = mutation.summary(rows, seed=0)
    figures = (said["killed"], said["equivalent"], said["survived"])
    assert (figures, said["killed_of_those_that_matter"]) == ((2, 1, 1), 0.667)
    later = mutation.summary([{"killed_by": "t"}, {}], 2, seed=0)
    assert (later["sampled"], later["killed"], later["unnoticed"]) == (4, 3, [{}])


@pytest.mark.long
def test_every_reason_is_of_a_change_that_can_be_made():
    listed = mutation.reasons()
    assert listed
    for file, before, after, nth in listed:
        found = mutants_of((PROFILING.parent / file).read_text("utf-8"))
        assert (before, after, nth) in {(each.before, each.after, each.nth) for each in found}, file


MODULE = """
LIMIT = 3
NEXT = [n + 1 for n in range(LIMIT)]

class Square:
    corners = 4

    def areas(self, count=2):
        return [
            n * 5 for n in range(count)
        ]

    def sides(self):
        return self.corners
"""


@pytest.mark.parametrize("changed", ["LIMIT = 3", "n + 1", "corners = 4", "count=2"])
def test_a_change_outside_of_functions_needs_a_new_import(changed):
    after = MODULE.replace(changed, f"{changed[:-1]}9")
    assert changed_functions(MODULE, after, Path("square.py")) is None


def test_a_change_within_a_function_is_put_into_what_is_in_use(tmp_path, monkeypatch):
    place = tmp_path / "square_of_a_test.py"
    place.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    square = import_module(place.stem).Square()
    after = MODULE.replace("[\n            n * 5", "[n * 6")  # the lines below move
    pairs = changed_functions(MODULE, after, place)
    assert [old.co_qualname for old, _ in pairs] == ["Square.areas"]
    put_into(place.stem, pairs)
    assert (square.areas(), square.sides()) == ([0, 6], 4)


@pytest.mark.slow
def test_changes_of_the_dice_are_noticed(tmp_path):
    line = [sys.executable, PROFILING / "mutation.py", "--quick", "--output", tmp_path]
    subprocess.run([*map(str, line)], check=True)
    (package,) = json.loads((tmp_path / "mutation.json").read_text())["packages"].values()
    assert package["sampled"] == 3
    assert package["killed"] >= 2
