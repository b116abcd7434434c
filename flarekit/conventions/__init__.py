"""Conventions by name: the folder `flarekit/conventions/x/` is the convention `x`.

A convention knows what an organiser's evaluator puts in and expects out, and nothing of networks.
The `layout.py` of each folder is a module that satisfies `Convention`, or that has
`create(settings, labels)`, which returns something that does: then a predictor may set it up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flarekit.conventions._arranging import (
    Arranging,
    Placed,
    ScanToPlace,
    collect,
    names_of,
    refuse_filled,
    write_manifest,
)
from flarekit.conventions._case import (
    Case,
    Cases,
    Convention,
    NothingUsableError,
    Points,
    find_in,
    finish_run,
    give_up,
    left_out_of,
    measured_of,
    outputs_of,
    points_of,
    share_of,
)
from flarekit.conventions._grid import onto
from flarekit.conventions._jobs import ManyJobs
from flarekit.core.budget import Budget
from flarekit.core.errors import FlarekitError, PredictorError, UsageError
from flarekit.core.names import safe_name
from flarekit.core.registry import Registry, near_miss

if TYPE_CHECKING:
    from flarekit.conventions.facts import ConventionFacts
    from flarekit.evaluation.scheme import NamedScheme
    from flarekit.profiler.limits import Limits
    from flarekit.verification.check import ImageChecks

__all__ = [
    "Arranging",
    "Case",
    "Cases",
    "Convention",
    "ManyJobs",
    "NothingUsableError",
    "Placed",
    "Points",
    "ScanToPlace",
    "arranging",
    "budget_of",
    "checks_of",
    "collect",
    "facts_of",
    "find_in",
    "finish_run",
    "fitting",
    "get",
    "give_up",
    "left_out_of",
    "measured_of",
    "names",
    "names_of",
    "onto",
    "outputs_of",
    "points_of",
    "presets",
    "refuse_filled",
    "scheme_of",
    "scored",
    "share_of",
    "verifiable",
    "with_safe_names",
    "write_manifest",
]

_LAYOUTS, _CHECKS, _SCORING, _ARRANGING = (
    Registry(__name__, part) for part in ("layout", "checks", "scoring", "arrange")
)


def names() -> tuple[str, ...]:
    """Return the names of all conventions, sorted."""
    return _LAYOUTS.names()


def verifiable() -> tuple[str, ...]:
    """Return the names of the conventions whose images can be checked."""
    return _CHECKS.names()


def get(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    labels: Mapping[str, int] | None = None,
) -> Convention:
    """Return a convention.

    Args:
        name: of its folder.
        settings: what a predictor says about it; each layout documents its own.
        labels: label name -> value in the mask, of the predictor; not needed to find files.

    Raises:
        UsageError: no such convention.
        PredictorError: settings that it does not have, or labels that leave open what to write.
    """
    _check_known(name)
    module = _LAYOUTS.load(name)
    if hasattr(module, "create"):
        return cast(Convention, module.create(settings or {}, labels or {}))
    if settings:
        raise PredictorError(f"the convention {name!r} has no settings", fix="remove them")
    return cast(Convention, module)


def fitting(input_dir: Path, channel_count: int, *, but: str) -> list[str]:
    """Return the other conventions that find cases in a folder, without any settings.

    Those that take scans in any tree are named only where no other does.

    Args:
        input_dir: whose layout is not known.
        channel_count: of the predictor.
        but: the one that has found nothing.
    """
    found = []
    for name in names() if input_dir.is_dir() else ():
        if name == but:
            continue
        try:
            cases = find_in(get(name), [input_dir], channel_count)
        except (FlarekitError, OSError):
            continue
        give_up(cases)
        found.append(name)
    return [name for name in found if not facts_of(name).recognised] or found


def facts_of(name: str) -> ConventionFacts:
    """Return what the organiser of a convention states: run line, budget, limits, mask values.

    Raises:
        UsageError: no such convention.
    """
    from flarekit.conventions.facts import read_facts

    _check_known(name)
    folder = next(place for place in __path__ if Path(place, name, "layout.py").is_file())
    return read_facts(Path(folder, name))


def budget_of(name: str) -> Budget:
    """Return what an organiser tolerates per case; no limits where the convention states none.

    Args:
        name: of the convention, one of `names()`.

    Raises:
        UsageError: no such convention.
    """
    return facts_of(name).budget


def presets() -> dict[str, Limits]:
    """Return the limits that reports are checked against: edition of a challenge -> limits."""
    return {key: limits for name in names() for key, limits in facts_of(name).limits.items()}


def checks_of(name: str) -> ImageChecks:
    """Return what is checked of the images of a convention.

    Raises:
        UsageError: there are no checks for it.
    """
    from flarekit.verification.check import ImageChecks

    facts = facts_of(name) if name in verifiable() else None
    if facts is None or facts.run_line is None:
        raise UsageError(
            f"images cannot be verified for the convention {name!r}",
            fix=f"one of: {', '.join(verifiable())}",
        )
    module = _CHECKS.load(name)
    return ImageChecks(
        run_line=facts.run_line,
        mask_values=facts.mask_values,
        write_sample=module.write_sample,
        checks=module.CHECKS,
    )


def scheme_of(name: str) -> NamedScheme:
    """Return how an organiser scores masks; `papers` is what papers report of them.

    Raises:
        UsageError: no such scores.
    """
    from flarekit.evaluation.scheme import PAPERS, NamedScheme

    known = (*_SCORING.names(), PAPERS.name)
    if name not in known:
        raise UsageError(f"no scores of convention {name!r}", fix=near_miss(name, known))
    return PAPERS if name == PAPERS.name else NamedScheme(name, _SCORING.module(name))


def arranging(name: str, sockets: Sequence[str] = ()) -> Arranging:
    """Return what lays scans out for a convention.

    Args:
        name: of the convention.
        sockets: slugs of the channels' sockets, where the organiser leaves them open.

    Raises:
        UsageError: no such convention, one that takes scans as they are, or no such sockets.
    """
    _check_known(name)
    if name not in _ARRANGING.names():
        raise UsageError(
            f"{name} takes scans as they are: there is nothing to arrange",
            fix=f"one of: {', '.join(_ARRANGING.names())}",
        )
    module = _ARRANGING.load(name)
    if hasattr(module, "create"):
        return cast(Arranging, module.create(sockets))
    if sockets:
        raise UsageError(f"{name} has sockets of its own", fix="leave --socket out")
    return cast(Arranging, module)


def with_safe_names(cases: Sequence[Case]) -> list[tuple[Case, str]]:
    """Return cases with names that files may have; no two differ only in upper and lower case."""
    found, used = [], set()
    for case in cases:
        name = safe_name(case.case_id)
        while name.lower() in used:
            name = safe_name(f"{name}/{case.case_id}")
        used.add(name.lower())
        found.append((case, name))
    return found


def scored() -> tuple[str, ...]:
    """Return the names of the conventions whose organisers score masks."""
    return _SCORING.names()


def _check_known(name: str) -> None:
    if name not in names():
        raise UsageError(f"no convention {name!r}", fix=near_miss(name, names()))
