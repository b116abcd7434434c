"""A copy of the checkout in which changes are put to the test, one process per change.

What `mutation.py` runs tests with. A first process imports and collects the tests once; a change
within functions is put into a fork of it, in which tests run at once. A change outside of functions
is put into a fork of this process, which has imported torch and the other heavy packages alone, so
that flarekit and its tests are imported anew.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest
from mutation_code import changed_functions, put_into

IMPORT = "the import of tests/conftest.py"
CRASH = "the end of the interpreter, or of its time"
_BROKEN = 70  # what a fork ends with where it is this script that failed
_MOST_BYTES = 8 << 30  # of a fork, as a changed number may ask for any amount
_CPU_S = 10.0  # of a test, beside four times what it took unchanged
_WAITS_S = 600  # a test that does nothing
_HEAVY = ("torch", "nibabel", "SimpleITK", "scipy.ndimage", "pydicom", "typer")
_COPIED = ("flarekit", "tests")
_LEFT = {*_COPIED, ".git", ".venv", ".hypothesis"}
Function = tuple[str, int]  # a file relative to the checkout, and the line it begins at


@dataclass(frozen=True)
class Calls:
    """Which functions each test calls, and how long it takes."""

    functions: Mapping[str, Set[Function]]
    seconds: Mapping[str, float]

    def tests_of(self, functions: Set[Function]) -> list[str]:
        """Return the tests that call one of these functions, the quickest first."""
        return self._ordered(test for test, called in self.functions.items() if called & functions)

    def tests_under(self, folder: str) -> list[str]:
        """Return the tests in a folder, the quickest first."""
        return self._ordered(test for test in self.functions if test.startswith(f"{folder}/"))

    def functions_of(self, file: str) -> set[Function]:
        """Return the functions in a file that some test calls."""
        return {each for called in self.functions.values() for each in called if each[0] == file}

    def _ordered(self, tests: Iterator[str]) -> list[str]:
        return sorted(tests, key=lambda test: self.seconds[test])


class _Recorder:
    """Notes which functions of a package are called during each test that passes."""

    def __init__(self, root: Path) -> None:
        self._prefix, self._root = f"{root / 'flarekit'}/", root
        self._called: set[Function] = set()
        self._shared: dict[int, set[Function]] = {}  # by what wider fixtures did, once
        self.found: dict[str, Any] = {}

    def _call(self, frame: FrameType, _event: str, _argument: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self._prefix):
            self._called.add((code.co_filename, code.co_firstlineno))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        if fixturedef.scope == "function":
            yield
            return
        outer, self._called = self._called, set()
        yield
        self._shared[id(fixturedef)] = self._called
        self._called = outer | self._called

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        _forget_cached()
        self._called = set()
        sys.settrace(self._call)
        threading.settrace(self._call)
        yield
        sys.settrace(None)
        wider = item._fixtureinfo.name2fixturedefs.values()  # noqa: SLF001
        for fixture in (each for several in wider for each in several):
            self._called |= self._shared.get(id(fixture), set())
        names = [(Path(name).relative_to(self._root).as_posix(), n) for name, n in self._called]
        if item.nodeid in self.found:
            self.found[item.nodeid]["functions"] = sorted(names)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self.found.setdefault(report.nodeid, {"seconds": 0.0, "outcomes": []})
        row["seconds"] += report.duration
        row["outcomes"].append(report.outcome)


def _forget_cached() -> None:
    """Empty the caches of flarekit's functions: what is called should be called in each test."""
    for module in [each for name, each in sys.modules.items() if name.startswith("flarekit")]:
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear") and not isinstance(value, type):
                value.cache_clear()


