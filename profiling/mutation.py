"""How many small changes of the code the tests notice.

    python profiling/mutation.py conventions profiler [--number 40] [--seed 0]
    python profiling/mutation.py conventions --survivors [--tests tests]   # once tests were added
    python profiling/mutation.py --quick --output FOLDER

Of all single changes of a package (`mutants.py`) a number is drawn by the seed. Each is put into a
copy of the checkout and judged by those tests that call the changed function, the quickest first,
until one fails; which test calls what is found out first, by a run of the unmarked tests in files
that name the package. Fewer tests may judge (`--tests`, such as those of the package alone, which
is much quicker): a change that they miss may then be counted as missed though another test notices
it, never the other way round. Changes outside of functions are judged by all tests that call
anything in the file. As child processes may run what no test calls, the tests of the package that
name the module follow, and where there are none of either, all tests of the package. A test that
also fails without the change has noticed nothing.

Survivors that change nothing anybody could see are listed with the reason in
mutation_equivalent.toml; the share of killed ones is among the others. The result goes to
mutation.json beside this file: counts, and every change that no test noticed. Packages that are not
named stay. Never part of CI.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from measured import HERE, parsed, parser_of, write
from mutants import Mutant, mutants_of
from mutation_runs import Calls, Runs

ROOT = HERE.parent
EQUIVALENT = HERE / "mutation_equivalent.toml"
MARKS = (
    "not long and not browser and not cluster and not docker and not slow and not data and not gpu"
)
DECLARES = "a keyword of a dataclass: it forbids what mypy forbids as well, and no code does"
Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class Change:
    """A mutant of a file, named relative to the checkout."""

    file: str
    mutant: Mutant

    @property
    def key(self) -> Key:
        """What names it in results; lines move too often."""
        return self.file, self.mutant.before, self.mutant.after, self.mutant.nth


def changes_of(package: str) -> list[Change]:
    """Return every change of a package, in the order of its files, or of one of them."""
    place = ROOT / "flarekit" / package
    return [
        Change(path.relative_to(ROOT).as_posix(), mutant)
        for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))
        for mutant in mutants_of(path.read_text(encoding="utf-8"))
    ]


def key_of(row: dict[str, Any]) -> Key:
    """Return the key of a change in a file of results or reasons."""
    return row["file"], row["before"], row["after"], row.get("nth", 0)


def reasons(path: Path = EQUIVALENT) -> dict[Key, str]:
    """Return why changes that were read change nothing."""
    listed = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    return {key_of(row): row["why"] for row in listed}


def tests_naming(package: str) -> list[str]:
    """Return the test files of a package, and others that name it."""
    name, tests = re.compile(rf"\bflarekit(\.| import .*\b){package}\b"), ROOT / "tests"
    return [
        path.relative_to(ROOT).as_posix()
        for path in sorted(tests.rglob("test_*.py"))
        if tests / package in path.parents or name.search(path.read_text(encoding="utf-8"))
        if tests / "profiling" not in path.parents
    ]


class Judge:
    """Says which changes the tests notice."""

    def __init__(self, runs: Runs, calls: Calls, most_s: float = math.inf) -> None:
        self._runs, self._calls, self._most_s = runs, calls, most_s

    def killers(self, changes: Sequence[Change]) -> dict[Key, str]:
        """Return the test that notices each change; none where no test does."""
        found = {}
        for number, change in enumerate(changes, 1):
            killer = self._killer(change, set())
            if killer is not None:
                found[change.key] = killer
            said = f"{change.file}:{change.mutant.line} {change.mutant.before} -> "
            said += f"{change.mutant.after}: {killer or 'SURVIVED'}"
            print(f"{number}/{len(changes)} {said}", flush=True)
        shaky = set(self._failures({test for test in found.values() if "::" in test}))
        for change in changes:
            if found.get(change.key) in shaky:
                del found[change.key]
                killer = self._killer(change, shaky)
                print(f"{change.file}:{change.mutant.line} again: {killer or 'SURVIVED'}")
                if killer is not None:
                    found[change.key] = killer
        return found

    def _killer(self, change: Change, without: set[str]) -> str | None:
        tests = [test for test in self._tests(change) if test not in without]
        failed = self._runs.failures(tests, self._calls, {change.file: change.mutant.source})
        return failed[0] if failed else None

    def _failures(self, tests: Iterable[str]) -> list[str]:
        """Return those tests that fail without any change."""
        return self._runs.failures(list(tests), self._calls, {}, all_of_them=True)

    def _tests(self, change: Change) -> list[str]:
        calls, file = self._calls, change.file
        line = change.mutant.function
        inside = {(file, line)} if line else calls.functions_of(file)
        tests = calls.tests_of(inside)
        tests += [test for test in self._naming(file) if test not in tests]
        tests = tests or calls.tests_under(f"tests/{file.split('/')[1]}")
        sums = accumulate(calls.seconds[test] for test in tests)
        return [test for test, sum_s in zip(tests, sums, strict=True) if sum_s <= self._most_s]

    def _naming(self, file: str) -> list[str]:
        """Return the tests in files that name a module: they may run it in a child process."""
        place = Path(file)
        name = re.compile(rf"\b{place.parent.name if place.stem == '__init__' else place.stem}\b")
        own = self._calls.tests_under(f"tests/{file.split('/')[1]}")
        texts = {test.split("::")[0]: "" for test in own}
        texts = {path: self._runs.text_of(path) for path in texts}
        return [test for test in own if name.search(texts[test.split("::")[0]])]


def summary(
    rows: Sequence[dict[str, Any]], killed_before: int = 0, **facts: object
) -> dict[str, Any]:
    """Return the figures of a package, and every change that was not noticed."""
    unnoticed = [row for row in rows if "killed_by" not in row]
    killed = killed_before + len(rows) - len(unnoticed)
    equivalent = sum("equivalent" in row for row in unnoticed)
    counted = killed + len(unnoticed) - equivalent
    return {
        **facts,
        "sampled": killed + len(unnoticed),
        "killed": killed,
        "equivalent": equivalent,
        "survived": counted - killed,
        "killed_of_those_that_matter": round(killed / counted, 3) if counted else None,
        "unnoticed": unnoticed,
    }


def judged(
    package: str, before: dict[str, Any] | None, arguments: argparse.Namespace, judge: Judge
) -> dict[str, Any]:
    """Judge a package's sample; of one that was judged before, what survived."""
    changes = changes_of(package)
    seed, killed, rows = arguments.seed, 0, []
    chosen = random.Random(seed).sample(changes, min(arguments.number, len(changes)))
    if before is not None:
        seed, killed = before["seed"], before["killed"]
        survivors = {key_of(row) for row in before["unnoticed"]}
        chosen = [change for change in changes if change.key in survivors]
    killers, why = judge.killers(chosen), reasons()
    for change in chosen:
        file, was, becomes, nth = change.key
        row = {"file": file, "line": change.mutant.line, "before": was, "after": becomes}
        row |= {"nth": nth} if nth else {}
        if change.key in killers:
            row["killed_by"] = killers[change.key]
        elif change.key in why or change.mutant.declares:
            row["equivalent"] = why.get(change.key, DECLARES)
        rows.append(row)
    return summary(rows, killed, seed=seed, of=len(changes))


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("packages", nargs="*", help="folders of flarekit/, or files in them")
    parser.add_argument("--number", type=int, default=40, help="changes drawn in each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", nargs="*", help="files and folders that judge, instead")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="of tests that may judge one change"
    )
    parser.add_argument("--marks", default=MARKS, help="marks of tests that judge, as pytest's -m")
    parser.add_argument("--survivors", action="store_true", help="judge what survived once more")
    arguments = parsed(parser, line)
    if arguments.quick:
        arguments.packages, arguments.number = ["core/boxes.py"], 3
        arguments.tests = ["tests/core/test_boxes.py"]
    path = arguments.output / "mutation.json"
    packages = json.loads(path.read_text())["packages"] if path.exists() else {}
    for package in arguments.packages:
        with tempfile.TemporaryDirectory(prefix="mutation_") as place:
            runs = Runs.in_copy(ROOT, Path(place), arguments.marks)
            judge = Judge(
                runs,
                runs.calls(arguments.tests or tests_naming(package.split("/")[0])),
                arguments.seconds,
            )
            before = packages.get(package) if arguments.survivors else None
            packages[package] = judged(package, before, arguments, judge)
        command = f"python profiling/mutation.py {' '.join(packages)}"
        write(path, {"command": command, "packages": packages})


if __name__ == "__main__":
    main()
