"""Standardised uptake value by body weight, from the tags of a PET series.

After the vendor-neutral pseudo-code of QIBA's SUV working group
(https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)), with its GE and Philips
private elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from flarekit.core.errors import InputError

_Header: TypeAlias = Any  # pydicom's Dataset, whose elements carry no types
_GE_SCAN_START = (0x0009, 0x100D)
_PHILIPS_SUV_PER_COUNT = (0x7053, 0x1000)
_PHILIPS_BQML_PER_COUNT = (0x7053, 0x1009)
_DAY = timedelta(days=1)


def suv_factors(headers: Sequence[_Header], folder: Path) -> list[float]:
    """Return what each slice's values have to be multiplied with.

    Args:
        headers: of all slices of the series.
        folder: of the series, for messages.

    Raises:
        InputError: naming the element that is missing or that makes it impossible.
    """
    first = headers[0]
    units = str(first.get("Units") or "")
    if units == "GML":
        if str(first.get("SUVType") or "BW") != "BW":
            raise _impossible(folder, f"its SUV is by {first.SUVType}, not by body weight (BW)")
        return [1.0] * len(headers)
    if units == "CNTS":
        direct = [_private(header, _PHILIPS_SUV_PER_COUNT) for header in headers]
        if all(direct):
            return direct
        to_bqml = [_private(header, _PHILIPS_BQML_PER_COUNT) for header in headers]
        if not all(to_bqml):
            raise _impossible(
                folder, "it is in counts, without (7053,1000) and (7053,1009) to scale them"
            )
    elif units == "BQML":
        to_bqml = [1.0] * len(headers)
    else:
        raise _impossible(folder, f"its Units are {units or 'not stated'}, not BQML, GML or CNTS")
    per_bqml = _suv_per_bqml(headers, folder)
    return [factor * per_bqml for factor in to_bqml]


def _suv_per_bqml(headers: Sequence[_Header], folder: Path) -> float:
    first = headers[0]
    corrected = first.get("CorrectedImage") or ()
    for needed in ("ATTN", "DECY"):
        if needed not in corrected:
            raise _impossible(folder, f"CorrectedImage does not list {needed}")
    tracer = (first.get("RadiopharmaceuticalInformationSequence") or [None])[0]
    weight_kg = _positive(first, "PatientWeight", folder)
    dose_bq = _positive(tracer, "RadionuclideTotalDose", folder)
    if str(first.get("DecayCorrection") or "") == "ADMIN":
        return weight_kg * 1000.0 / dose_bq
    if str(first.get("DecayCorrection") or "") != "START":
        raise _impossible(folder, f"DecayCorrection is {first.get('DecayCorrection')}")
    half_life_s = _positive(tracer, "RadionuclideHalfLife", folder)
    scan = _scan_start(headers, folder)
    decayed_s = (scan - _injection(tracer, scan, folder)).total_seconds()
    if not 0 <= decayed_s < _DAY.total_seconds():
        raise _impossible(folder, f"its scan starts {decayed_s:.0f} s after the injection")
    remaining: float = 2.0 ** (-decayed_s / half_life_s)
    return weight_kg * 1000.0 / (dose_bq * remaining)


def _scan_start(headers: Sequence[_Header], folder: Path) -> datetime:
    """Return the moment that decay is corrected to."""
    first = headers[0]
    series = _moment(first, "SeriesDate", "SeriesTime")
    taken = [_moment(header, "AcquisitionDate", "AcquisitionTime") for header in headers]
    acquired = [moment for moment in taken if moment is not None]
    if series is not None and acquired and series <= min(acquired):
        return series
    if _GE_SCAN_START in first:  # a series saved again has a later time
        return _parsed(_text(first[_GE_SCAN_START].value))
    if not acquired:
        raise _impossible(folder, "AcquisitionDate and AcquisitionTime are missing")
    return min(acquired)


def _injection(tracer: _Header, scan: datetime, folder: Path) -> datetime:
    stated = tracer.get("RadiopharmaceuticalStartDateTime")
    if stated:
        return _parsed(str(stated).split("+")[0].split("-")[0])  # without the time zone
    time = tracer.get("RadiopharmaceuticalStartTime")
    if not time:
        raise _impossible(folder, "RadiopharmaceuticalStartTime is missing")
    moment = _parsed(scan.strftime("%Y%m%d") + str(time))
    return moment if moment <= scan else moment - _DAY


def _moment(header: _Header, date: str, time: str) -> datetime | None:
    if not header.get(date) or not header.get(time):
        return None
    return _parsed(str(header.get(date)) + str(header.get(time)))


def _parsed(text: str) -> datetime:
    """Return the moment that DICOM writes as YYYYMMDDHHMMSS.F, in the scanner's own time."""
    whole, _, fraction = text.strip().partition(".")
    moment = datetime.strptime(whole.ljust(14, "0"), "%Y%m%d%H%M%S")
    return moment + timedelta(seconds=float(f"0.{fraction}" if fraction else 0))


def _positive(header: _Header | None, keyword: str, folder: Path) -> float:
    value = header.get(keyword) if header is not None else None
    if not value or float(value) <= 0:
        raise _impossible(folder, f"{keyword} is missing or not positive")
    return float(value)


def _private(header: _Header, tag: tuple[int, int]) -> float:
    return float(_text(header[tag].value) or 0) if tag in header else 0.0


def _text(value: object) -> str:
    """Return a private value as text; where the kind of it is not known it comes as bytes."""
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value)


def _impossible(folder: Path, reason: str) -> InputError:
    return InputError(
        f"{folder}: SUV cannot be computed: {reason}",
        fix="export the series with all its elements, or convert it to SUV elsewhere",
    )
