"""What a run leaves in writing: one record per case, one per run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flarekit.core.budget import Budget


@dataclass(frozen=True, kw_only=True)
class TileRecord:
    """What the sliding window did.

    Attributes:
        done: tiles that were run.
        empty: tiles left out because nothing in them is needed (air).
        dropped: tiles left out because the time was up.
        step: distance between tiles as a fraction of the tile.
        runs: how often every tile was run (flips).
    """

    done: int
    empty: int
    dropped: int
    step: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class CaseRecord:
    """What happened to one case.

    Attributes:
        mask: the file written; None where there is none.
        seconds: stage -> wall time; stages of two cases may overlap.
        wall_s: from the case's beginning (the run's, for the first) to its mask.
        tiles: what the window did; None where it never came to that.
        traded: what the case did without to keep a budget, in words.
        warnings: what was odd about its files and how it was taken.
        curve: at which second of the case which share of the label that a locator expected was the
            network's; empty where there is no locator.
        error: why it failed; None where it did not. A failed case may still have an empty mask.
        fix: what to do about the error.
    """

    case_id: str
    mask: Path | None
    seconds: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    tiles: TileRecord | None = None
    traded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    error: str | None = None
    fix: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: the line of the case in `ledger.jsonl`."""
        content = asdict(self)
        return content | {"mask": None if self.mask is None else str(self.mask)}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What happened in one run, and what computed.

    Attributes:
        mode: `fast` or `exact`.
        scan: what computed selective scans, and why nothing faster did; None where there were none.
        budget: what each case was allowed to cost.
        seconds: time spent once per run, by stage.
        wall_s: of the whole run.
        cases: in the order they ran.
        not_run: ids of the cases left out because a failure stopped the run.
        left_out: files and series that are in no case though they look as if they should be, and
            why, a sentence each.
    """

    predictor: str
    convention: str
    mode: str
    engine: str
    device: str
    device_name: str
    precision: str
    budget: Budget
    seconds: dict[str, float]
    wall_s: float
    cases: tuple[CaseRecord, ...]
    not_run: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    scan: str | None = None

    @property
    def failed(self) -> tuple[CaseRecord, ...]:
        """Return the cases that failed."""
        return tuple(case for case in self.cases if case.error is not None)

    @property
    def traded(self) -> tuple[CaseRecord, ...]:
        """The cases that did without something to keep a budget."""
        return tuple(case for case in self.cases if case.traded)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: what holds for the whole run, cases counted and named."""
        return asdict(self) | {
            "cases": len(self.cases),
            "failed": [case.case_id for case in self.failed],
            "traded": {case.case_id: list(case.traded) for case in self.traded},
        }
