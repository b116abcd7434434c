"""Remove from a folder of installed packages what an image leaves behind to save space.

    python leave_behind.py LIST SITE_PACKAGES

A list has a pattern per line, relative to the folder; `#` begins a comment.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def read_list(path: Path) -> list[str]:
    """Return the patterns of a list."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def leave_behind(patterns: list[str], folder: Path) -> int:
    """Remove what matches and return its size in bytes.

    Raises:
        SystemExit: a pattern matches nothing, or what it matches lies elsewhere.
    """
    freed = 0
    for pattern in patterns:
        if pattern.startswith("/") or ".." in Path(pattern).parts:
            raise SystemExit(f"{pattern}: patterns are relative to {folder}")
        found = sorted(folder.glob(pattern))
        if not found:
            raise SystemExit(f"{pattern} matches nothing below {folder}: take it off the list")
        for path in found:
            freed += _remove(path)
    return freed


def _remove(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        size = sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())
        shutil.rmtree(path)
        return size
    if not os.path.lexists(path):
        return 0  # lay in a folder that is gone already
    size = path.lstat().st_size
    path.unlink()
    return size


if __name__ == "__main__":
    freed_mib = leave_behind(read_list(Path(sys.argv[1])), Path(sys.argv[2])) / 2**20
    sys.stdout.write(f"left behind: {freed_mib:.0f} MiB\n")
