"""The report of a cohort: one HTML file, which needs no network and no other file."""

import base64
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from flarekit.cohort.outliers import Outlier, histogram, outliers
from flarekit.core.files import write_atomically
from flarekit.profiler.page.markup import Markup, document, section, table, tag, tile
from flarekit.report.ledger import Line

PAGE = "report.html"
_WIDTH, _HEIGHT, _BINS = 420.0, 90.0, 24
_MOST_PICTURES = 40
_LARGEST_PICTURE = 2**21  # bytes; larger ones are left out
_MOST_ROWS = 300  # of a table; ledger and statistics have all
_SLOWEST = 20
_FLAG = ("kind", "label", "text")


def write_page(
    folder: Path, lines: Mapping[str, Line], volumes: Mapping[str, Mapping[str, float]]
) -> Path:
    """Write `report.html`.

    Args:
        folder: of a report; its pictures of cases are shown where there is reason to look at them.
        lines: case id -> what the ledger says of it.
        volumes: label -> case id -> volume, in ml.

    Raises:
        OutputError: it cannot be written.
    """
    far = outliers(volumes)
    title = f"Cohort of {len(lines)} cases"
    body = tag(
        "body",
        _head(title, lines, far),
        _volumes(volumes, far),
        _far(folder, far),
        _flagged(lines),
        _costs(lines),
        _failures(lines),
    )
    page = document(title, _style(), body)
    write_atomically(folder / PAGE, page.encode("utf-8", "backslashreplace"))
    return folder / PAGE


def _style() -> str:
    own = """
.labels { display: grid; grid-template-columns: repeat(auto-fill, minmax(430px, 1fr)); gap: 1rem; }
.bar { fill: var(--gpu); } .far { fill: var(--bad); }
svg text { fill: var(--soft); font-size: 11px; }
figure { margin: 0; } img { max-width: 100%; border-radius: 6px; }
figcaption { font-size: .88rem; margin-bottom: .3rem; }
"""
    return files("flarekit.profiler.page").joinpath("style.css").read_text(encoding="utf-8") + own


def _head(title: str, lines: Mapping[str, Line], far: Sequence[Outlier]) -> Markup:
    failed = [line for line in lines.values() if line.get("error")]
    flagged = [line for line in lines.values() if line.get("flags")]
    walls = [_number(line, "wall_s") for line in lines.values()]
    tiles = [
        (len(lines) - len(failed), "cases with a mask of the network"),
        (len(failed), "failed"),
        (len(flagged), "flagged for a look"),
        (len({each.case_id for each in far}), "outliers by volume"),
        (f"{sum(walls) / 3600:.1f} h", "time of all cases together"),
    ]
    rows = [tile(str(n), what) for n, what in tiles]
    return tag("header", tag("h1", title), tag("ul", rows, class_="tiles"))


def _number(line: Line, name: str) -> float:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _volumes(volumes: Mapping[str, Mapping[str, float]], far: Sequence[Outlier]) -> Markup:
    charts = []
    for label, by_case in volumes.items():
        found = sorted(ml for ml in by_case.values() if ml > 0)
        missing = len(by_case) - len(found)
        own = [each.volume_ml for each in far if each.label == label]
        said = f"{len(found)} cases" + (f", {missing} without it" if missing else "")
        if found:
            said += f"; median {_short(found[len(found) // 2])} ml"
        chart = _bars(found, own, "ml") if found else None
        name = label.replace("_", " ")
        charts.append(tag("article", tag("h3", name), tag("p", said, class_="soft"), chart))
    note = "Volumes in ml, on a logarithmic axis; outliers are below the axis."
    return section("Volumes", tag("p", note, class_="soft"), tag("div", charts, class_="labels"))


