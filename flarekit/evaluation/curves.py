"""Curves over the steps of interactive segmentation, as an SVG picture."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _TOP = 420.0, 240.0, 52.0, 34.0
_RIGHT, _BOTTOM = 16.0, 40.0
_LINES = 4  # across
_MEAN = "#0b5394"
_CASE = "#9aa5b1"


def curves_svg(
    panels: Mapping[str, Sequence[Sequence[float]]], means: Mapping[str, Sequence[float]]
) -> str:
    """Draw a panel per figure: every case's curve thin, their mean thick.

    Args:
        panels: title -> curves of the cases, a value per step; NaN breaks a curve.
        means: title -> the mean's values.
    """
    columns = min(2, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * _WIDTH:g}" '
        f'height="{rows * _HEIGHT:g}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, (title, curves) in enumerate(panels.items()):
        x, y = place % columns * _WIDTH, place // columns * _HEIGHT
        parts.append(f'<g transform="translate({x:g} {y:g})">')
        parts += _panel(title, curves, means.get(title, ()))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, curves: Sequence[Sequence[float]], mean: Sequence[float]) -> list[str]:
    values = [value for curve in (*curves, mean) for value in curve if not math.isnan(value)]
    top = 1.0 if max(values, default=0.0) <= 1 else max(values) * 1.05
    steps = max((len(curve) for curve in curves), default=1)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def point(step: int, value: float) -> str:
        across = wide * step / max(1, steps - 1)
        return f"{_LEFT + across:.1f},{_TOP + high * (1 - value / top):.1f}"

    parts = [f'<text x="{_LEFT:g}" y="20" font-weight="bold">{escape(title)}</text>']
    for line in range(_LINES + 1):
        value = top * line / _LINES
        y = _TOP + high * (1 - line / _LINES)
        parts.append(f'<path d="M{_LEFT:g} {y:.1f}h{wide:g}" stroke="#e3e7eb" fill="none"/>')
        parts.append(
            f'<text x="{_LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for step in range(steps):
        x = _LEFT + wide * step / max(1, steps - 1)
        parts.append(
            f'<text x="{x:.1f}" y="{_TOP + high + 16:g}" text-anchor="middle">{step}</text>'
        )
    x, y = _LEFT + wide / 2, _HEIGHT - 6
    parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">marks given</text>')
    for curve in curves:
        parts += _line(curve, point, f'stroke="{_CASE}" stroke-width="1"')
    return parts + _line(mean, point, f'stroke="{_MEAN}" stroke-width="3"')


def _line(curve: Sequence[float], point: Callable[[int, float], str], style: str) -> list[str]:
    parts: list[list[str]] = [[]]
    for step, value in enumerate(curve):
        if math.isnan(value):
            parts.append([])
        else:
            parts[-1].append(point(step, value))
    return [f'<polyline points="{" ".join(part)}" fill="none" {style}/>' for part in parts if part]
