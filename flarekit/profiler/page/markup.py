"""HTML and SVG from nested calls; text is escaped, markup is not escaped twice."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"meta", "br", "img", "line", "rect", "circle", "path", "polygon", "polyline"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content = str | Iterable["Content"] | None


def tag(element: str, *content: Content, **attributes: object) -> Markup:
    """Return an element.

    Args:
        element: its name.
        content: text (escaped), markup, lists of both; None is nothing.
        attributes: a last `_` goes (`class_`), one inside is `-`; None leaves an attribute out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = join(content)
    if element in _VOID and not inner:
        return Markup(f"<{element}{given}/>")
    return Markup(f"<{element}{given}>{inner}</{element}>")


def join(content: Content) -> Markup:
    """Return content as markup."""
    if content is None:
        return Markup()
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return Markup(escape(content, quote=False))
    return Markup("".join(join(each) for each in content))


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
