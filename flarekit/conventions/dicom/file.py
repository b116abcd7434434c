"""The top level of a DICOM file (PS3.5, PS3.10): wanted elements and where the pixels lie.

A scan needs some forty elements of its file. They are picked out as bytes; all others are skipped
without being understood, sequences however deeply nested, so that nothing odd about them matters.
Files may lack the preamble and the group that says how they are encoded.
"""

import io
import re
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from flarekit.core.errors import UnreadableVolumeError

PIXELS = 0x7FE00010
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SYNTAX, _MEDIA_CLASS = 0x00020010, 0x00020002
_ITEM_END, _SEQUENCE_END, _ITEM = 0xFFFEE00D, 0xFFFEE0DD, 0xFFFEE000
_NO_LENGTH = 0xFFFFFFFF
_LONG_VRS = frozenset(re.findall(r"\w+", "OB OD OF OL OV OW SQ SV UC UN UR UT UV"))
_SHORT_VRS = re.findall(r"\w+", "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US")
_VRS = _LONG_VRS | frozenset(_SHORT_VRS)
_MOST_BYTES = 1 << 24  # of one wanted element; a longer one is cut off
_MOST_INFLATED = 1 << 30
_IDENTIFYING = frozenset((0x00080016, 0x00080018, 0x00080060, 0x0020000D, 0x0020000E))


@dataclass(frozen=True, kw_only=True)
class RawElement:
    """An element as it stands in a file.

    Attributes:
        vr: its value representation; empty where the file does not state it.
        content: its value.
        little: whether numbers have their low byte first.
        implicit: whether what is nested in it states no value representations.
    """

    vr: str
    content: bytes
    little: bool = True
    implicit: bool = False


@dataclass(frozen=True, kw_only=True)
class DicomFile:
    """What was picked out of a file.

    Attributes:
        path: of the file.
        elements: tag -> element, of those wanted that are there.
        syntax: the transfer syntax that the file states; empty where it states none.
        little: whether numbers and pixels have their low byte first.
        pixel_bytes: length of the pixels; None where there are none.
        encapsulated: whether they are compressed.
        pixels: the pixels themselves where they were asked for.
        cut_off: whether the file ends before its elements or pixels do.
    """

    path: Path
    elements: dict[int, RawElement]
    syntax: str = ""
    little: bool = True
    pixel_bytes: int | None = None
    encapsulated: bool = False
    pixels: bytes = field(default=b"", repr=False)
    cut_off: bool = False


def read_dicom_file(
    path: Path, wanted: Collection[int], *, pixels: bool = False
) -> DicomFile | None:
    """Pick elements out of a file; None where it is not DICOM.

    Args:
        path: of the file.
        wanted: tags of the elements.
        pixels: whether to read the pixels, too.

    Raises:
        UnreadableVolumeError: it cannot be opened, or has DICOM's mark and nothing that follows.
    """
    try:
        with path.open("rb") as stream:
            return _read(path, stream, frozenset(wanted), with_pixels=pixels)
    except OSError as error:
        raise UnreadableVolumeError(
            path, f"cannot be read: {error.strerror}", fix="check path and permissions"
        ) from error


def elements_within(
    content: bytes, raw: RawElement, wanted: Collection[int]
) -> dict[int, RawElement]:
    """Return the wanted elements of one item of a sequence; what follows damage is left out."""
    walker = _Walker(io.BytesIO(content), len(content), implicit=raw.implicit, little=raw.little)
    walker.run(frozenset(wanted))
    return walker.found


def items_of(raw: RawElement) -> list[bytes]:
    """Return the items of a sequence as bytes; what follows damage is left out."""
    walker = _Walker(
        io.BytesIO(raw.content), len(raw.content), implicit=raw.implicit, little=raw.little
    )
    items = []
    while (head := walker.head()) is not None and head.tag == _ITEM:
        start = walker.at
        if head.length == _NO_LENGTH:
            if not walker.skip_nested():
                break
            items.append(raw.content[start : walker.at - 8])
        else:
            items.append(raw.content[start : start + head.length])
            walker.at = start + head.length
    return items


def _read(
    path: Path, stream: BinaryIO, wanted: frozenset[int], *, with_pixels: bool
) -> DicomFile | None:
    size = stream.seek(0, io.SEEK_END)
    start, marked = _start(stream)
    if start is None:
        return None
    meta = _Walker(stream, size, implicit=False, little=True)
    meta.at = start
    meta.run(frozenset((*wanted, _SYNTAX, _MEDIA_CLASS)), group=2)
    syntax = _text(meta.found.get(_SYNTAX))
    body, at = stream, meta.at
    if syntax == _DEFLATED:
        body, at, size = _inflated(stream, meta.at)
    implicit, little = _encoding(body, at)
    walker = _Walker(body, size, implicit=implicit, little=little)
    walker.at = at
    walker.run(wanted | _IDENTIFYING)
    if not (walker.found.keys() & _IDENTIFYING) and _MEDIA_CLASS not in meta.found:
        if marked:
            raise UnreadableVolumeError(
                path, "is cut off within its header, or damaged", fix="export or copy it again"
            )
        return None
    return DicomFile(
        path=path,
        elements={**meta.found, **walker.found},
        syntax=syntax,
        little=little,
        pixel_bytes=walker.pixel_bytes,
        encapsulated=walker.encapsulated,
        pixels=walker.pixels() if with_pixels else b"",
        cut_off=walker.cut_off or meta.cut_off,
    )


