"""The page: verdicts, curves, stages, others' results, environment."""

import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files

from flarekit.core.readings import Reading, Unsupported
from flarekit.profiler.limits import Limits, LimitVerdict, judge
from flarekit.profiler.page.axes import number
from flarekit.profiler.page.charts import stage_bars, time_against_slices
from flarekit.profiler.page.markup import Markup, document, join, section, table, tag, tile
from flarekit.profiler.page.panels import panels
from flarekit.profiler.readings import Sample
from flarekit.profiler.records import EfficiencyReport, ProfiledCase
from flarekit.profiler.reference import References, references

_NO_FIGURE = "not supported"


def page(report: EfficiencyReport, samples: Mapping[str, Sequence[Sample]]) -> str:
    """Return the whole page; nothing in it points outside.

    Args:
        report: what was measured.
        samples: case name -> its samples.
    """
    of_flare = report.environment.get("convention", "flare").startswith("flare")
    known = references() if of_flare else None
    limits = Limits(time_s=report.tolerances.time_s, gpu_mib=report.tolerances.gpu_mib)
    verdicts = judge(report, limits)
    body = tag(
        "body",
        _head(report, verdicts),
        section("Verdicts", _verdict_table(report, verdicts)),
        section("Memory over time", [_case(case, samples, report) for case in report.cases]),
        _stages(report),
        _slices(report, known),
        None if known is None else section("Others, on other hardware", _others(known)),
        section("Environment", _facts(_environment(report))),
        section("How the figures arise", _explained(report)),
        tag("script", Markup(_resource("script.js"))),
    )
    return document(f"Efficiency of {report.name}", _resource("style.css"), body)


def _resource(name: str) -> str:
    return files("flarekit.profiler.page").joinpath(name).read_text(encoding="utf-8")


def _head(report: EfficiencyReport, verdicts: Sequence[LimitVerdict]) -> Markup:
    bad = {verdict.case for verdict in verdicts if verdict.state == "broken"}
    total = len(report.cases)
    seen = _environment(report)
    machine = ", ".join(f"{key.upper()} {seen[key]}" for key in ("gpu", "cpu") if key in seen)
    times = [case.official.time_s for case in report.cases]
    gpu_tiles = [
        tile(_most_of([_gpu(case) for case in report.cases], "MiB"), "most GPU memory"),
        tile(
            _most_of([case.official.gpu_area_mib_s for case in report.cases], "MiB s"),
            "largest GPU memory-time area",
        ),
    ]
    tiles = [
        tile(f"{total - len(bad)} of {total}", "cases within every limit"),
        tile(f"{len(report.failed)}", "cases failed"),
        tile(_most(times, "s"), "longest case (official time)"),
        *(gpu_tiles if _has_gpu(report) else ()),
        tile(_most_of([case.ram_mib for case in report.cases], "MiB"), "most memory"),
    ]
    command = tag("p", tag("code", shlex.join(report.command))) if report.command else None
    return tag(
        "header",
        tag("h1", f"Efficiency of {report.name}"),
        tag("p", f"{report.created} · flarekit {report.flarekit} · {machine}", class_="soft"),
        command,
        [tag("p", note) for note in report.notes],
        None if _has_gpu(report) else tag("p", _no_gpu(report), class_="unmeasured"),
        tag("ul", tiles, class_="tiles"),
    )


def _has_gpu(report: EfficiencyReport) -> bool:
    """Return whether the GPU of any case was measured; where there are no cases it is shown."""
    unknown = [isinstance(_gpu(case), Unsupported) for case in report.cases]
    return not all(unknown) or not unknown


def _no_gpu(report: EfficiencyReport) -> str:
    """Return why there are no figures of a GPU: the same for all cases, mostly."""
    reasons = [case.measured.get("gpu_used_mib", _gpu(case)) for case in report.cases]
    words = {each.not_supported for each in reasons if isinstance(each, Unsupported)}
    return f"No GPU was measured, and its figures are left out: {'; '.join(sorted(words))}"


