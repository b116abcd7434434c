"""The measures of the house: modules that can be read, and no room that holds most of it."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import flarekit

PACKAGE = Path(flarekit.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 349  # of a module
MOST_STATEMENTS = 60  # lines of a function, its docstring and its parameters left out
WEIGHTS_MIB, ALL_MIB = 65, 70  # of tracked files; what a link leads to counts once
LARGEST_SHARE = 0.12  # of all lines, in one room; a convention is a room of its own


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def room_of(path):
    parts = path.relative_to(PACKAGE).parts
    return "/".join(parts[:2] if parts[0] == "conventions" and len(parts) > 2 else parts[:1])


def test_no_module_is_longer_than_one_reads():
    assert len(MODULES) > 100
    assert {path.name: n for path in MODULES if (n := lines_of(path)) > MOST_LINES} == {}


def test_no_room_holds_more_than_its_share():
    rooms = Counter()
    for path in MODULES:
        rooms[room_of(path)] += lines_of(path)
    most = LARGEST_SHARE * rooms.total()
    assert {room: n for room, n in rooms.items() if n > most} == {}


@pytest.mark.long
def test_no_function_needs_scrolling():
    long = {}
    for path in MODULES:
        if lines_of(path) <= MOST_STATEMENTS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
                count = node.end_lineno - first.lineno + 1
                if count > MOST_STATEMENTS:
                    long[f"{path.name}: {node.name}"] = count
    assert long == {}


def test_a_clone_stays_small():
    root = PACKAGE.parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    files = [root / name for name in listed.stdout.split("\0") if name]
    sizes = {path: path.lstat().st_size for path in files if path.is_symlink() or path.is_file()}
    weights = sum(size for path, size in sizes.items() if root / "weights" in path.parents)
    assert weights / 2**20 <= WEIGHTS_MIB
    assert sum(sizes.values()) / 2**20 <= ALL_MIB