def _bars(values: Sequence[float], marked: Sequence[float], unit: str) -> Markup:
    """Draw how often values occur, and some of them as dots below."""
    counts, edges = histogram(values, _BINS)
    base, step = _HEIGHT - 26, _WIDTH / _BINS
    marks: list[Markup] = []
    for k, count in enumerate(counts):
        tall = (base - 4) * count / max(counts)
        said = f"{_short(edges[k])} to {_short(edges[k + 1])} {unit}: {count}"
        place = {"x": k * step + 1, "y": base - tall, "width": step - 2, "height": tall}
        marks.append(tag("rect", tag("title", said), class_="bar", **place))
    reach = math.log(edges[-1] / edges[0])
    for value in marked:
        x = _WIDTH * math.log(value / edges[0]) / reach
        said = f"{_short(value)} {unit}"
        marks.append(tag("circle", tag("title", said), class_="far", cx=x, cy=base + 6, r=4))
    for x, value, side in ((0, edges[0], "start"), (_WIDTH, edges[-1], "end")):
        text = f"{_short(value)} {unit}"
        marks.append(tag("text", text, x=x, y=_HEIGHT - 2, text_anchor=side))
    return tag("svg", marks, viewBox=f"-6 0 {_WIDTH + 12:.0f} {_HEIGHT:.0f}", role="img")


def _short(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def _far(folder: Path, far: Sequence[Outlier]) -> Markup:
    if not far:
        return section("Outliers", tag("p", "No volume is far from those of the other cases."))
    by_case: dict[str, list[Outlier]] = {}
    for each in far:
        by_case.setdefault(each.case_id, []).append(each)
    shown = []
    for case_id, own in list(by_case.items())[:_MOST_PICTURES]:
        said = "; ".join(
            f"{each.label.replace('_', ' ')} {_short(each.volume_ml)} ml (median "
            f"{_short(each.median_ml)}, z {each.z:+.1f})"
            for each in own
        )
        caption = tag("figcaption", tag("b", case_id), f": {said}")
        shown.append(tag("figure", caption, _picture(folder, case_id)))
    more = len(by_case) - len(shown)
    note = f"{more} more cases have outliers." if more else None
    return section("Outliers", shown, tag("p", note) if note else None)


def _picture(folder: Path, case_id: str) -> Markup | None:
    """Return the picture of a case within the page; None where the report has none."""
    path = folder / f"{case_id.replace('/', '_')}.png"
    if not path.is_file() or path.stat().st_size > _LARGEST_PICTURE:
        return None
    content = base64.b64encode(path.read_bytes()).decode()
    return tag("img", src=f"data:image/png;base64,{content}", alt=f"scan and mask of {case_id}")


def _flagged(lines: Mapping[str, Line]) -> Markup | None:
    rows: list[list[str]] = []
    for case_id, line in lines.items():
        flags = line.get("flags")
        rows += [
            [case_id, *(str(flag.get(key) or "") for key in _FLAG)]
            for flag in (flags if isinstance(flags, list) else [])
            if isinstance(flag, dict)
        ]
    return section("Flagged", _table(["case", *_FLAG], rows)) if rows else None


def _costs(lines: Mapping[str, Line]) -> Markup | None:
    done = {case_id: line for case_id, line in lines.items() if _number(line, "wall_s") > 0}
    if not done:
        return None
    slowest = sorted(done, key=lambda case_id: -_number(done[case_id], "wall_s"))[:_SLOWEST]
    rows = [
        [
            case_id,
            f"{_number(done[case_id], 'wall_s'):.1f}",
            f"{_number(done[case_id], 'peak_mib'):.0f}" if done[case_id].get("peak_mib") else "",
        ]
        for case_id in slowest
    ]
    walls = [_number(each, "wall_s") for each in done.values()]
    parts = [tag("div", tag("h3", "seconds per case"), _bars(walls, [], "s"))]
    peaks = [_number(each, "peak_mib") for each in done.values() if each.get("peak_mib")]
    if peaks:
        title = tag("h3", "peak memory of the process, MiB")
        parts.append(tag("div", title, _bars(peaks, [], "MiB")))
    slow = _table(["slowest cases", "seconds", "peak memory (MiB)"], rows)
    return section("Time and memory", tag("div", parts, class_="labels"), slow)


def _failures(lines: Mapping[str, Line]) -> Markup:
    rows = [
        [case_id, str(line["error"]), str(line.get("fix") or "")]
        for case_id, line in lines.items()
        if line.get("error")
    ]
    if not rows:
        return section("Failures", tag("p", "No case failed."))
    return section("Failures", _table(["case", "what happened", "what to do"], rows))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    more = len(rows) - _MOST_ROWS
    note = tag("p", f"{more} more are in ledger.jsonl.", class_="soft") if more > 0 else None
    return table(titles, rows[:_MOST_ROWS], note)
