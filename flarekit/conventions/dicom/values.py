"""Values of DICOM elements: text, numbers, dates and times, each parsed without ever failing."""

import re
from datetime import date, timedelta

import numpy as np

from flarekit.conventions.dicom.file import RawElement

BINARY = {
    "US": "u2",
    "SS": "i2",
    "UL": "u4",
    "SL": "i4",
    "UV": "u8",
    "SV": "i8",
    "FL": "f4",
    "FD": "f8",
    "OF": "f4",
    "OD": "f8",
}
_TIME = re.compile(r"(\d{2})(\d{2})?(\d{2})?(?:\.(\d{1,6})\d*)?", re.ASCII)
_ZONE = re.compile(r"([+-])(\d{2})(\d{2})", re.ASCII)
_DAY = re.compile(r"\d{8}", re.ASCII)
_WIDEST_ZONE = timedelta(hours=14)


def numbers_in(raw: RawElement, vr: str) -> list[float]:
    """Return the numbers of a binary value; what is left of a broken one is left out."""
    dtype = np.dtype(BINARY[vr]).newbyteorder("<" if raw.little else ">")
    whole = len(raw.content) - len(raw.content) % dtype.itemsize
    return [float(value) for value in np.frombuffer(raw.content[:whole], dtype)]


def codec_of(raw: RawElement | None) -> str:
    """Return Python's codec of a character set; Latin-1, which takes anything, where unclear."""
    from pydicom.charset import python_encoding

    stated = [] if raw is None else raw.content.decode("latin-1").split("\\")
    names = [name.strip(" \0") for name in stated]
    known = next((name for name in reversed(names) if name in python_encoding), "")
    return str(python_encoding[known])


def decoded(content: bytes, codec: str) -> str:
    """Return text in the codec, else in UTF-8, else in Latin-1."""
    for name in (codec, "utf-8"):
        try:
            return content.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return content.decode("latin-1")


def day_in(text: str) -> date | None:
    """Return a date (DA, or the start of a DT); None where it is none."""
    digits = text.replace(".", "").replace("-", "")[:8]
    if not _DAY.fullmatch(digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def time_in(text: str) -> timedelta | None:
    """Return a time (TM) as what has passed since midnight; None where it is none."""
    match = _TIME.fullmatch(text.replace(":", "").strip())
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups()[:3])
    if hours > 23 or minutes > 59 or seconds > 60:  # 60 in a leap second
        return None
    fraction = int((match.group(4) or "0").ljust(6, "0"))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=fraction)


def zone_in(text: str) -> tuple[int, timedelta] | None:
    """Return where a time zone (+HHMM) stands in a DT and what it is ahead of UTC."""
    match = _ZONE.search(text)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    if int(minutes) > 59 or offset > _WIDEST_ZONE:
        return None
    return match.start(), -offset if sign == "-" else offset
