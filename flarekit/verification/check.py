"""A check of an image: what has to hold, what looks, and what it came to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flarekit.containers import RunLine
from flarekit.core.files import printable
from flarekit.verification.trials import ImageUnderTest, TaskFacts, TrialResult

State = Literal["pass", "fail", "warn", "skip"]
_MOST_TOLD = 3  # faults of one assertion


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
    look: Callable[[ImageUnderTest], Finding]
    runs: bool = True


@dataclass(frozen=True, kw_only=True)
class ImageChecks:
    """What is checked of the images of a convention.

    Attributes:
        run_line: the organiser's.
        mask_values: that masks may hold where nothing says more.
        write_sample: writes the inputs of the usual run into a folder, given the task.
        checks: in the order in which they are shown.
    """

    run_line: RunLine
    mask_values: Sequence[int]
    write_sample: Callable[[Path, TaskFacts], None]
    checks: Sequence[Check]


def check(fix: str, *, runs: bool = True) -> Callable[[Callable[[ImageUnderTest], Finding]], Check]:
    """Make a check of the function below: it has the function's name and asserts its first line.

    Args:
        fix: what to do where it does not hold.
        runs: whether it looks at runs, which makes no sense where the usual one fails.
    """

    def make(look: Callable[[ImageUnderTest], Finding]) -> Check:
        asserts = (look.__doc__ or "").partition("\n")[0].removesuffix(".")
        return Check(name=look.__name__, asserts=asserts, fix=fix, look=look, runs=runs)

    return make


def checks_in(module: Mapping[str, object]) -> tuple[Check, ...]:
    """Return the checks that a module has made so far, in that order.

    Args:
        module: its `globals()`.
    """
    return tuple(each for each in module.values() if isinstance(each, Check))


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


def warn(reason: str) -> Finding:
    """Return the finding that an assertion holds, but something deserves a look."""
    return Finding(state="warn", reason=printable(reason))


def verdict_of(faults: Sequence[str]) -> Finding:
    """Return `pass` where there are no faults, else `fail` with the first of them."""
    if not faults:
        return PASS
    more = f" (and {len(faults) - _MOST_TOLD} more)" if len(faults) > _MOST_TOLD else ""
    return fail("; ".join(faults[:_MOST_TOLD]) + more)


def verdict_of_trial(trial: TrialResult, faults: Sequence[str]) -> Finding:
    """Return `pass` where a trial ended well and has no faults, else `fail` with these."""
    return verdict_of([*faults, *([] if trial.failure is None else [trial.failure])])
