"""Stage bars, and time against the number of slices."""

from collections.abc import Sequence

from flarekit.profiler.page.axes import Axes, number, ticks, top_of
from flarekit.profiler.page.markup import Markup, chart, tag
from flarekit.profiler.records import ProfiledCase
from flarekit.profiler.reference import ReferenceCase
from flarekit.profiler.step_times import STAGES, ordered

_WIDTH = 920.0
_ROW, _BAR = 30.0, 18.0
_NAME_ROOM, _SUM_ROOM = 180.0, 90.0


def stage_bars(cases: Sequence[ProfiledCase]) -> Markup:
    """Draw a bar for every case, its stages side by side, in seconds."""
    present = ordered({name: 0.0 for case in cases for name in case.stages})
    longest = max(sum(case.stages.values()) for case in cases)
    scale = (_WIDTH - _NAME_ROOM - _SUM_ROOM) / (longest or 1.0)
    height = _ROW * len(cases) + 26
    marks: list[Markup] = []
    for value in ticks(longest, about=8):
        x = _NAME_ROOM + value * scale
        marks.append(tag("line", class_="grid", x1=x, y1=0, x2=x, y2=height - 22))
        marks.append(tag("text", number(value), class_="tick middle", x=x, y=height - 8))
    for row, case in enumerate(cases):
        marks += _bar(case, row * _ROW + (_ROW - _BAR) / 2, scale)
    keys = [(_kind(name), name) for name in present]
    return chart(marks, (_WIDTH, height), "Stages", keys)


def _bar(case: ProfiledCase, y: float, scale: float) -> list[Markup]:
    middle = y + _BAR / 2 + 4
    marks = [
        tag("text", _short(case.name, 26), class_="row end", x=_NAME_ROOM - 8, y=middle),
    ]
    x = _NAME_ROOM
    for name in ordered(case.stages):
        width = case.stages[name] * scale
        title = tag("title", f"{name}: {case.stages[name]:.3f} s")
        drawn = max(width - 1.5, 0.4)
        marks.append(
            tag("rect", title, class_=_kind(name), x=x, y=y, width=drawn, height=_BAR, rx=2)
        )
        x += width
    total = f"{sum(case.stages.values()):.2f} s"
    marks.append(tag("text", total, class_="row", x=x + 6, y=middle))
    return marks


def _kind(stage: str) -> str:
    return f"stage-{stage}" if stage in STAGES else "stage-other"


def time_against_slices(
    cases: Sequence[ProfiledCase], references: Sequence[ReferenceCase], tolerance_s: float
) -> Markup:
    """Draw the official time of every case over its slices, others' results hollow beside it."""
    ours = [(case.slices, case.official.time_s, case) for case in cases if case.slices is not None]
    width, height = _WIDTH, 330.0
    axes = Axes(
        width=width,
        height=height,
        x_max=top_of(
            [float(slices) for slices, _, _ in ours] + [r.shape_XYZ[2] for r in references]
        ),
        y_max=top_of([time_s for _, time_s, _ in ours] + [r.time_s for r in references]),
    )
    marks = axes.frame("slices", "seconds")
    y = axes.y(tolerance_s)
    marks.append(tag("line", class_="tolerance", x1=axes.x(0), y1=y, x2=axes.x(axes.x_max), y2=y))
    name = f"tolerance {number(tolerance_s)} s"
    marks.append(tag("text", name, class_="tolerance-name end", x=axes.x(axes.x_max), y=y - 4))
    for each in references:
        said = f"{each.source}, {each.name}: {each.time_s:g} s ({each.hardware}, other hardware)"
        place = {"cx": axes.x(each.shape_XYZ[2]), "cy": axes.y(each.time_s)}
        marks.append(tag("circle", tag("title", said), class_="other", r=4.5, **place))
    for slices, time_s, case in ours:
        said = f"{case.name}: {time_s:.2f} s, {slices} slices"
        place = {"cx": axes.x(slices), "cy": axes.y(time_s)}
        marks.append(tag("circle", tag("title", said), class_="ours", r=5, **place))
    keys = [("dot ours", "this report")]
    if references:
        keys.append(("dot other", "others, other hardware"))
    return chart(marks, (width, height), "Time against slices", keys)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
