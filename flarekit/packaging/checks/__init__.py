"""What is checked of an image: the file `checks/x.py` holds the checks of the convention `x`.

Files that begin with `_` are shared. Each convention file has `SAMPLE`, which writes the inputs of
the usual run into a folder given what is wanted, `CHECKS`, in the order in which they are shown,
the organiser's `LAYOUT`, and `VALUES`, which masks may hold where nothing says more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, cast

from flarekit.core.errors import UsageError
from flarekit.core.files import printable
from flarekit.packaging.bench import Bench, Layout, Wanted

State = Literal["pass", "fail", "warn", "skip"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check came to; `warn` and `skip` (could not be judged) do not fail an image.

    Attributes:
        reason: why, or what was measured.
        fix: what to do, where it is something else than the check says.
    """

    state: State
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One assertion about an image.

    Attributes:
        name: short, for `--only`.
        asserts: what has to hold, as a sentence without a full stop.
        fix: what to do where it does not.
        look: finds out.
        runs: whether it looks at runs, which makes no sense where the usual one fails.
    """

    name: str
    asserts: str
    fix: str
    look: Callable[[Bench], Finding]
    runs: bool = True


class Checks(Protocol):
    """What a file of a convention defines."""

    LAYOUT: Layout
    VALUES: Sequence[int]
    SAMPLE: Callable[[Path, Wanted], None]
    CHECKS: Sequence[Check]


PASS = Finding(state="pass")


def passed(reason: str) -> Finding:
    """Return the finding that an assertion holds, with what was measured."""
    return Finding(state="pass", reason=printable(reason))


def fail(reason: str, fix: str = "") -> Finding:
    """Return the finding that an assertion does not hold."""
    return Finding(state="fail", reason=printable(reason), fix=fix)


def skip(reason: str) -> Finding:
    """Return the finding that an assertion could not be judged."""
    return Finding(state="skip", reason=printable(reason))


def warn(reason: str, fix: str = "") -> Finding:
    """Return the finding that an assertion holds, but something deserves a look."""
    return Finding(state="warn", reason=printable(reason), fix=fix)


def held(faults: Sequence[str], most: int = 3) -> Finding:
    """Return `pass` where there are no faults, else `fail` with the first of them."""
    if not faults:
        return PASS
    more = f" (and {len(faults) - most} more)" if len(faults) > most else ""
    return fail("; ".join(faults[:most]) + more)


def conventions() -> tuple[str, ...]:
    """Return the conventions that images can be checked for."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def checks_of(convention: str) -> Checks:
    """Return the checks of a convention.

    Raises:
        UsageError: there are none for it.
    """
    if convention not in conventions():
        raise UsageError(
            f"images cannot be verified for the convention {convention!r}",
            fix=f"one of: {', '.join(conventions())}",
        )
    return cast(Checks, import_module(f"flarekit.packaging.checks.{convention}"))
