"""Volumes stacked along Z in one .mha file, read and written one at a time."""

import struct
import threading
import weakref
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.files import make_folder, write_atomically
from flarekit.core.metaheader import MetaHeader, mask_header
from flarekit.core.metaimage import SliceReader
from flarekit.core.volume import Geometry

_ADLER = 65521  # RFC 1950, section 8.2
_ZLIB_START = b"\x78\x9c"
_ZLIB_END = b"\x03\x00"  # an empty last block


class StackReader:
    """The volumes of a file; threads may share it. The file opens with the first of them."""

    def __init__(self, path: Path, header: MetaHeader, *, depth: int) -> None:
        """Take the path of the stack; nothing is read yet.

        Args:
            path: of the file.
            header: its header.
            depth: slices per volume.
        """
        self._path, self._header, self._depth = path, header, depth
        self._slices: SliceReader | None = None
        self._lock = threading.Lock()

    def read(self, index: int) -> NDArray[Any]:
        """Return a volume, (depth, Y, X) of the file's own dtype.

        Compressed files are cheapest to read from the first volume to the last.

        Raises:
            UnreadableVolumeError: the file cannot be opened, ends before it, or is damaged.
        """
        with self._lock:
            if self._slices is None:
                self._slices = SliceReader(self._path, self._header)
                weakref.finalize(self, self._slices.close)
            return self._slices.read(index * self._depth, self._depth)


class MaskStack:
    """Masks that become one file once all are there; threads may share it.

    Each is compressed by itself, to some ten kilobytes, as a part of a zlib stream that any reader
    takes for one: deflate blocks may be put one behind the other (RFC 1951, section 3.2).
    """

    def __init__(self, geometry: Geometry, *, count: int) -> None:
        """Take the number of masks that the stack will hold.

        Args:
            geometry: of the whole stack, from a .mha file.
            count: how many masks make the stack.
        """
        self._geometry = geometry
        self._parts: list[tuple[bytes, int, int] | None] = [None] * count
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many masks make the stack."""
        return len(self._parts)

    def has(self, index: int) -> bool:
        """Return whether the mask of that place is there."""
        return self._parts[index] is not None

    def put(self, index: int, mask_ZYX: NDArray[np.bool_], path: Path) -> Path:
        """Keep a mask, replacing what was there; with the last missing one write the file.

        Args:
            index: its place in the stack.
            mask_ZYX: bool.
            path: of the file, which is returned.

        Raises:
            OutputError: the file could not be written.
        """
        content = np.ascontiguousarray(mask_ZYX, np.uint8).tobytes()
        deflate = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
        part = deflate.compress(content) + deflate.flush(zlib.Z_FULL_FLUSH)
        with self._lock:
            self._parts[index] = part, zlib.adler32(content), len(content)
            parts = [each for each in self._parts if each is not None]
            if len(parts) == len(self._parts):
                self._write(path, parts)
        return path

    def _write(self, path: Path, parts: list[tuple[bytes, int, int]]) -> None:
        checksum = 1
        for _, part_checksum, length in parts:
            checksum = _joined(checksum, part_checksum, length)
        end = _ZLIB_END + struct.pack(">I", checksum)
        data = b"".join([_ZLIB_START, *(part for part, _, _ in parts), end])
        make_folder(path.parent)
        write_atomically(path, mask_header(self._geometry, len(data)) + data)


def _joined(first: int, second: int, second_length: int) -> int:
    """Return the Adler-32 of two strings from those of each."""
    low, high = first & 0xFFFF, first >> 16
    low_2, high_2 = second & 0xFFFF, second >> 16
    joined_high = (high + high_2 + second_length * (low - 1)) % _ADLER
    return joined_high << 16 | (low + low_2 - 1) % _ADLER
