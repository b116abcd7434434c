"""Two reports side by side, case by case."""

from collections.abc import Callable
from dataclasses import dataclass

from flarekit.core.readings import Reading, Unsupported
from flarekit.profiler.records import EfficiencyReport, ProfiledCase

FIGURES: dict[str, Callable[[ProfiledCase], Reading]] = {
    "time (s)": lambda case: case.official.time_s,
    "max GPU (MiB)": lambda case: case.official.max_gpu_mib,
    "GPU area (MiB s)": lambda case: case.official.gpu_area_mib_s,
    "memory (MiB)": lambda case: case.ram_mib,
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One figure of one case in both reports.

    Attributes:
        ratio: second over first; Unsupported where either is, or where the first is 0.
    """

    case: str
    figure: str
    first: Reading
    second: Reading
    ratio: Reading


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two reports.

    Attributes:
        pairs: of the cases in both, in the first one's order.
        only_first: names of cases that the second does not have.
        only_second: names of cases that the first does not have.
    """

    pairs: tuple[Pair, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def compare(first: EfficiencyReport, second: EfficiencyReport) -> Comparison:
    """Compare two reports; a report of one run each is compared whatever the runs are called."""
    ours = {case.name: case for case in first.cases}
    theirs = {case.name: case for case in second.cases}
    if first.kind == second.kind == "command" and len(ours) == len(theirs) == 1:
        theirs = dict(zip(ours, theirs.values(), strict=True))
    return Comparison(
        pairs=tuple(
            _pair(name, figure, ours[name], theirs[name])
            for name in ours
            if name in theirs
            for figure in FIGURES
        ),
        only_first=tuple(name for name in ours if name not in theirs),
        only_second=tuple(name for name in theirs if name not in ours),
    )


def _pair(name: str, figure: str, ours: ProfiledCase, theirs: ProfiledCase) -> Pair:
    first, second = FIGURES[figure](ours), FIGURES[figure](theirs)
    return Pair(case=name, figure=figure, first=first, second=second, ratio=_ratio(first, second))


def _ratio(first: Reading, second: Reading) -> Reading:
    if isinstance(first, Unsupported):
        return first
    if isinstance(second, Unsupported):
        return second
    if first == 0:
        return Unsupported(not_supported="nothing to divide by")
    return second / first
