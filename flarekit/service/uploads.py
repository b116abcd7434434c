"""A multipart request, streamed to disk; no name that it brings becomes a path."""

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from flarekit.service.problems import Problem

_PIECE = 1 << 20  # bytes that are handed to a thread at a time
_LONGEST_FIELD = 1 << 16
_MOST_FIELDS = 64
_SLOWEST = 16 << 10  # bytes per second, as a mean, once a request has taken a minute
_GRACE_S = 60.0
_SUFFIXES = (".nii.gz", ".tar.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".zip", ".tar", ".tgz")
_ANY = ".dcm"  # files of a DICOM series often have no ending
_AGAIN = "send multipart/form-data, as curl -F does"


@dataclass(frozen=True, kw_only=True)
class UploadedFile:
    """A file that came with a request.

    Attributes:
        field: name of its form field.
        path: where it was put; its name is a number and an ending.
        called: the last part of what the sender calls it. Never a path, never shown.
    """

    field: str
    path: Path
    called: str

    @property
    def suffix(self) -> str:
        """Its ending, one of those that are known."""
        return suffix_of(self.called)


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """What a request may bring, in bytes, files and seconds without a byte."""

    most_bytes: int
    most_files: int
    stall_s: float


@dataclass(kw_only=True)
class Upload:
    """What a request brought."""

    files: list[UploadedFile] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


def suffix_of(name: str) -> str:
    """Return the ending that a file gets: that of its name where it is known, else DICOM's."""
    lowered = name.lower()
    return next((suffix for suffix in _SUFFIXES if lowered.endswith(suffix)), _ANY)


async def receive(
    stream: AsyncIterator[bytes], content_type: str, folder: Path, limits: UploadLimits
) -> Upload:
    """Write the files of a multipart request into a folder.

    Args:
        stream: the request's body.
        content_type: that header of the request.
        folder: which is there, and empty.
        limits: what may come.

    Raises:
        Problem: it is not a multipart request, brings too much, or comes too slowly.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 200:
        raise Problem(415, "the request is not multipart/form-data", fix=_AGAIN)
    writer = _Writer(boundary, folder, limits)
    began = time.monotonic()
    waiting: list[bytes] = []
    size = 0
    try:
        while True:
            with anyio.move_on_after(limits.stall_s) as patience:
                chunk = await anext(stream, None)
            if patience.cancelled_caught:
                raise _too_slow(f"nothing came for {limits.stall_s:.0f} s")
            if chunk is None:
                break
            size += len(chunk)
            spent = time.monotonic() - began
            if spent > _GRACE_S and size / spent < _SLOWEST:
                raise _too_slow(f"{size} bytes came in {spent:.0f} s")
            waiting.append(chunk)
            if sum(map(len, waiting)) >= _PIECE:
                await anyio.to_thread.run_sync(writer.feed, b"".join(waiting))
                waiting = []
        await anyio.to_thread.run_sync(writer.feed, b"".join(waiting))
        return writer.finished()
    finally:
        writer.close()


def _too_slow(what: str) -> Problem:
    return Problem(
        408,
        f"the upload comes too slowly: {what}",
        fix="send it again over a faster connection",
        headers={"Connection": "close"},
    )


class _Writer:
    """Takes a body apart and writes its files, by the calls of a parser that keeps nothing."""

    def __init__(self, boundary: bytes, folder: Path, limits: UploadLimits) -> None:
        self._folder, self._limits = folder, limits
        self._upload = Upload()
        self._size = 0
        self._complete = False
        self._stream: BinaryIO | None = None
        self._field, self._text = "", bytearray()
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": lambda data, a, b: self._header.extend(data[a:b]),
                "on_header_value": lambda data, a, b: self._value.extend(data[a:b]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin,
                "on_part_data": self._take,
                "on_part_end": self._end,
                "on_end": self._end_all,
            },
        )

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._size += len(data)
        if self._size > self._limits.most_bytes:
            raise too_large(self._limits.most_bytes)
        try:
            if data:
                self._parser.write(data)
        except FormParserError as error:
            raise Problem(400, "the multipart body is damaged", fix=_AGAIN) from error
        except OSError as error:
            raise no_space() from error

    def finished(self) -> Upload:
        """Return what came, or say that its end is missing."""
        if not self._complete:
            raise Problem(400, "the multipart body ends early", fix="send it again")
        return self._upload

    def close(self) -> None:
        """Close the file that is being written, if any; on a full disk it stays short."""
        if self._stream is not None:
            with suppress(OSError):  # what could not be written before cannot be now
                self._stream.close()

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _begin(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")[:100]
        if b"filename" not in options:
            if len(self._upload.fields) >= _MOST_FIELDS:
                raise Problem(413, f"more than {_MOST_FIELDS} fields", fix="send fewer")
            return
        count = len(self._upload.files) + 1
        if count > self._limits.most_files:
            most = self._limits.most_files
            raise Problem(413, f"more than {most} files", fix="send one series, or a zip of it")
        called = options[b"filename"].decode("utf-8", "replace").replace("\\", "/")
        called = called.rpartition("/")[2]
        path = self._folder / f"{count:06d}{suffix_of(called)}"
        self._stream = path.open("wb")
        self._upload.files.append(UploadedFile(field=self._field, path=path, called=called))

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._stream is not None:
            self._stream.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > _LONGEST_FIELD:
            raise Problem(413, "a form field is too long", fix="send files as files")

    def _end(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            return
        self._upload.fields[self._field] = self._text.decode("utf-8", "replace")
        self._text.clear()

    def _end_all(self) -> None:
        self._complete = True


def too_large(most_bytes: int) -> Problem:
    """Return the answer to an upload that is larger than is taken."""
    return Problem(
        413,
        f"the upload is larger than {most_bytes / 2**30:.3g} GiB",
        fix="crop the scan, or start the service with a larger --max-upload-gb",
        headers={"Connection": "close"},
    )


def no_space() -> Problem:
    """Return the answer to an upload that the disk has no room for."""
    return Problem(
        507, "the service has no space for the upload", fix="free some where its --data lies"
    )
