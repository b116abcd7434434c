"""What a case may cost, and which cases keep to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flarekit.core.readings import Reading, Unsupported
from flarekit.profiler.records import EfficiencyReport, ProfiledCase, Tolerances

State = Literal["kept", "broken", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper limits of a case; None where there is none.

    Attributes:
        time_s: official wall time, above which it costs points.
        cap_s: official wall time, above which the run is ended.
        gpu_mib: most memory in use on the device.
        ram_mib: most memory of the container or the process tree.
        required: names of those that must have been measured; of the others it is only said.
        counting: see `Tolerances`.
    """

    time_s: float | None = 15.0
    cap_s: float | None = None
    gpu_mib: float | None = 4096.0
    ram_mib: float | None = None
    required: frozenset[str] = frozenset()
    counting: Literal["sample", "maximum"] = "sample"


@dataclass(frozen=True, kw_only=True)
class LimitVerdict:
    """What became of one limit, or of the case itself.

    Attributes:
        case: its name in the report.
        limit: `time`, `cap`, `gpu`, `ram`, or `run` for everything that is not a figure.
        text: in words.
    """

    case: str
    limit: str
    state: State
    text: str


def tolerances_of(limits: Limits) -> Tolerances:
    """Return what a report made under these limits is judged by; FLARE23's where there are none."""
    usual = Tolerances()
    return Tolerances(
        time_s=usual.time_s if limits.time_s is None else limits.time_s,
        gpu_mib=usual.gpu_mib if limits.gpu_mib is None else limits.gpu_mib,
        counting=limits.counting,
    )


def judge(report: EfficiencyReport, limits: Limits) -> list[LimitVerdict]:
    """Return the verdicts on every case, in the report's order."""
    return [verdict for case in report.cases for verdict in _verdicts(case, limits)]


def is_broken(verdict: LimitVerdict, limits: Limits) -> bool:
    """Tell whether a verdict fails the check: broken, or not measured though it had to be."""
    if verdict.state == "not measured":
        return verdict.limit in limits.required
    return verdict.state == "broken"


def _verdicts(case: ProfiledCase, limits: Limits) -> Iterator[LimitVerdict]:
    for failure in case.failures:
        yield LimitVerdict(case=case.name, limit="run", state="broken", text=failure)
    figures: list[tuple[str, str, Reading, float | None, str]] = [
        ("cap", "time", case.official.time_s, limits.cap_s, "s"),
        ("time", "time", case.official.time_s, limits.time_s, "s"),
        ("gpu", "GPU memory", case.gpu_mib, limits.gpu_mib, "MiB"),
        ("ram", "memory", case.ram_mib, limits.ram_mib, "MiB"),
    ]
    for limit, what, value, most, unit in figures:
        if most is not None:
            yield _verdict(case.name, limit, what, value, most, unit)


def _verdict(
    case: str, limit: str, what: str, value: Reading, most: float, unit: str
) -> LimitVerdict:
    if isinstance(value, Unsupported):
        text = f"{what} not measured: {value.not_supported}"
        return LimitVerdict(case=case, limit=limit, state="not measured", text=text)
    state: State = "broken" if value > most else "kept"
    kind = "hard limit" if limit == "cap" else "limit"
    text = f"{what} {_number(value)} {unit}, {kind} {most:g} {unit}"
    return LimitVerdict(case=case, limit=limit, state=state, text=text)


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"
