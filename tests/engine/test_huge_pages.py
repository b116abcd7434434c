from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from flarekit.engine._huge_pages import ask_for_huge_pages

GIVEN = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def flags_at(address: int) -> list[str]:
    """Return what the kernel notes of the mapping that holds an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(each, 16) for each in first.split("-"))
            inside = start <= address < end
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    raise AssertionError(f"{address:x} is not mapped")


@pytest.mark.skipif(not GIVEN.is_file(), reason="this system has no transparent huge pages")
def test_large_memory_without_a_file_is_in_huge_pages_and_a_file_s_is_not(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(4 << 20))
    with (
        mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory,
        path.open("r+b") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as of_a_file,
    ):
        addresses = [
            np.frombuffer(each, np.uint8).ctypes.data + (1 << 20) for each in (memory, of_a_file)
        ]
        ask_for_huge_pages()
        assert "hg" in flags_at(addresses[0])
        assert "hg" not in flags_at(addresses[1])


def test_elsewhere_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(Path, "read_text", None)
    ask_for_huge_pages()


def test_a_sandbox_without_proc_is_no_fault(monkeypatch):
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError("/proc/self/maps")

    monkeypatch.setattr(Path, "read_text", missing)
    ask_for_huge_pages()
