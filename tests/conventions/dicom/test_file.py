"""The top level of a DICOM file, picked out of whatever else stands in it."""

from __future__ import annotations

import struct

import pytest

from flarekit.conventions.dicom.elements import ElementError, read_elements
from flarekit.conventions.dicom.file import read_dicom_file
from flarekit.core.errors import UnreadableVolumeError

ITEM = b"\xfe\xff\x00\xe0"
ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
NO_LENGTH = b"\xff\xff\xff\xff"
ROWS, NAME = 0x00280010, 0x00100010


def element(tag, vr, content, long=False):
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if long:
        return head + b"\0\0" + struct.pack("<L", len(content)) + content
    return head + struct.pack("<H", len(content)) + content


def implicit(tag, content):
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(content)) + content


def open_sequence(tag, vr=b"SQ"):
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + b"\0\0" + NO_LENGTH


START = element(0x00080060, b"CS", b"CT")
END = element(ROWS, b"US", struct.pack("<H", 7))
PIXELS = element(0x7FE00010, b"OW", bytes(14), long=True)
ODD = {
    "nothing": b"",
    "a value representation that is newer": element(0x00091001, b"QQ", b"1234"),
    "a value representation that is damaged": element(0x00091001, b"l\x01", b"1234"),
    "no value representation in an explicit file": implicit(0x00091001, b"abcd"),
    "a long value representation written short": element(0x00091001, b"OB", b"1234"),
    "a sequence of stated length": element(
        0x00091001, b"SQ", ITEM + struct.pack("<L", 4) + b"abcd", long=True
    ),
    "a sequence without lengths": open_sequence(0x00091001)
    + ITEM
    + NO_LENGTH
    + element(0x00091002, b"LO", b"ab")
    + ITEM_END
    + SEQUENCE_END,
    "items of either kind": open_sequence(0x00091001)
    + ITEM
    + struct.pack("<L", 10)
    + element(0x00091002, b"LO", b"ab")
    + ITEM
    + NO_LENGTH
    + ITEM_END
    + SEQUENCE_END,
    "unknown content, implicit within an explicit file": open_sequence(0x00091001, b"UN")
    + ITEM
    + NO_LENGTH
    + implicit(0x00091002, b"abcdef")
    + ITEM_END
    + SEQUENCE_END,
    "a sequence in unknown content": open_sequence(0x00091001, b"UN")
    + ITEM
    + NO_LENGTH
    + struct.pack("<HH", 9, 0x1003)
    + NO_LENGTH
    + ITEM
    + NO_LENGTH
    + implicit(0x00091002, b"abcdef")
    + ITEM_END
    + SEQUENCE_END
    + ITEM_END
    + SEQUENCE_END,
    "a compressed picture in a sequence": open_sequence(0x00880200)
    + ITEM
    + NO_LENGTH
    + struct.pack("<HH", 0x7FE0, 0x0010)
    + b"OB\0\0"
    + NO_LENGTH
    + ITEM
    + struct.pack("<L", 0)
    + ITEM
    + struct.pack("<L", 4)
    + b"\xff\xd8\xff\xd9"
    + SEQUENCE_END
    + ITEM_END
    + SEQUENCE_END,
    "the same element again": element(ROWS, b"US", struct.pack("<H", 7)) * 2,
    "ends of items that never began": ITEM_END + SEQUENCE_END,
}


