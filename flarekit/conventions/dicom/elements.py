"""The one parser of DICOM elements: each may be absent, empty, malformed, of another VR, or many.

What a volume cannot do without is asked for with `numbers`, `number` and `whole`, which name file
and element where they fail. Everything else is asked for with what never fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import datetime, time, timezone
from functools import cache
from pathlib import Path
from typing import TypeAlias

from flarekit.conventions.dicom.file import (
    DicomFile,
    RawElement,
    elements_within,
    items_of,
    read_dicom_file,
)
from flarekit.conventions.dicom.values import (
    BINARY,
    codec_of,
    day_in,
    decoded,
    numbers_in,
    time_in,
    zone_in,
)
from flarekit.core.errors import UnreadableVolumeError

Element: TypeAlias = str | int  # keyword, or the tag of a private element
_OPAQUE = frozenset(("", "UN", "OB", "OW", "OL", "OV"))  # then the dictionary's VR counts
_ONE_VALUE = frozenset(("LT", "ST", "UT", "UR"))
_CHARACTER_SET = 0x00080005
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_MIDNIGHT = time()
_SHOWN = 40  # characters of a value in a message


class ElementError(UnreadableVolumeError):
    """An element that a volume cannot do without, and that cannot be used."""


class Elements:
    """Some elements of a file, or of one item of a sequence in it.

    Attributes:
        path: of the file.
        notes: what was odd about values that could be used.
    """

    def __init__(self, path: Path, raw: Mapping[int, RawElement], codec: str | None = None) -> None:
        self.path = path
        self.notes: list[str] = []
        self._raw = raw
        self._codec = codec or codec_of(raw.get(_CHARACTER_SET))

    def has(self, element: Element) -> bool:
        """Return whether there is any value."""
        return any(self.texts(element)) or bool(self.items(element))

    def text(self, element: Element) -> str:
        """Return the first value as text; empty where there is none."""
        return next(iter(self.texts(element)), "")

    def texts(self, element: Element) -> tuple[str, ...]:
        """Return all values as text, without padding; none where there is none."""
        raw = self._raw.get(_tag(element))
        if raw is None or not raw.content:
            return ()
        vr = _vr(raw, element)
        if vr == "SQ":
            return ()
        if vr in BINARY:
            return tuple(f"{value:.17g}" for value in numbers_in(raw, vr))
        text = decoded(raw.content, self._codec)
        values = [text] if vr in _ONE_VALUE else text.split("\\")
        return tuple(value.strip(" \0\t\r\n") for value in values)

    def numbers(self, element: Element, count: int) -> tuple[float, ...]:
        """Return exactly so many finite numbers.

        Raises:
            ElementError: the element is absent, empty or malformed, or has another count.
        """
        if _tag(element) not in self._raw:
            raise self._fault(element, "is missing")
        texts = self.texts(element)
        if not any(texts):
            raise self._fault(element, "is empty")
        if len(texts) != count:
            raise self._fault(element, f"has {len(texts)} values, not {count}")
        return tuple(self._parsed(element, text) for text in texts)

    def number(self, element: Element) -> float:
        """Return one finite number.

        Raises:
            ElementError: see `numbers`.
        """
        return self.numbers(element, 1)[0]

    def whole(self, element: Element) -> int:
        """Return one whole number.

        Raises:
            ElementError: see `numbers`; also where it is not a whole number.
        """
        value = self.number(element)
        if not value.is_integer():
            raise self._fault(element, f"is {value:g}, not a whole number")
        return int(value)

    def number_or(self, element: Element, otherwise: float) -> float:
        """Return one number; another where there is no value.

        Raises:
            ElementError: there is a value, and it is not a number.
        """
        return self.number(element) if self.has(element) else otherwise

    def items(self, element: Element) -> list[Elements]:
        """Return the items of a sequence; none where there is none."""
        raw = self._raw.get(_tag(element))
        if raw is None or raw.vr not in ("", "SQ", "UN"):
            return []
        tags = _nested_tags()
        return [
            Elements(self.path, elements_within(item, raw, tags), self._codec)
            for item in items_of(raw)
        ]

    def moment(self, day: Element, time: Element) -> datetime | None:
        """Return what a date and a time say together; None where either is not valid."""
        on, at = day_in(self.text(day)), time_in(self.text(time))
        return None if on is None or at is None else datetime.combine(on, _MIDNIGHT) + at

    def date_time(self, element: Element) -> datetime | None:
        """Return a date with time (DT), with its time zone where stated; None where not valid."""
        text = self.text(element)
        zone = zone_in(text[8:])
        on, at = day_in(text), time_in(text[8 : None if zone is None else 8 + zone[0]])
        if on is None or at is None:
            return None
        moment = datetime.combine(on, _MIDNIGHT) + at
        return moment if zone is None else moment.replace(tzinfo=timezone(zone[1]))

    def _fault(self, element: Element, fault: str) -> ElementError:
        return ElementError(
            self.path, f"its {_named(element)} {fault}", fix="export it again with that element"
        )

    def _parsed(self, element: Element, text: str) -> float:
        if not _NUMBER.fullmatch(text):
            raise self._fault(element, f"is {_cut(text)!r}, no number")
        if "," in text:
            self.notes.append(f"its {_named(element)} is written with a decimal comma")
        value = float(text.replace(",", "."))
        if not math.isfinite(value):
            raise self._fault(element, f"is {_cut(text)!r}, too large")
        return value


def read_elements(path: Path, wanted: Collection[Element]) -> tuple[Elements, DicomFile] | None:
    """Read the wanted elements of a file; None where it is not DICOM.

    Raises:
        UnreadableVolumeError: the file cannot be read.
    """
    file = read_dicom_file(path, {*map(_tag, wanted), _CHARACTER_SET})
    return None if file is None else (Elements(path, file.elements), file)


@cache
def _tag(element: Element) -> int:
    if isinstance(element, int):
        return element
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(element)
    if tag is None:
        raise ValueError(f"no element {element!r}")
    return int(tag)


@cache
def _nested_tags() -> frozenset[int]:
    """Return the elements of sequences that are looked at."""
    return frozenset(
        map(
            _tag,
            (
                "RadionuclideTotalDose",
                "RadionuclideHalfLife",
                "RadiopharmaceuticalStartTime",
                "RadiopharmaceuticalStartDateTime",
                "RadionuclideCodeSequence",
                "Radiopharmaceutical",
                "CodeValue",
                "CodeMeaning",
            ),
        )
    )


@cache
def _known_vr(tag: int) -> str:
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag).split()[0]  # "US or SS" of some
    except KeyError:
        return "UN"


def _vr(raw: RawElement, element: Element) -> str:
    """Return how a value is to be read: as the file says, else as the dictionary does."""
    if raw.vr not in _OPAQUE:
        return raw.vr
    known = _known_vr(_tag(element))
    return known if known not in _OPAQUE else "LO"


def _named(element: Element) -> str:
    tag = _tag(element)
    numbers = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    return numbers if isinstance(element, int) else f"{element} {numbers}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