def _most(values: Sequence[float], unit: str) -> str:
    return f"{number(max(values))} {unit}" if values else "none"


def _most_of(readings: Sequence[Reading], unit: str) -> str:
    values = [each for each in readings if not isinstance(each, Unsupported)]
    return _most(values, unit) if values else _NO_FIGURE


def _gpu(case: ProfiledCase) -> Reading:
    return case.official.max_gpu_mib


def _verdict_table(report: EfficiencyReport, verdicts: Sequence[LimitVerdict]) -> Markup:
    most = report.tolerances
    counted = (
        "GPU area above, by sample (MiB s)"
        if most.counting == "sample"
        else "GPU maximum above (MiB)"
    )
    gpu_titles = [
        "max GPU (MiB)",
        "GPU area, sum x 0.1 (MiB s)",
        "GPU area, trapezoid (MiB s)",
        counted,
    ]
    titles = [
        "case",
        "slices",
        "time (s)",
        f"above {most.time_s:g} s",
        *(gpu_titles if _has_gpu(report) else ()),
        "memory (MiB)",
        "kernel's own peak (MiB)",
        "host CPU max (%)",
    ]
    header = tag(
        "tr", [tag("th", title) for title in titles], tag("th", "verdict", class_="verdict")
    )
    rows = [_verdict_row(case, report, verdicts) for case in report.cases]
    return tag("div", tag("table", tag("thead", header), tag("tbody", rows)), class_="scroll")


def _verdict_row(
    case: ProfiledCase, report: EfficiencyReport, verdicts: Sequence[LimitVerdict]
) -> Markup:
    official, excess = case.official, case.excess
    by_sample = report.tolerances.counting == "sample"
    above = excess.gpu_area_mib_s if by_sample else excess.gpu_max_mib
    measured = case.measured.get("gpu_used_mib")
    trapezoid: Reading = (
        Unsupported(not_supported="not measured")
        if measured is None
        else measured
        if isinstance(measured, Unsupported)
        else measured.area
    )
    gpu_cells = [
        _cell(official.max_gpu_mib),
        _cell(official.gpu_area_mib_s),
        _cell(trapezoid),
        _cell(above, over=isinstance(above, float) and above > 0),
    ]
    cells = [
        tag("td", case.name),
        tag("td", "" if case.slices is None else str(case.slices)),
        tag("td", f"{official.time_s:.2f}"),
        _cell(excess.time_s, over=excess.time_s > 0),
        *(gpu_cells if _has_gpu(report) else ()),
        _cell(case.ram_mib),
        _cell(case.kernel_peak_mib),
        _cell(official.max_cpu_percent),
    ]
    own = [
        verdict
        for verdict in verdicts
        if verdict.case == case.name and (verdict.limit != "gpu" or _has_gpu(report))
    ]
    return tag("tr", cells, tag("td", _verdict(own), class_="verdict"))


def _verdict(verdicts: Sequence[LimitVerdict]) -> list[Markup]:
    broken = [verdict for verdict in verdicts if verdict.state == "broken"]
    unknown = [verdict for verdict in verdicts if verdict.state == "not measured"]
    lines = [tag("div", f"✗ {verdict.text}", class_="broken") for verdict in broken]
    if not broken:
        lines.append(tag("div", "✓ within the limits", class_="kept"))
    return lines + [tag("div", f"? {verdict.text}", class_="unmeasured") for verdict in unknown]


def _cell(reading: Reading, *, over: bool = False) -> Markup:
    if isinstance(reading, Unsupported):
        return tag("td", _NO_FIGURE, class_="unmeasured", title=reading.not_supported)
    return tag("td", number(reading), class_="over" if over else None)