def read(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    return read_dicom_file(path, {ROWS, NAME}, pixels=True)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("head", [b"", bytes(128) + b"DICM"], ids=["bare", "marked"])
def test_what_stands_between_is_skipped_exactly(tmp_path, odd, head):
    file = read(tmp_path, head + START + odd + END + PIXELS)
    assert file.elements[ROWS].content == struct.pack("<H", 7)
    assert NAME not in file.elements
    assert (file.pixels, file.pixel_bytes) == (bytes(14), 14)
    assert not file.encapsulated
    assert not file.cut_off


def test_an_implicit_file_has_sequences_without_lengths_too(tmp_path):
    nested = struct.pack("<HH", 9, 0x1001) + NO_LENGTH + ITEM + NO_LENGTH
    nested += implicit(0x00091002, b"abcdef") + ITEM_END + SEQUENCE_END
    rest = implicit(ROWS, struct.pack("<H", 7)) + implicit(0x7FE00010, bytes(14))
    file = read(tmp_path, implicit(0x00080060, b"CT") + nested + rest)
    assert file.elements[ROWS].content == struct.pack("<H", 7)
    assert file.pixels == bytes(14)
    assert not file.cut_off


def test_compressed_pixels_are_given_with_the_marks_of_their_parts(tmp_path):
    parts = ITEM + struct.pack("<L", 0) + ITEM + struct.pack("<L", 6) + b"abcdef"
    pixels = struct.pack("<HH", 0x7FE0, 0x0010) + b"OB\0\0" + NO_LENGTH + parts + SEQUENCE_END
    file = read(tmp_path, START + END + pixels)
    assert file.encapsulated
    assert file.pixels.startswith(parts)
    assert not file.cut_off
    assert read(tmp_path, START + END + pixels[:-9]).cut_off


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_a_file_cut_off_anywhere_is_never_taken_for_whole(tmp_path, odd):
    whole = START + odd + END + PIXELS
    for length in range(len(START), len(whole)):
        file = read(tmp_path, whole[:length])
        assert file.cut_off or file.pixel_bytes is None
        assert file.pixel_bytes is None or file.pixel_bytes < 14


def test_what_is_no_dicom_is_none_and_what_only_has_the_mark_is_refused(tmp_path):
    for content in (b"", b"hello", bytes(400), b"\x08\x00", START[:7], b"\x08\x00\x00\xffab" * 9):
        assert read(tmp_path, content) is None
    with pytest.raises(UnreadableVolumeError, match=r"a.dcm: is cut off within its header"):
        read(tmp_path, bytes(128) + b"DICM" + b"rubbish" * 9)
    with pytest.raises(UnreadableVolumeError, match="cannot be read"):
        read_dicom_file(tmp_path / "none.dcm", {ROWS})


@pytest.mark.parametrize(
    ("vr", "content", "value"),
    [
        (b"US", struct.pack("<H", 7), 7),
        (b"SS", struct.pack("<h", -7), -7),
        (b"UL", struct.pack("<L", 70000), 70000),
        (b"SL", struct.pack("<l", -70000), -70000),
        (b"FL", struct.pack("<f", 7.0), 7),
        (b"FD", struct.pack("<d", 7.0), 7),
        (b"IS", b" 7 ", 7),
        (b"DS", b"7.0\0", 7),
        (b"DS", b"+7e0", 7),
        (b"LO", b"7 ", 7),
    ],
)
def test_a_number_is_read_whatever_its_value_representation(tmp_path, vr, content, value):
    path = tmp_path / "a.dcm"
    path.write_bytes(START + element(ROWS, vr, content) + PIXELS)
    elements, _ = read_elements(path, ["Rows"])
    assert elements.whole("Rows") == value
    assert elements.has("Rows")


@pytest.mark.parametrize(
    ("vr", "content", "words"),
    [
        (b"US", b"", "is empty"),
        (b"US", struct.pack("<HH", 7, 7), "has 2 values, not 1"),
        (b"IS", b"7.5 ", "is 7.5, not a whole number"),
        (b"IS", b"seven ", "is 'seven', no number"),
        (b"DS", b"1e999 ", "is '1e999', too large"),
        (b"FD", struct.pack("<d", float("nan")), "is 'nan', no number"),
        (b"FD", struct.pack("<d", float("inf")), "is 'inf', no number"),
    ],
)
def test_a_number_that_is_none_is_named_with_file_and_element(tmp_path, vr, content, words):
    path = tmp_path / "a.dcm"
    path.write_bytes(START + element(ROWS, vr, content) + PIXELS)
    elements, _ = read_elements(path, ["Rows"])
    with pytest.raises(ElementError, match=rf"a.dcm: its Rows \(0028,0010\) {words}"):
        elements.whole("Rows")
    with pytest.raises(ElementError, match=r"its \(0009,1001\) is missing"):
        elements.number(0x00091001)
