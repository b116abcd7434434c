"""HTML and SVG from nested calls; text is escaped, markup is not escaped twice."""

from collections.abc import Iterable, Sequence
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


def document(title: str, style: str, body: Markup) -> str:
    """Return a whole page, with its style in it."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def section(title: str, *content: Content) -> Markup:
    """Return a part of a page under its title."""
    return tag("section", tag("h2", title), *content)


def tile(value: str, label: str) -> Markup:
    """Return a figure in large letters, and what it is."""
    return tag("li", tag("b", value), tag("span", label), class_="tile")


def table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], note: Markup | None = None
) -> Markup:
    """Return a table of words, which scrolls where it is too wide, and a note below it."""
    header = tag("thead", tag("tr", [tag("th", title) for title in titles]))
    body = tag("tbody", [tag("tr", [tag("td", cell) for cell in row]) for row in rows])
    return tag("div", tag("table", header, body, class_="words"), note, class_="scroll")


def chart(
    marks: Sequence[Markup],
    size: tuple[float, float],
    label: str,
    keys: Sequence[tuple[str, str]],
    *below: Markup,
    **attributes: str,
) -> Markup:
    """Return a drawing under its legend.

    Args:
        marks: what is drawn.
        size: width and height of the drawing.
        label: what it shows, for those who do not see it.
        keys: class of a colour in the style sheet, and what has that colour.
        below: what comes under the drawing.
        attributes: of the drawing.
    """
    entries = [
        tag("span", tag("i", class_=f"key {kind}"), name, class_="entry") for kind, name in keys
    ]
    box = f"0 0 {size[0]:.0f} {size[1]:.0f}"
    svg = tag("svg", marks, viewBox=box, role="img", aria_label=label, **attributes)
    return tag("div", tag("p", entries, class_="legend"), svg, *below, class_="chart")


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