def _start(stream: BinaryIO) -> tuple[int | None, bool]:
    """Return where the elements begin, and whether DICOM's mark stands before them."""
    stream.seek(0)
    head = stream.read(144)
    if head[128:132] == b"DICM":
        return 132, True
    return next((at for at in (0, 132) if _is_element(head[at : at + 8])), None), False


def _is_element(head: bytes) -> bool:
    """Return whether bytes are the beginning of the first element of a file."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group in (2, 8) and element <= 0x0100:
            stated = head[4:6].decode("latin-1") in _VRS
            return stated or struct.unpack(f"{order}L", head[4:])[0] < 1 << 16
    return False


def _encoding(stream: BinaryIO, at: int) -> tuple[bool, bool]:
    """Return whether VRs are implicit and numbers little-endian: the bytes tell, not the syntax."""
    stream.seek(at)
    head = stream.read(6)
    little = not (len(head) > 1 and head[0] == 0 and head[1] != 0)
    return head[4:6].decode("latin-1") not in _VRS, little


def _inflated(stream: BinaryIO, at: int) -> tuple[BinaryIO, int, int]:
    stream.seek(at)
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(stream.read(), _MOST_INFLATED)
    except zlib.error:
        content = b""
    return io.BytesIO(content), 0, len(content)


def _text(raw: RawElement | None) -> str:
    return "" if raw is None else raw.content.decode("latin-1").strip(" \0")


@dataclass(frozen=True)
class _Head:
    tag: int
    vr: str
    length: int
    start: int


class _Walker:
    """Goes from element to element of one level."""

    def __init__(self, stream: BinaryIO, size: int, *, implicit: bool, little: bool) -> None:
        self._stream, self._size = stream, size
        self._implicit, self._little = implicit, little
        order = "<" if little else ">"
        self._plain = struct.Struct(f"{order}HHL")
        self._short = struct.Struct(f"{order}H")
        self._long = struct.Struct(f"{order}L")
        self._pixel_start = 0
        self.at = 0
        self.found: dict[int, RawElement] = {}
        self.pixel_bytes: int | None = None
        self.encapsulated = False
        self.cut_off = False

    def run(self, wanted: frozenset[int], group: int | None = None) -> None:
        """Collect the wanted elements up to the pixels, or those of one group."""
        while (head := self.head()) is not None:
            if group is not None and head.tag >> 16 != group:
                self.at = head.start
                return
            if head.tag == PIXELS:
                self._note_pixels(head)
                return
            if head.tag in (_ITEM_END, _SEQUENCE_END):
                continue
            start = self.at
            if head.length == _NO_LENGTH:
                if not self.skip_nested(implicit=head.vr == "UN" or self._implicit):
                    self.cut_off = True
                    return
                end = self.at - 8
            else:
                end = self.at = start + head.length
            if end > self._size:
                self.cut_off = True
                return
            if head.tag in wanted and head.tag not in self.found:
                self.found[head.tag] = RawElement(
                    vr=head.vr,
                    content=self._bytes(start, min(end - start, _MOST_BYTES)),
                    little=self._little,
                    implicit=self._implicit or head.vr == "UN",
                )

    def head(self, *, implicit: bool | None = None) -> _Head | None:
        """Read what stands before a value and go to the value; None at the end."""
        start = self.at
        raw = self._bytes(start, 8)
        if len(raw) < 8:
            self.cut_off = self.cut_off or bool(raw)
            return None
        group, element, length = self._plain.unpack(raw)
        self.at, tag = start + 8, group << 16 | element
        if group == 0xFFFE or (self._implicit if implicit is None else implicit):
            return _Head(tag, "", length, start)
        vr = raw[4:6].decode("latin-1")
        short: int = self._short.unpack(raw[6:])[0]
        if vr not in _VRS:  # damaged, newer than this code, or left out within an explicit file
            stated = vr.isascii() and vr.isupper()
            left_out = not stated and self.at + length <= self._size
            return _Head(tag, "", length if left_out else short, start)
        if vr in _LONG_VRS and short == 0:
            long = self._bytes(self.at, 4)
            if len(long) < 4:
                self.cut_off = True
                return None
            self.at, short = start + 12, self._long.unpack(long)[0]
        return _Head(tag, vr, short, start)

    def skip_nested(self, *, implicit: bool | None = None) -> bool:
        """Go behind the end of something without a length; False where the file ends before."""
        encodings = [self._implicit if implicit is None else implicit]
        while encodings:
            head = self.head(implicit=encodings[-1])
            if head is None:
                return False
            if head.tag in (_ITEM_END, _SEQUENCE_END):
                encodings.pop()
            elif head.length == _NO_LENGTH:
                encodings.append(encodings[-1] or head.vr == "UN")
            else:
                self.at += head.length
                if self.at > self._size:
                    return False
        return True

    def pixels(self) -> bytes:
        """Return the pixels that `run` came to, the marks around compressed ones included."""
        return self._bytes(self._pixel_start, self.pixel_bytes or 0)

    def _note_pixels(self, head: _Head) -> None:
        self._pixel_start = self.at
        self.encapsulated = head.length == _NO_LENGTH
        if self.encapsulated:
            self.cut_off = not self.skip_nested()
            self.pixel_bytes = min(self.at, self._size) - self._pixel_start
        else:
            self.pixel_bytes = min(head.length, self._size - self._pixel_start)
            self.cut_off = self.pixel_bytes < head.length

    def _bytes(self, start: int, count: int) -> bytes:
        self._stream.seek(start)
        return self._stream.read(count)
