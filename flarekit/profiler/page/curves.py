"""Curves over time with the area under them filled, and tolerance lines across."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from flarekit.profiler.figures import Curve
from flarekit.profiler.page.axes import TOP, Axes, number, top_of
from flarekit.profiler.page.markup import Markup, chart, tag

_MOST_POINTS = 600
_WIDTH, _HEIGHT = 440.0, 220.0


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve of a chart.

    Attributes:
        label: what it is.
        kind: class of its colour in the style sheet.
    """

    label: str
    kind: str
    curve: Curve


def curve_chart(
    series: Sequence[Series],
    *,
    x_max: float,
    y_title: str,
    unit: str,
    time_tolerance_s: float,
    tolerance: tuple[float, str] | None = None,
) -> Markup:
    """Draw curves over one time axis.

    Args:
        series: the first one's area is filled.
        x_max: end of the time axis in seconds.
        y_title: of the other axis.
        unit: of the values.
        time_tolerance_s: where a line goes up, if it is on the axis.
        tolerance: value and name of a line across; it is in sight where the curves come near it,
            else an arrow points to it.
    """
    tops = [max(each.curve.values, default=0.0) for each in series]
    near = tolerance is not None and tolerance[0] <= 2.5 * max(tops, default=0.0)
    axes = Axes(
        width=_WIDTH,
        height=_HEIGHT,
        x_max=x_max,
        y_max=top_of([*tops, *([tolerance[0]] if tolerance and near else [])]),
    )
    marks = axes.frame("seconds", y_title)
    for place, each in enumerate(series):
        points = thinned(each.curve)
        for run in _runs(points):
            marks += _run(axes, run, each.kind, filled=place == 0)
    if tolerance is not None:
        marks += _tolerance(axes, *tolerance, near=near)
    if time_tolerance_s <= x_max:
        x, name = axes.x(time_tolerance_s), f"{number(time_tolerance_s)} s"
        marks.append(tag("line", class_="tolerance", x1=x, y1=TOP, x2=x, y2=axes.y(0)))
        marks.append(tag("text", name, class_="tolerance-name", x=x + 4, y=axes.y(0) / 2))
    marks.append(tag("line", class_="cross", x1=0, y1=0, x2=0, y2=axes.y(0), visibility="hidden"))
    label = f"{y_title}: " + ", ".join(each.label for each in series)
    return chart(
        marks,
        (_WIDTH, _HEIGHT),
        label,
        [(each.kind, each.label) for each in series],
        tag("p", " ", class_="readout"),
        class_="curves",
        data_curves=_data(series, axes, unit),
    )


def thinned(curve: Curve, most: int = _MOST_POINTS) -> Curve:
    """Return a curve of fewer points with the same peaks: least and most of every stretch."""
    count = len(curve.values)
    if count <= most:
        return curve
    stretch = -(-2 * count // most)
    kept: set[int] = {0, count - 1}
    for begin in range(0, count, stretch):
        places = range(begin, min(begin + stretch, count))
        kept.add(min(places, key=curve.values.__getitem__))
        kept.add(max(places, key=curve.values.__getitem__))
    kept |= {end for gap in curve.gap_after for end in (gap, gap + 1) if end < count}
    order = sorted(kept)
    return Curve(
        t_s=tuple(curve.t_s[place] for place in order),
        values=tuple(curve.values[place] for place in order),
        gap_after=frozenset(order.index(gap) for gap in curve.gap_after),
        fault=curve.fault,
    )


def _runs(curve: Curve) -> list[list[tuple[float, float]]]:
    """Return the points that straight lines join, run by run."""
    runs: list[list[tuple[float, float]]] = [[]]
    for place, point in enumerate(zip(curve.t_s, curve.values, strict=True)):
        runs[-1].append(point)
        if place in curve.gap_after:
            runs.append([])
    return [run for run in runs if run]


def _run(
    axes: Axes, run: Sequence[tuple[float, float]], kind: str, *, filled: bool
) -> list[Markup]:
    points = [(axes.x(t_s), axes.y(value)) for t_s, value in run]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marks = []
    if filled:
        floor = axes.y(0)
        outline = f"{points[0][0]:.1f},{floor:.1f} {line} {points[-1][0]:.1f},{floor:.1f}"
        marks.append(tag("polygon", class_=f"area {kind}", points=outline))
    marks.append(tag("polyline", class_=f"line {kind}", points=line))
    return marks


def _tolerance(axes: Axes, value: float, name: str, *, near: bool) -> list[Markup]:
    right = axes.x(axes.x_max)
    if not near:
        return [tag("text", f"↑ {name}", class_="tolerance-name end", x=right, y=axes.y(0) * 0.1)]
    y = axes.y(value)
    return [
        tag("line", class_="tolerance", x1=axes.x(0), y1=y, x2=right, y2=y),
        tag("text", name, class_="tolerance-name end", x=right, y=y - 4),
    ]


def _data(series: Sequence[Series], axes: Axes, unit: str) -> str:
    """Return what the script needs to say the values under the pointer."""
    curves = []
    for each in series:
        points = thinned(each.curve)
        curves.append(
            {
                "label": each.label,
                "t": [round(t_s, 2) for t_s in points.t_s],
                "v": [round(value, 1) for value in points.values],
            }
        )
    content = {"x0": axes.x(0), "x1": axes.x(axes.x_max), "most": axes.x_max, "unit": unit}
    return json.dumps(content | {"curves": curves}, separators=(",", ":"))
