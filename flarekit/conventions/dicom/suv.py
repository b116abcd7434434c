"""Standardised uptake value by body weight, from the elements of a PET series.

After the vendor-neutral pseudo-code of QIBA's SUV working group
(https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)), with its GE and Philips
private elements. Numbers that cannot be are refused and doubtful ones noted, each by a named limit.
"""

import math
import re
from datetime import datetime, timedelta, timezone

from flarekit.conventions.dicom import TABLES
from flarekit.conventions.dicom.elements import ElementError, Elements
from flarekit.conventions.dicom.private import PRIVATE, PrivateElement
from flarekit.conventions.dicom.series import Series
from flarekit.conventions.dicom.values import time_in, zone_in
from flarekit.core.errors import InputError

WEIGHT_KG = (1.0, 500.0)
DOSE_BQ = (1e6, 1e10)  # 1 MBq to 10 GBq: less is most likely stated in MBq
HALF_LIFE_S = (30.0, 1e6)
MOST_HALF_LIVES = 6.0  # from injection to scan; then 1.6 % of the activity is left
DOUBTFUL_HALF_LIVES = 3.0
DOUBTFUL_UPTAKE = timedelta(minutes=5)  # less is not a usual whole-body scan
SERIES_BEFORE_ACQUISITION = timedelta(hours=1)
_NUCLIDES_S = {int(mass): float(s) for mass, s in TABLES["half_lives_s"].items()}
GE_SCAN_START, PHILIPS_SUV_PER_COUNT, PHILIPS_BQML_PER_COUNT = PRIVATE
PER_COUNT = (1e-8, 1e6)  # SUV, or Bq/ml
LONG_LIVED_S = 8 * 3600.0  # of tracers that are scanned days after, too
LONGEST_SERIES = timedelta(hours=12)
_OF_A_SERIES = ("Units", "SUVType", "DecayCorrection", "PatientWeight")
_OF_A_TRACER = (
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
)
_SAME_HALF_LIFE = 0.03  # relative
_SAME_TIME = timedelta(minutes=1)
_START, _START_TIME = "RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_FIX = "export the series with all its elements, or convert it to SUV elsewhere"


def suv_factors(series: Series) -> tuple[list[float], tuple[str, ...]]:
    """Return what each slice's values have to be multiplied with, and what was doubtful.

    Raises:
        InputError: naming the element that is missing or that makes it impossible.
    """
    elements = [each.elements for each in series.slices]
    try:
        return _factors(elements)
    except ElementError as error:
        raise InputError(f"SUV cannot be computed: {error.message}", fix=_FIX) from error


def _factors(slices: list[Elements]) -> tuple[list[float], tuple[str, ...]]:
    first = slices[0]
    _check_same(slices)
    units = first.text("Units").upper()
    if units == "GML":
        kind = first.text("SUVType") or "BW"
        if kind != "BW":
            raise _impossible(first, f"its SUV is by {kind}, not by body weight (SUVType)")
        return [1.0] * len(slices), ()
    to_bqml = [1.0] * len(slices)
    if units == "CNTS":
        direct = [_per_count(each, PHILIPS_SUV_PER_COUNT) for each in slices]
        if all(direct):
            return direct, ()
        to_bqml = [_per_count(each, PHILIPS_BQML_PER_COUNT) for each in slices]
        if not all(to_bqml):
            raise _impossible(
                first, "it is in counts, without (7053,1000) and (7053,1009) to scale them"
            )
    elif units != "BQML":
        raise _impossible(first, f"its Units are {units or 'not stated'}, not BQML, GML or CNTS")
    per_bqml, notes = _suv_per_bqml(slices)
    return [factor * per_bqml for factor in to_bqml], notes


def _check_same(slices: list[Elements]) -> None:
    """Refuse a series whose slices differ in what holds for all of them."""
    first = slices[0]
    stated = _stated(first)
    for each in slices[1:]:
        for element, value in _stated(each).items():
            if element in stated and value != stated[element]:
                raise _impossible(
                    each, f"{element} is {value}, and {stated[element]} in {first.path.name}"
                )


def _stated(elements: Elements) -> dict[str, str | float]:
    """Return element -> value of what holds for a whole series, where there is one."""
    tracers = elements.items("RadiopharmaceuticalInformationSequence")
    texts = {keyword: elements.text(keyword) for keyword in _OF_A_SERIES}
    texts |= {keyword: each.text(keyword) for each in tracers[:1] for keyword in _OF_A_TRACER}
    return {keyword: _number_in(text) for keyword, text in texts.items() if text}


