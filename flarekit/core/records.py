"""What a run leaves in writing: one record per case, one per run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CaseRecord:
    """What happened to one case.

    Attributes:
        mask: the file written; None where there is none.
        seconds: stage -> wall time.
        warnings: what was odd about its files and how it was taken.
        error: why it failed; None where it did not. A failed case may still have an empty mask.
        fix: what to do about the error.
    """

    case_id: str
    mask: Path | None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None
    fix: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What happened in one run, and what computed.

    Attributes:
        seconds: time spent once per run, by stage.
        cases: in the order they ran.
        not_run: ids of the cases left out because a failure stopped the run.
    """

    predictor: str
    convention: str
    engine: str
    device: str
    device_name: str
    precision: str
    seconds: dict[str, float]
    cases: tuple[CaseRecord, ...]
    not_run: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[CaseRecord, ...]:
        """The cases that failed."""
        return tuple(case for case in self.cases if case.error is not None)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        content = asdict(self)
        for case in content["cases"]:
            case["mask"] = None if case["mask"] is None else str(case["mask"])
        return content
