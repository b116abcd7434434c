"""Numbers from curves: maximum, area by trapezoid, and what exceeds a tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass

from flarekit.core.readings import Reading, Unsupported
from flarekit.profiler.readings import COLUMNS, Sample


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One column over time; where there was no reading there is no point.

    Attributes:
        t_s: of each point, rising.
        values: at those times.
        gap_after: indices of points that no straight line joins to the next one, because a
            reading failed between them.
        fault: why there is no reading somewhere; None where there is one everywhere.
    """

    t_s: tuple[float, ...]
    values: tuple[float, ...]
    gap_after: frozenset[int] = frozenset()
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A curve in numbers.

    Attributes:
        maximum: of all points.
        mean: area over the time covered.
        area: by trapezoid, unit of the curve times seconds.
        first: its first point: what there was before.
        covered_s: time between points that are joined.
        fault: why a part of it is missing; None where none is.
    """

    maximum: float
    mean: float
    area: float
    first: float
    covered_s: float
    fault: str | None = None


def curve_of(samples: Sequence[Sample], column: str) -> Curve:
    """Return a column of samples as a curve."""
    t_s: list[float] = []
    values: list[float] = []
    gaps: set[int] = set()
    fault: str | None = None
    for sample in samples:
        reading = sample.readings.get(column)
        if isinstance(reading, Unsupported):
            fault = reading.not_supported
            if t_s:
                gaps.add(len(t_s) - 1)
        elif reading is not None:
            t_s.append(sample.t_s)
            values.append(reading)
    inner = frozenset(gap for gap in gaps if gap < len(t_s) - 1)
    return Curve(t_s=tuple(t_s), values=tuple(values), gap_after=inner, fault=fault)


def area(curve: Curve, above: float = 0.0) -> float:
    """Integrate what exceeds `above`, by trapezoid, exactly where a line crosses it."""
    return sum(
        _area_of_piece(length, first - above, second - above)
        for length, first, second in _pieces(curve)
    )


def _pieces(curve: Curve) -> list[tuple[float, float, float]]:
    """Return length and both ends' values of every joined piece."""
    ends = range(len(curve.t_s) - 1)
    return [
        (curve.t_s[i + 1] - curve.t_s[i], curve.values[i], curve.values[i + 1])
        for i in ends
        if i not in curve.gap_after
    ]


def _area_of_piece(length: float, first: float, second: float) -> float:
    if first >= 0 and second >= 0:
        return length * (first + second) / 2
    if first <= 0 and second <= 0:
        return 0.0
    peak = max(first, second)
    return length * peak / (peak - min(first, second)) * peak / 2


def measure(curve: Curve) -> Measured | Unsupported:
    """Return a curve in numbers; Unsupported where it has no point.

    A device lost on the way leaves a figure with a fault, not a smaller figure without one.
    """
    if not curve.values:
        return Unsupported(not_supported=curve.fault or "nothing was there to be read")
    covered_s = sum(length for length, _, _ in _pieces(curve))
    whole = area(curve)
    return Measured(
        maximum=max(curve.values),
        mean=whole / covered_s if covered_s else curve.values[0],
        area=whole,
        first=curve.values[0],
        covered_s=covered_s,
        fault=curve.fault,
    )


def measure_all(samples: Sequence[Sample]) -> dict[str, Measured | Unsupported]:
    """Return every column that was asked for, in numbers."""
    asked = {column for sample in samples for column in sample.readings}
    return {column: measure(curve_of(samples, column)) for column in COLUMNS if column in asked}


def over(reading: Reading, tolerance: float) -> Reading:
    """Return max(0, reading - tolerance)."""
    if isinstance(reading, Unsupported):
        return reading
    return max(0.0, reading - tolerance)


def official_area_over(values: Sequence[float], tolerance: float, interval_s: float) -> Reading:
    """Return the sum of max(0, value - tolerance) times the nominal interval, as FLARE22 did."""
    if not values:
        return Unsupported(not_supported="no samples")
    return sum(max(0.0, value - tolerance) for value in values) * interval_s
