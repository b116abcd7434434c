"""Remove from a folder of installed packages what an image leaves behind to save space.

    python leave_behind.py LIST SITE_PACKAGES

A list has a pattern per line, relative to the folder; `#` begins a comment. Of the libraries behind
`symbols:` only the names go that debuggers read.
"""

import os
import shutil
import struct
import sys
from pathlib import Path

_SYMBOLS = "symbols:"
_LOAD = 1  # the kind of segment that is mapped into memory


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
    """Cut out of an ELF library what is not loaded: names for debuggers, and sections.

    Tools that edit libraries append what they add behind the names; that moves up, by whole pages.
    """
    content = bytearray(path.read_bytes())
    if content[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
        raise SystemExit(f"{path}: is not a library whose symbols could be dropped")
    struct.pack_into("<Q", content, 0x28, 0)  # no sections
    struct.pack_into("<HH", content, 0x3C, 0, 0)
    (table,) = struct.unpack_from("<Q", content, 0x20)
    size, count = struct.unpack_from("<HH", content, 0x36)
    headers = [table + size * index for index in range(count)]
    loaded = sorted(
        (*struct.unpack_from("<8xQ16xQ", content, each), each)
        for each in headers
        if struct.unpack_from("<I", content, each) == (_LOAD,)
    )
    moves, end, shift = list[tuple[int, int, int]](), 0, 0
    for start, length, header in loaded:
        page = max(4096, *struct.unpack_from("<48xQ", content, header))
        shift += max(0, start - end) // page * page
        moves.append((start, length, shift))
        end = max(end, start + length)
    for header in headers:
        (start,) = struct.unpack_from("<8xQ", content, header)
        by = max(shift for first, _, shift in moves if first <= start)
        struct.pack_into("<Q", content, header + 8, start - by)
    kept = bytearray(end - shift)
    for start, length, by in moves:
        kept[start - by : start - by + length] = content[start : start + length]
    path.write_bytes(kept)
    return len(content) - len(kept)


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
