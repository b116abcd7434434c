"""The curves of a case as a PNG, for papers and places that show no HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flarekit.profiler.figures import Curve, curve_of
from flarekit.profiler.readings import Sample
from flarekit.profiler.records import ProfiledCase, Tolerances
from flarekit.report.picture import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _GREEN, _RED = "#2a78d6", "#138a63", "#c2272d"
_MEMORY = ("cgroup_working_mib", "tree_rss_mib", "host_ram_mib")
_LABELS = {
    "cgroup_working_mib": "container",
    "tree_rss_mib": "process tree",
    "host_ram_mib": "host",
}


def write_picture(
    path: Path, case: ProfiledCase, samples: Sequence[Sample], tolerances: Tolerances
) -> None:
    """Draw GPU memory and memory over time, areas filled, tolerances as dashed lines.

    Raises:
        OutputError: it could not be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    gpu = curve_of(samples, "gpu_used_mib")
    _draw(above, gpu, _BLUE)
    above.set_ylabel("GPU memory (MiB)")
    if gpu.values:
        above.axhline(tolerances.gpu_mib, color=_RED, linestyle="--", linewidth=1.2)
    else:
        _say(above, f"not supported: {gpu.fault or 'no reading'}")
    column = next((name for name in _MEMORY if curve_of(samples, name).values), None)
    if column is None:
        _say(below, "not measured")
    else:
        _draw(below, curve_of(samples, column), _GREEN)
        below.set_ylabel(f"memory of the {_LABELS[column]} (MiB)")
    below.set_xlabel("seconds")
    for axes in (above, below):
        axes.axvline(tolerances.time_s, color=_RED, linestyle=":", linewidth=1.2)
        axes.set_xlim(0, max(case.wall_s, samples[-1].t_s if samples else 0.0, 0.1))
        axes.spines[["top", "right"]].set_visible(False)
    above.set_title(f"{case.name}: {case.official.time_s:.2f} s", loc="left", fontsize=11)
    save_figure(figure, path)


def _draw(axes: Axes, curve: Curve, colour: str) -> None:
    if not curve.values:
        return
    values = list(curve.values)
    for place in sorted(curve.gap_after):
        values[place] = float("nan")  # no line across a gap
    axes.fill_between(curve.t_s, values, color=colour, alpha=0.2, linewidth=0)
    axes.plot(curve.t_s, values, color=colour, linewidth=1.6)
    axes.set_ylim(bottom=0)


def _say(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color="grey")
    axes.set_yticks([])