def _number_in(text: str) -> str | float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def _per_count(elements: Elements, private: PrivateElement) -> float:
    """Return what one count stands for; 0 where that is not said."""
    tag = private.tag_in(elements)
    value = elements.number_or(tag, 0.0)
    if value != 0 and not PER_COUNT[0] <= value <= PER_COUNT[1]:
        raise _impossible(
            elements,
            f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is {value:g} per count; only "
            f"{PER_COUNT[0]:g} to {PER_COUNT[1]:g} is plausible",
        )
    return value


def _suv_per_bqml(slices: list[Elements]) -> tuple[float, tuple[str, ...]]:
    first = slices[0]
    for needed in ("ATTN", "DECY"):
        if needed not in first.texts("CorrectedImage"):
            raise _impossible(first, f"CorrectedImage does not list {needed}")
    tracers = first.items("RadiopharmaceuticalInformationSequence")
    tracer = tracers[0] if tracers else Elements(first.path, {})
    notes = ["several tracers are listed: the first is taken"] if len(tracers) > 1 else []
    weight_kg = _within(first, "PatientWeight", WEIGHT_KG, "kg")
    dose_bq = _within(tracer, "RadionuclideTotalDose", DOSE_BQ, "Bq")
    correction = first.text("DecayCorrection")
    if correction == "ADMIN":
        return weight_kg * 1000.0 / dose_bq, tuple(notes)
    if correction != "START":
        raise _impossible(first, f"DecayCorrection is {correction or 'missing'}")
    half_life_s = _half_life_s(tracer, notes)
    scan = _scan_start(slices, notes)
    element, injection = _injection(first, tracer, scan, notes)
    if element == _START_TIME and not tracer.has(_START) and half_life_s > LONG_LIVED_S:
        notes.append(
            f"its injection has a time and no date ({_START_TIME}): the last 24 hours are taken, "
            f"and a tracer of {half_life_s:g} s is scanned days after as well"
        )
    uptake = scan - injection
    passed = uptake.total_seconds() / half_life_s
    if uptake < timedelta(0) or passed > MOST_HALF_LIVES:
        raise _impossible(
            first,
            f"{element} puts the injection at {injection:%Y-%m-%d %H:%M:%S}, "
            f"{abs(passed):.3g} half-lives {'after' if passed < 0 else 'before'} the scan's start "
            f"at {scan:%Y-%m-%d %H:%M:%S}; only 0 to {MOST_HALF_LIVES:g} is plausible, so a "
            "clock, a date or a time zone is wrong",
        )
    if passed > DOUBTFUL_HALF_LIVES or uptake < DOUBTFUL_UPTAKE:
        notes.append(
            f"its scan starts {uptake} after the injection ({element}), {passed:.2g} half-lives"
        )
    remaining: float = 2.0**-passed
    return weight_kg * 1000.0 / (dose_bq * remaining), tuple(notes)


def _half_life_s(tracer: Elements, notes: list[str]) -> float:
    """Return the half-life, checked against the nuclide that is named, or that nuclide's."""
    known = None
    for item in tracer.items("RadionuclideCodeSequence"):
        words = re.findall(r"\d+", item.text("CodeMeaning"))
        known = next((_NUCLIDES_S[int(w)] for w in words if int(w[:4]) in _NUCLIDES_S), known)
    if known is not None and not tracer.has("RadionuclideHalfLife"):
        notes.append(f"its RadionuclideHalfLife is missing: the nuclide's, {known:g} s, is taken")
        return known
    stated = _within(tracer, "RadionuclideHalfLife", HALF_LIFE_S, "s")
    if known is not None and abs(stated / known - 1) > _SAME_HALF_LIFE:
        raise _impossible(
            tracer, f"RadionuclideHalfLife is {stated:g} s, that of the nuclide is {known:g} s"
        )
    if all(abs(stated / each - 1) > _SAME_HALF_LIFE for each in _NUCLIDES_S.values()):
        notes.append(f"its RadionuclideHalfLife, {stated:g} s, is that of no usual nuclide")
    return stated