class _Selection:
    """Runs given tests, in their order, and notes those that fail.

    A test that computes or waits for too long, as one may that never ends, ends the interpreter.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._places = {test: k for k, test in enumerate(seconds)}
        self._seconds = seconds
        self.failed: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._places]
        items[:] = sorted(chosen, key=lambda item: self._places[item.nodeid])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        signal.setitimer(signal.ITIMER_PROF, _CPU_S + 4 * self._seconds[item.nodeid])
        signal.alarm(_WAITS_S)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(f"the import of {report.nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


@dataclass(frozen=True)
class Runs:
    """Runs of tests in a copy of the checkout."""

    tree: Path
    marks: str
    _links: list[Connection] = field(default_factory=list)  # to what has collected tests

    @classmethod
    def in_copy(cls, root: Path, place: Path, marks: str) -> Runs:
        """Copy package and tests; what they only read is linked."""
        tree = place / "checkout"
        tree.mkdir()
        for name in _COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "profiling", "node_modules")
            shutil.copytree(root / name, tree / name, ignore=ignored, symlinks=True)
        for path in root.iterdir():
            if path.name not in _LEFT:
                (tree / path.name).symlink_to(path)
        for name in _HEAVY:
            importlib.import_module(name)
        return cls(tree, marks)

    @property
    def _said(self) -> Path:
        return self.tree.parent / "said.txt"

    def text_of(self, file: str) -> str:
        """Return the source of a file of the checkout."""
        return (self.tree / file).read_text(encoding="utf-8")

    def calls(self, tests: Sequence[str]) -> Calls:
        """Collect tests, run them once, and return what each that passes calls."""
        here, there = Pipe()
        sys.stdout.flush()
        if os.fork() == 0:
            here.close()
            _ended(lambda: self._collect(tests, there))
        there.close()
        self._links.append(here)
        found = json.loads(self._asked({}) or "{}")
        passed = {test: row for test, row in found.items() if set(row["outcomes"]) == {"passed"}}
        if not passed:
            said = self._said.read_text(errors="replace")[-2000:]
            raise SystemExit(f"of {list(tests)} no test passes, so that none can judge:\n{said}")
        return Calls(
            {
                test: {(file, line) for file, line in row["functions"]}
                for test, row in passed.items()
            },
            {test: row["seconds"] for test, row in passed.items()},
        )

    def failures(
        self,
        tests: Sequence[str],
        calls: Calls,
        changed: Mapping[str, str],
        *,
        all_of_them: bool = False,
    ) -> list[str]:
        """Return the first test that fails with changed files, or all; `CRASH` where none could."""
        seconds = {test: calls.seconds[test] for test in tests}
        before = {name: self.text_of(name) for name in changed}
        pairs = [
            changed_functions(before[name], after, self.tree / name)
            for name, after in changed.items()
        ]
        asked = {"seconds": seconds, "before": before, "after": changed, "all": all_of_them}
        kept = {self.tree / name: (self.tree / name).stat() for name in changed}
        try:
            for name, source in changed.items():
                (self.tree / name).write_text(source, encoding="utf-8")
            if None in pairs:
                answer = _in_fork(self.tree, lambda path: self._import_and_run(asked, path))
            else:
                answer = self._asked(asked)
        finally:
            for path, status in kept.items():
                path.write_text(before[path.relative_to(self.tree).as_posix()], encoding="utf-8")
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
                Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        return [CRASH] if answer is None else json.loads(answer)

    def _asked(self, asked: dict[str, Any]) -> str | None:
        try:
            self._links[-1].send(asked)
            answer: str | None = self._links[-1].recv()
        except (EOFError, OSError):
            raise SystemExit(self._said.read_text(errors="replace")) from None
        return answer

    def _collect(self, tests: Sequence[str], link: Connection) -> None:
        self._prepare()
        self._pytest(tests, _Collected(self.tree, link))

    def _import_and_run(self, asked: dict[str, Any], path: Path) -> None:
        self._prepare()
        selection = _Selection(asked["seconds"])
        options = [] if asked["all"] else ["-x"]
        files = sorted({test.split("::")[0] for test in asked["seconds"]})
        ended = self._pytest([*options, *files], selection)
        if not selection.failed and ended not in (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
        ):
            selection.failed.append(IMPORT)
        path.write_text(json.dumps(selection.failed), encoding="utf-8")

    def _pytest(self, line: Sequence[str], plugin: object) -> int:
        options = ["-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", self.marks]
        return pytest.main([*options, f"--basetemp={self.tree.parent / 'tmp'}", *line], [plugin])

    def _prepare(self) -> None:
        os.setsid()
        said = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, resource.RLIM_INFINITY))
        os.chdir(self.tree)
        os.environ["PYTHONPATH"] = str(self.tree)
        sys.path.insert(0, str(self.tree))
        for name in [name for name in sys.modules if name.split(".")[0] == "flarekit"]:
            del sys.modules[name]


class _Collected:
    """Tests that were collected once: what is asked of them is done in forks of this process."""

    def __init__(self, tree: Path, link: Connection) -> None:
        self._tree, self._link = tree, link

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed:
            return None  # a file cannot be imported, which pytest says
        with suppress(EOFError):
            while True:
                asked = self._link.recv()
                work = partial(self._select, session, asked) if asked else self._record(session)
                self._link.send(_in_fork(self._tree, work))
        return True

    def _record(self, session: pytest.Session) -> Callable[[Path], None]:
        def record(path: Path) -> None:
            os.setsid()
            recorder = _Recorder(self._tree)
            session.config.pluginmanager.register(recorder)
            for _ in _run(session.items):
                pass
            path.write_text(json.dumps(recorder.found), encoding="utf-8")

        return record

    def _select(self, session: pytest.Session, asked: dict[str, Any], path: Path) -> None:
        os.setsid()
        _forget_cached()
        for name, source in asked["after"].items():
            pairs = changed_functions(asked["before"][name], source, self._tree / name)
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            put_into(module, pairs or [])
        selection = _Selection(asked["seconds"])
        session.config.pluginmanager.register(selection)
        selection.pytest_collection_modifyitems(session.items)
        for _ in _run(session.items):
            if selection.failed and not asked["all"]:
                break
        path.write_text(json.dumps(selection.failed), encoding="utf-8")


def _run(items: Sequence[pytest.Item]) -> Iterator[pytest.Item]:
    for item, following in zip_longest(items, items[1:]):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        yield item


def _ended(work: Callable[[], None]) -> NoReturn:
    """Do something as the last thing of a fork."""
    try:
        work()
    except BaseException:  # noqa: BLE001 - whatever it is, the fork ends here
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(_BROKEN)
    os._exit(0)


def _in_fork(tree: Path, work: Callable[[Path], None]) -> str | None:
    """Do something in a fork that may crash; return what it wrote, None if it did not."""
    path = tree.parent / "answer.json"
    path.unlink(missing_ok=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _ended(lambda: work(path))
    _, status = os.waitpid(pid, 0)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what its tests left running
    if os.waitstatus_to_exitcode(status) == _BROKEN:
        raise SystemExit((tree.parent / "said.txt").read_text(errors="replace"))
    shutil.rmtree(tree / ".hypothesis", ignore_errors=True)
    return path.read_text(encoding="utf-8") if path.exists() else None
