"""The curves of one case: GPU memory, memory, processor."""

from collections.abc import Sequence
from dataclasses import replace

from flarekit.profiler.figures import Curve, curve_of
from flarekit.profiler.page.axes import number
from flarekit.profiler.page.curves import Series, curve_chart
from flarekit.profiler.page.markup import Markup, tag
from flarekit.profiler.readings import Sample
from flarekit.profiler.records import ProfiledCase, Tolerances

_CPU_WINDOW_S = 0.5  # processor time comes in ticks of 10 ms: a rate over less is noise
_GPU = (
    ("gpu_used_mib", "device, total - free (official)", "gpu"),
    ("gpu_tree_mib", "watched processes", "gpu2"),
)
_MEMORY = (
    ("cgroup_working_mib", "container", "ram"),
    ("tree_rss_mib", "process tree, resident", "ram2"),
)


def panels(
    case: ProfiledCase, samples: Sequence[Sample], tolerances: Tolerances, *, gpu: bool = True
) -> Markup:
    """Return the charts of a case; what was not supported is said in place of its chart.

    Args:
        case: whose.
        samples: of it.
        tolerances: lines in the charts.
        gpu: whether there is a chart of the GPU; the page says once why there is none.
    """
    last_s = samples[-1].t_s if samples else 0.0
    x_max = max(last_s, case.wall_s, 0.1)
    memory = _memory(samples)
    processor = cores_in_use(samples)
    span = (x_max, tolerances.time_s)
    limit = (tolerances.gpu_mib, f"tolerance {number(tolerances.gpu_mib)} MiB")
    return tag(
        "div",
        _chart("GPU memory", "MiB", _series(samples, _GPU), samples, span, limit) if gpu else None,
        _chart("memory", "MiB", memory, samples, span, None),
        _chart("processor", "cores", processor, samples, span, None),
        class_="panels",
    )


def cores_in_use(samples: Sequence[Sample]) -> list[Series]:
    """Return the slope of the processor time: cores in use, over half a second each."""
    for column, label in (("cgroup_cpu_s", "container"), ("tree_cpu_s", "process tree")):
        spent = curve_of(samples, column)
        if len(spent.values) > 1:
            return [Series(label=label, kind="cpu", curve=_slope(spent))]
    host = curve_of(samples, "host_idle_percent")
    if not host.values:
        return []
    used = tuple(100 - value for value in host.values)
    curve = Curve(t_s=host.t_s, values=used)
    return [Series(label="host, percent of all cores (official)", kind="cpu", curve=curve)]


def _slope(spent: Curve) -> Curve:
    t_s: list[float] = []
    rates: list[float] = []
    early = 0
    for late in range(1, len(spent.t_s)):
        passed = spent.t_s[late] - spent.t_s[early]
        if passed >= _CPU_WINDOW_S:
            t_s += [spent.t_s[early], spent.t_s[late]]
            rates += [(spent.values[late] - spent.values[early]) / passed] * 2
            early = late
    return Curve(t_s=tuple(t_s), values=tuple(rates))


def _memory(samples: Sequence[Sample]) -> list[Series]:
    found = _series(samples, _MEMORY)
    if len(found) == 1:
        return [replace(found[0], kind="ram")]
    return found or _series(samples, (("host_ram_mib", "host (official)", "ram"),))


def _series(samples: Sequence[Sample], columns: Sequence[tuple[str, str, str]]) -> list[Series]:
    drawn = [
        Series(label=label, kind=kind, curve=curve_of(samples, column))
        for column, label, kind in columns
    ]
    return [each for each in drawn if each.curve.values]


def _chart(
    title: str,
    unit: str,
    series: Sequence[Series],
    samples: Sequence[Sample],
    span: tuple[float, float],
    tolerance: tuple[float, str] | None,
) -> Markup:
    if not series:
        fault = curve_of(samples, "gpu_used_mib").fault if title == "GPU memory" else None
        return tag("p", f"{title}: not supported: {fault or 'no reading'}", class_="absent")
    faults = {each.curve.fault for each in series if each.curve.fault}
    chart = curve_chart(
        series,
        x_max=span[0],
        y_title=f"{title} ({unit})",
        unit=unit,
        time_tolerance_s=span[1],
        tolerance=tolerance,
    )
    if not faults:
        return chart
    return tag(
        "div", chart, tag("p", f"only in part: {'; '.join(sorted(faults))}", class_="broken")
    )
