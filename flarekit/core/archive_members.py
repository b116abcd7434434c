"""The members of an archive that somebody else made, one after another, within what is allowed."""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

from flarekit.core.errors import InputError

_CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 20  # bytes of a name or another header that stands before a member
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_BYTES_AROUND = 4096  # of a tar per member, at most: its header and what fills its last block
_MOST_LINK_BYTES = 4096
AGAIN = "download or pack the archive again"
_MAGIC = ((b"\x1f\x8b", "gz"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bz2"))


@dataclass(frozen=True, kw_only=True)
class UnpackLimits:
    """What an archive may hold.

    Attributes:
        most_bytes: of all files together, and of the archive itself once it is decompressed.
        most_files: files, folders and links.
    """

    most_bytes: int = 32 << 30
    most_files: int = 100_000


@dataclass(frozen=True, kw_only=True)
class Member:
    """One entry of an archive: a file, a folder, or a link to a file of the archive."""

    name: str
    size: int
    is_folder: bool = False
    is_file: bool = False
    link: str | None = None
    open: Callable[[], IO[bytes] | None]


@contextmanager
def members_of(path: Path, limits: UnpackLimits) -> Iterator[Iterator[Member]]:
    """Give the members of a tar or a zip, one after another.

    Args:
        path: the archive.
        limits: of what it may hold.
    """
    with path.open("rb") as raw:
        start = raw.read(8)
        raw.seek(0)
        if start[:2] == b"PK":
            with zipfile.ZipFile(raw) as archive:
                yield _zip_members(archive)
            return
        kind = next((name for magic, name in _MAGIC if start.startswith(magic)), "")
        with decompressed_as(raw, kind) as stream:
            bounded = _Bounded(path, stream, limits)
            source = cast(IO[bytes], bounded)  # of which tarfile only reads
            with tarfile.open(fileobj=source, mode="r|", bufsize=_CHUNK, tarinfo=_Header) as tar:
                yield _tar_members(tar)
            while bounded.read(_CHUNK):  # checksums stand at the end
                pass


@contextmanager
def decompressed_as(raw: IO[bytes], kind: str) -> Iterator[IO[bytes]]:
    """Give the plain content of a stream of a kind (gz, xz, bz2): itself where it is none."""
    if kind == "gz":
        from isal import igzip, igzip_lib

        try:
            with igzip.open(raw, "rb") as stream:
                yield stream
        except igzip_lib.IsalError as error:  # type: ignore[misc]
            raise zlib.error(str(error)) from error
    elif kind == "xz":
        import lzma

        with lzma.open(raw, "rb") as stream:
            yield stream
    elif kind == "bz2":
        import bz2

        with bz2.open(raw, "rb") as stream:
            yield stream
    else:
        yield raw


class _Bounded:
    """A stream that gives no more than was allowed, altogether and at once."""

    def __init__(self, path: Path, stream: IO[bytes], limits: UnpackLimits) -> None:
        self._path, self._stream = path, stream
        self._left = limits.most_bytes + limits.most_files * _BYTES_AROUND + _LONGEST_HEADER

    def read(self, size: int) -> bytes:
        """Return so many bytes, or fewer at the end."""
        piece = self._stream.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise InputError(f"{self._path}: unpacks to more than was allowed", fix=AGAIN)
        return piece


class _Header(tarfile.TarInfo):
    """A member's header; damaged ones end the unpacking, where tarfile would end the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse one header of 512 bytes."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):  # the archive's proper end
                raise
            raise tarfile.ReadError(f"a header is wrong: {error}") from error
        if header.size < 0 or (header.type in _HEADERS and header.size > _LONGEST_HEADER):
            raise tarfile.ReadError(f"a header states a size of {header.size} bytes")
        return header


def _tar_members(tar: tarfile.TarFile) -> Iterator[Member]:
    for entry in tar:
        link = entry.linkname if entry.islnk() else None
        if entry.issym():
            link = _beside(entry.name, entry.linkname)
        yield Member(
            name=entry.name,
            size=0 if link is not None else entry.size,
            is_folder=entry.isdir(),
            is_file=entry.isreg(),
            link=link,
            open=lambda entry=entry: tar.extractfile(entry),  # type: ignore[misc]
        )


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for entry in archive.infolist():
        mode = entry.external_attr >> 16
        link = None
        if stat.S_ISLNK(mode):
            with archive.open(entry) as stream:
                text = stream.read(_MOST_LINK_BYTES).decode("utf-8", "replace")
            link = _beside(entry.filename, text)
        yield Member(
            name=entry.filename,
            size=0 if link is not None else entry.file_size,
            is_folder=entry.is_dir(),
            is_file=stat.S_IFMT(mode) in (0, stat.S_IFREG),
            link=link,
            open=lambda entry=entry: archive.open(entry),  # type: ignore[misc]
        )


def _beside(name: str, link: str) -> str:
    """Return a symbolic link's target as the archive's own path; unchanged where it leads out."""
    if link.startswith("/"):
        return link
    parts = name.replace("\\", "/").split("/")[:-1]
    for part in link.replace("\\", "/").split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
