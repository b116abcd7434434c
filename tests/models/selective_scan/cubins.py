"""What machine code for a GPU takes, read from its ELF file: no tool of NVIDIA's is needed."""

from __future__ import annotations

import struct

_SIZED = 4  # a kind of entry of .nv.info, which has so many bytes as it says
_REGISTERS, _STACK = 0x2F, 0x12  # attributes of .nv.info: of a function


def sections(cubin):
    """Yield name and content of every section of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + size * k) for k in range(count)]
    for name, kind, _, _, offset, length in headers:
        first = headers[names][4] + name
        content = b"" if kind == 8 else cubin[offset : offset + length]  # 8: takes no place
        yield cubin[first : cubin.index(b"\0", first)].decode(), content


def resources(cubin):
    """Return architecture, registers of a thread, and bytes of its stack: what spilled lies there.

    The file holds one kernel.
    """
    (flags,) = struct.unpack_from("<I", cubin, 48)
    (info,) = (content for name, content in sections(cubin) if name == ".nv.info")
    found, at = {}, 0
    while at < len(info):
        kind, attribute, size = struct.unpack_from("<BBH", info, at)
        if kind == _SIZED and attribute in (_REGISTERS, _STACK):
            found[attribute] = struct.unpack_from("<II", info, at + 4)[1]
        at += 4 + (size if kind == _SIZED else 0)
    return flags & 0xFF, found[_REGISTERS], found[_STACK]