def _scan_start(slices: list[Elements], notes: list[str]) -> datetime:
    """Return the moment that decay is corrected to."""
    first = slices[0]
    series = first.moment("SeriesDate", "SeriesTime")
    taken = [each.moment("AcquisitionDate", "AcquisitionTime") for each in slices]
    acquired = _within_a_day([moment for moment in taken if moment is not None], notes)
    if series is not None and acquired and series <= min(acquired):
        if min(acquired) - series <= SERIES_BEFORE_ACQUISITION:
            return series
        notes.append(
            f"its SeriesTime lies {min(acquired) - series} before the first AcquisitionTime, which "
            "is taken"
        )
        return min(acquired)
    stated = first.date_time(GE_SCAN_START.tag_in(first))  # a series saved again has a later time
    private = None if stated is None else stated.replace(tzinfo=None)
    if private is not None and acquired:
        ahead = min(acquired) - private
        if not -_SAME_TIME <= ahead <= SERIES_BEFORE_ACQUISITION:
            notes.append(
                f"its private scan start, {private:%Y-%m-%d %H:%M:%S}, is not that of its "
                "AcquisitionTime, which is taken"
            )
            private = None
    if private is not None:
        return private
    if not acquired:
        raise _impossible(first, "AcquisitionDate and AcquisitionTime are missing or malformed")
    return min(acquired)


def _within_a_day(moments: list[datetime], notes: list[str]) -> list[datetime]:
    """Put slices that were taken after midnight under the day before a day later."""
    if not moments or max(moments) - min(moments) <= LONGEST_SERIES:
        return moments
    after = max(moments) - LONGEST_SERIES
    notes.append(
        f"its acquisition passes midnight, and AcquisitionDate stays the same: {min(moments):%H:%M}"
        " is taken for the next day's"
    )
    return [moment + _DAY if moment < after else moment for moment in moments]


def _injection(
    first: Elements, tracer: Elements, scan: datetime, notes: list[str]
) -> tuple[str, datetime]:
    """Return the element that states the injection, and when it was on the scanner's clock."""
    stated = tracer.date_time(_START)
    time = time_in(tracer.text(_START_TIME))
    if stated is None and tracer.has(_START):
        notes.append(f"its {_START} is malformed and not used")
    by_time = None
    if time is not None:
        by_time = datetime(scan.year, scan.month, scan.day) + time  # noqa: DTZ001 - local
        by_time -= _DAY if by_time > scan else timedelta(0)
    if stated is None:
        if by_time is None:
            is_there = "malformed" if tracer.has(_START_TIME) else "missing"
            raise _impossible(first, f"{_START_TIME} is {is_there}")
        return _START_TIME, by_time
    zone = zone_in(first.text("TimezoneOffsetFromUTC"))
    if stated.tzinfo is not None and zone is not None:
        stated = stated.astimezone(timezone(zone[1]))
    elif stated.tzinfo is not None and by_time is not None:
        apart = _apart(stated.replace(tzinfo=None), by_time)
        off = apart % _HOUR
        if apart > _SAME_TIME and min(off, _HOUR - off) < timedelta(seconds=0.25):
            # another zone: the scanner's own is not known, but its clock is
            notes.append(f"its {_START} is {apart} off its {_START_TIME}, which is taken")
            return _START_TIME, by_time
    elif stated.tzinfo is not None:
        notes.append(
            f"its {_START} names a time zone, and nothing the scanner's: the scanner's clock is "
            "taken to be in it"
        )
    local = stated.replace(tzinfo=None)
    if by_time is not None and _apart(local, by_time) > _SAME_TIME:
        notes.append(f"its {_START_TIME} differs from its {_START}, which is taken")
    return _START, local


def _apart(one: datetime, other: datetime) -> timedelta:
    """Return how far apart two moments are, whatever their days."""
    gap = abs(one - other) % _DAY
    return min(gap, _DAY - gap)


def _within(elements: Elements, keyword: str, limits: tuple[float, float], unit: str) -> float:
    value = elements.number(keyword)
    if not limits[0] <= value <= limits[1]:
        raise _impossible(
            elements,
            f"{keyword} is {value:g} {unit}; only {limits[0]:g} to {limits[1]:g} is plausible",
        )
    return value


def _impossible(elements: Elements, reason: str) -> InputError:
    return InputError(f"{elements.path}: SUV cannot be computed: {reason}", fix=_FIX)
