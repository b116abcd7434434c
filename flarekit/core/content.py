"""The bytes of a file, decompressed where they are gzip, whatever the file's name says."""

import contextlib
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import UnreadableVolumeError

GZIP_MAGIC = b"\x1f\x8b"
AGAIN = "download or export the file again"
GZIP, ZLIB = 31, 15  # kinds of container, as zlib numbers them
_LEVEL = 2  # of isal's: masks are small at any
_PIECE_BYTES = 1 << 20  # what is decompressed at a time
_MOST_DEFLATED = 1032  # bytes that one byte of a deflate stream can stand for (zlib's manual)


def could_hold(path: Path, byte_count: int) -> bool:
    """Return whether a file is large enough for so many bytes, be it compressed to the utmost."""
    try:
        size = path.stat().st_size
    except OSError:
        return False
    return byte_count <= size * _MOST_DEFLATED


def check_some_finite(path: Path, odd: int, count: int) -> None:
    """Refuse a scan none of whose voxels is a finite number: air everywhere would hide that.

    Raises:
        UnreadableVolumeError: as many are odd as there are.
    """
    if odd == count:
        raise UnreadableVolumeError(
            path, f"none of its {count} voxels is a finite number", fix="export it again"
        )


def content_of(path: Path, *, at_most: int | None = None, start: int = 0) -> bytearray:
    """Return the decompressed bytes of a file; the compressed ones are never held whole.

    Args:
        path: of the file.
        at_most: bytes that are needed; of a compressed file that holds more the rest is left out.
        start: byte of the file where they begin.

    Raises:
        UnreadableVolumeError: it cannot be opened, is empty, or its gzip stream is damaged.
    """
    raw = _bytes_of(path, at_most=_PIECE_BYTES, start=start)
    if raw[:2] != GZIP_MAGIC:
        return bytearray(_bytes_of(path, start=start))
    from isal import igzip_lib

    content = bytearray()
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            raw = stream.read(_PIECE_BYTES)
            while raw:
                raw = _append_member(path, raw, stream, content, at_most)
    except igzip_lib.IsalError as error:  # type: ignore[misc]
        raise UnreadableVolumeError(
            path, f"its gzip stream is damaged ({error})", fix=AGAIN
        ) from error
    return content


def beginning_of(path: Path, count: int) -> bytes:
    """Return the first decompressed bytes, or as many as a damaged gzip stream still gives.

    Raises:
        UnreadableVolumeError: it cannot be opened, is empty, or does not give a single byte.
    """
    raw = _bytes_of(path, at_most=1 << 16)
    if raw[:2] != GZIP_MAGIC:
        return raw
    content = b""
    with contextlib.suppress(zlib.error):
        while raw[:2] == GZIP_MAGIC and len(content) < count:
            member = zlib.decompressobj(wbits=31)
            content += member.decompress(raw, count - len(content))
            raw = member.unused_data
    if not content:
        raise UnreadableVolumeError(
            path, "its gzip stream ends early, before the end of the header", fix=AGAIN
        )
    return content


def compressed(label_map_ZYX: NDArray[np.uint8], container: int, *, first: bytes = b"") -> bytes:
    """Return a label map compressed, slice by slice: no copy of the whole is made.

    Args:
        label_map_ZYX: uint8, of any strides.
        container: `GZIP` or `ZLIB`.
        first: what goes before its voxels.
    """
    from isal import isal_zlib

    deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, container)
    pieces = [deflate.compress(first)]
    pieces += [deflate.compress(np.ascontiguousarray(slice_YX)) for slice_YX in label_map_ZYX]
    return b"".join([*pieces, deflate.flush()])


def _append_member(
    path: Path, raw: bytes, stream: BinaryIO, content: bytearray, at_most: int | None
) -> bytes:
    """Decompress one gzip member and return what follows it, zero padding left out."""
    from isal import igzip_lib

    if raw[:2] != GZIP_MAGIC:
        raise UnreadableVolumeError(
            path, "its gzip stream is damaged (garbage at its end)", fix=AGAIN
        )
    member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    while not member.eof:
        if at_most is not None and len(content) >= at_most + _PIECE_BYTES:
            return b""
        if member.needs_input:
            raw = raw or stream.read(_PIECE_BYTES)
            if not raw:
                raise UnreadableVolumeError(path, "its gzip stream ends early", fix=AGAIN)
        content += member.decompress(raw, _PIECE_BYTES)
        raw = b""
    rest: bytes = member.unused_data.lstrip(b"\0")
    while not rest and (more := stream.read(_PIECE_BYTES)):
        rest = more.lstrip(b"\0")
    return rest


def _bytes_of(path: Path, *, at_most: int = -1, start: int = 0) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            content = stream.read(at_most)
    except OSError as error:
        raise UnreadableVolumeError(
            path, f"cannot be opened: {error.strerror}", fix="check path and permissions"
        ) from error
    if not content:
        raise UnreadableVolumeError(path, "is empty (0 bytes)", fix=AGAIN)
    return content