def _case(
    case: ProfiledCase, samples: Mapping[str, Sequence[Sample]], report: EfficiencyReport
) -> Markup:
    size = "" if case.shape_XYZ is None else " · " + " x ".join(map(str, case.shape_XYZ))
    return tag(
        "article",
        tag("h3", f"{case.name}{size} · {case.official.time_s:.2f} s"),
        [tag("p", f"✗ {failure}", class_="broken") for failure in case.failures],
        panels(case, samples[case.name], report.tolerances, gpu=_has_gpu(report)),
        class_="case",
    )


def _stages(report: EfficiencyReport) -> Markup | None:
    told = [case for case in report.cases if case.stages]
    if not told:
        return None
    note = (
        "Stages of one case may overlap (the network loads while the scan is read), so that their "
        "sum may exceed the wall time."
    )
    traits = sorted({", ".join(case.traits.values()) for case in told if case.traits})
    lines = [tag("p", line, class_="soft") for line in (*traits, note)]
    return section("Stages", lines, stage_bars(told))


def _slices(report: EfficiencyReport, known: References | None) -> Markup | None:
    sized = [case for case in report.cases if case.slices is not None]
    if not sized:
        return None
    others = () if known is None else known.cases
    chart = time_against_slices(sized, others, report.tolerances.time_s)
    return section("Time against slices", chart)


def _others(known: References) -> list[Markup]:
    cases = table(
        ["source", "hardware", "case", "size", "time (s)", "max GPU (MB)", "GPU area (MB s)"],
        [
            [
                each.source,
                f"{each.hardware} (other hardware)",
                each.name,
                " x ".join(map(str, each.shape_XYZ)),
                f"{each.time_s:.2f}",
                number(each.max_gpu_mib),
                number(each.gpu_area_mib_s),
            ]
            for each in known.cases
        ],
    )
    anchors = table(
        ["source", "hardware", "accuracy", "time per case", "GPU memory"],
        [
            [each.source, f"{each.hardware} (other hardware)", each.accuracy, each.time, each.gpu]
            for each in known.anchors
        ],
    )
    note = "Measured elsewhere by others: for orientation only, no verdict rests on them."
    return [tag("p", note, class_="soft"), cases, anchors]


def _environment(report: EfficiencyReport) -> dict[str, str]:
    """Return what it ran on; a GPU that was not measured is told elsewhere."""
    told = {} if _has_gpu(report) else {"gpu"}
    return {key: value for key, value in report.environment.items() if key not in told}


def _facts(facts: Mapping[str, str]) -> Markup:
    if not facts:
        return tag("p", "not recorded", class_="soft")
    rows = [
        tag("tr", tag("td", name.replace("_", " ")), tag("td", value))
        for name, value in facts.items()
    ]
    return tag("table", tag("tbody", rows), class_="words facts")


def _explained(report: EfficiencyReport) -> list[Markup]:
    lines = [
        "Official: the time runs from before the start until FLARE's lists are copied and dumped; "
        "areas are the sum of the samples times 0.1 s, whenever they were taken; GPU memory is "
        "total - free of the device, the driver's share and other processes included; processor "
        "and memory are the whole host's.",
        "Careful: areas are integrated over the samples' own times (trapezoid); memory is that of "
        "the container's control group as docker stats counts it, or of the process tree; the "
        "clock stops when the run ends.",
        "Not supported is said where a figure could not be read; it never counts as zero.",
    ]
    quality = [case.sampler for case in report.cases if case.sampler is not None]
    if quality:
        lines.append(
            f"Sampling: every {quality[0].interval_s:g} s; mean interval "
            f"{sum(each.mean_interval_s for each in quality) / len(quality):.4f} s, jitter at most "
            f"{1000 * max(each.jitter_s for each in quality):.1f} ms, longest gap "
            f"{max(each.longest_gap_s for each in quality):.3f} s, "
            f"{sum(each.skipped for each in quality)} samples skipped; it took at most "
            f"{max(each.core_percent for each in quality):.2f} % of one core."
        )
    return [tag("p", join(line)) for line in lines]
