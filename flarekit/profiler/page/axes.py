"""Axes of a chart: ticks at round numbers, and the way from values to the page."""

import math
from dataclasses import dataclass

from flarekit.profiler.page.markup import Markup, tag

LEFT, RIGHT, TOP, BOTTOM = 62.0, 16.0, 12.0, 34.0


@dataclass(frozen=True, kw_only=True)
class Axes:
    """A rectangle with values from 0.

    Attributes:
        width: of the whole chart.
        height: of the whole chart.
        x_max: value at the right end.
        y_max: value at the top.
    """

    width: float
    height: float
    x_max: float
    y_max: float

    def x(self, value: float) -> float:
        """Return where a value lies."""
        return LEFT + value / self.x_max * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return where a value lies."""
        return self.height - BOTTOM - value / self.y_max * (self.height - TOP - BOTTOM)

    def frame(self, x_title: str, y_title: str) -> list[Markup]:
        """Return grid, ticks and titles."""
        floor, right = self.height - BOTTOM, self.width - RIGHT
        marks: list[Markup] = []
        for value in ticks(self.y_max):
            y = self.y(value)
            marks.append(tag("line", class_="grid", x1=LEFT, y1=y, x2=right, y2=y))
            marks.append(tag("text", number(value), class_="tick end", x=LEFT - 6, y=y + 4))
        marks += [
            tag("text", number(value), class_="tick middle", x=self.x(value), y=floor + 15)
            for value in ticks(self.x_max)
        ]
        marks.append(tag("line", class_="axis", x1=LEFT, y1=floor, x2=right, y2=floor))
        marks.append(tag("text", x_title, class_="title end", x=right, y=self.height - 4))
        middle = (TOP + floor) / 2
        turned = f"rotate(-90 13 {middle:.1f})"
        marks.append(tag("text", y_title, class_="title middle", x=13, y=middle, transform=turned))
        return marks


def ticks(most: float, about: int = 5) -> list[float]:
    """Return round values from 0 to `most`."""
    if most <= 0:
        return [0.0]
    rough = most / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough)
    return [step * index for index in range(int(most / step + 1e-9) + 1)]


def top_of(values: list[float]) -> float:
    """Return the end of an axis that holds all values with a little room."""
    most = max(values, default=0.0)
    return most * 1.06 if most > 0 else 1.0


def number(value: float) -> str:
    """Return a number as one writes it beside an axis or in a table."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:.1f}"
