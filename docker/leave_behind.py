"""Remove from a folder of installed packages what an image leaves behind to save space.

    python leave_behind.py LIST SITE_PACKAGES

A list has a pattern per line, relative to the folder; `#` begins a comment. Of the libraries behind
`symbols:` only the names go that debuggers read.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path

_SYMBOLS = "symbols:"


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
    for line in patterns:
        pattern = line.removeprefix(_SYMBOLS).strip()
        if pattern.startswith("/") or ".." in Path(pattern).parts:
            raise SystemExit(f"{pattern}: patterns are relative to {folder}")
        found = sorted(folder.glob(pattern))
        if not found:
            raise SystemExit(f"{pattern} matches nothing below {folder}: take it off the list")
        act = _drop_symbols if line.startswith(_SYMBOLS) else _remove
        freed += sum(act(path) for path in found)
    return freed


def _drop_symbols(path: Path) -> int:
    """Cut off what lies behind the segments of an ELF library: the loader reads nothing else."""
    with path.open("r+b") as file:
        header = bytearray(file.read(64))
        if header[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
            raise SystemExit(f"{path}: is no library whose symbols could be dropped")
        (table,) = struct.unpack_from("<Q", header, 0x20)
        size, count = struct.unpack_from("<HH", header, 0x36)
        file.seek(table)
        segments = [file.read(size) for _ in range(count)]
        ends = [sum(struct.unpack_from("<Q16x8xQ", each, 8)) for each in segments]
        struct.pack_into("<Q", header, 0x28, 0)  # no sections
        struct.pack_into("<HH", header, 0x3C, 0, 0)
        file.seek(0)
        file.write(header)
        before = path.stat().st_size
        file.truncate(max(*ends, table + size * count))
    return before - path.stat().st_size


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
