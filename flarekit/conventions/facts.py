"""What an organiser states, as each convention's `facts.toml` has it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from flarekit.containers import Conditions, RunLine
from flarekit.core.budget import Budget
from flarekit.core.errors import UsageError
from flarekit.core.registry import near_miss
from flarekit.core.tables import Table
from flarekit.profiler.limits import Limits

LimitName = Literal["time_s", "cap_s", "gpu_mib", "ram_mib"]
_MARKS = ("stated_by_participants", "guessed")
_IN_WORDS: Mapping[LimitName, tuple[str, str]] = {
    "time_s": ("time", "s"),
    "cap_s": ("ended after", "s"),
    "gpu_mib": ("GPU memory", "MiB"),
    "ram_mib": ("memory", "MiB"),
}


class _RunTable(Table):
    inputs: str
    outputs: str
    command: tuple[str, ...] | None = None
    scans: str = ".nii.gz"
    writable_inputs: bool = False
    network: bool = False
    capabilities: bool = False
    new_privileges: bool = False
    pids: int | None = None
    shm_mib: int = 64
    memory_mib: int | None = None


class _LimitsTable(Table):
    time_s: float | None = None
    cap_s: float | None = None
    gpu_mib: float | None = None
    ram_mib: float | None = None
    counting: Literal["sample", "maximum"] = "sample"
    stated_by_participants: tuple[LimitName, ...] = ()
    guessed: tuple[LimitName, ...] = ()
    mask_values: tuple[int, ...] = ()
    source: str

    @model_validator(mode="after")
    def _marks_what_is_there(self) -> _LimitsTable:
        marked = [*self.stated_by_participants, *self.guessed]
        if len(set(marked)) != len(marked):
            raise ValueError("a limit is marked twice")
        if unset := [name for name in marked if getattr(self, name) is None]:
            raise ValueError(f"marks {', '.join(unset)}, which it does not set")
        return self


class _TreeTable(Table):
    input: str
    output: str


class _Facts(Table):
    title: str
    tree: _TreeTable
    runs_as: Literal["root", "user"] = "root"
    device: Literal["cpu", "cuda"] = "cuda"
    extra: str = ""
    between_calls: str = ""
    mask_values: tuple[int, ...] = ()
    one_label: bool = False
    recognised: bool = False
    run: _RunTable | None = None
    budget: Budget = Budget()
    limits: dict[str, _LimitsTable] = {}


class ConventionFacts:
    """What is known of a convention without loading any of its code.

    Attributes:
        title: who wants what, in a line.
        input_tree: the files of an input folder, as people read them.
        output_tree: the files of an output folder, as people read them.
        runs_as: whether its images run as `root`, by a script, or as a `user` of the platform.
        device: what its images compute on where nothing else is asked for.
        between_calls: folder inside that may last from call to call of a case; empty for none.
        extra: of this package, that its images need besides; empty for none.
        mask_values: that masks may hold where nothing says more.
        one_label: whether masks hold these values whatever a predictor's own labels are.
        recognised: whether it takes files and any tree of folders, with no need to be named.
        run_line: how the organiser runs an image; None where there is no such organiser.
        budget: what is tolerated per case.
        limits: preset's name -> what a report is checked against.
        edition_values: preset's name -> what masks of that edition may hold, where it is fixed.
        presets: preset's name -> the same in words, with what is not a statement of the organiser
            marked, and its source.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        stated = _Facts.model_validate(content)
        self.title, self.runs_as, self.extra = stated.title, stated.runs_as, stated.extra
        self.device, self.between_calls = stated.device, stated.between_calls
        self.input_tree, self.output_tree = stated.tree.input, stated.tree.output
        self.mask_values, self.one_label = stated.mask_values, stated.one_label
        self.recognised, self.budget = stated.recognised, stated.budget
        self.run_line = None if stated.run is None else _run_line(stated.run)
        self.limits = {
            name: Limits(**limits.model_dump(exclude={"source", "mask_values", *_MARKS}))
            for name, limits in stated.limits.items()
        }
        self.edition_values = {
            name: limits.mask_values for name, limits in stated.limits.items() if limits.mask_values
        }
        self.presets = {
            name: (_in_words(each), each.source) for name, each in stated.limits.items()
        }


def _in_words(limits: _LimitsTable) -> str:
    """Return the limits of a preset, each marked (p) or (?) where no organiser states it."""
    parts = []
    for name, (words, unit) in _IN_WORDS.items():
        value: float | None = getattr(limits, name)
        if value is None:
            continue
        mark = " (p)" if name in limits.stated_by_participants else ""
        mark = " (?)" if name in limits.guessed else mark
        figure = f"{value:g} {unit}" if value else "none"
        parts.append(f"{words} {figure}{mark}")
    if limits.mask_values:
        parts.append(f"masks hold {' and '.join(map(str, limits.mask_values))}")
    return ", ".join(parts)


def _run_line(stated: _RunTable) -> RunLine:
    content = stated.model_dump()
    names = ("inputs", "outputs", "command", "scans", "writable_inputs")
    own = {name: content.pop(name) for name in names}
    return RunLine(**own, conditions=Conditions(**content))


@cache
def read_facts(folder: Path) -> ConventionFacts:
    """Read the facts of a convention.

    Args:
        folder: the convention's, with a `facts.toml`.

    Raises:
        ValueError: the file lacks a fact, or has one that this module does not know.
    """
    return ConventionFacts(tomllib.loads((folder / "facts.toml").read_text(encoding="utf-8")))


def preset_of(name: str, presets: Mapping[str, Limits]) -> Limits:
    """Return the limits of a preset.

    Raises:
        UsageError: no such preset.
    """
    if name not in presets:
        known = ", ".join(presets) or "none: leave --preset out"
        near = near_miss(name, presets)
        hint = f"{near} " if near.startswith("did") else ""
        raise UsageError(
            f"no preset {name!r}", fix=f"{hint}Known: {known}" if hint else f"known: {known}"
        )
    return presets[name]
