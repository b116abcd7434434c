"""What is given to a worker at once: the cases of one mask, mostly one."""

from collections.abc import Sequence
from dataclasses import dataclass

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.records import CaseRecord
from flarekit.segmentation.memory import file_mib, reading_mib


@dataclass(frozen=True)
class Job:
    """Cases whose masks are parts of one file, or a single one.

    Attributes:
        case_ids: which.
        mib: size of their files on disk; jobs with much to do go first.
    """

    case_ids: tuple[str, ...]
    mib: float = 0.0

    @property
    def name(self) -> str:
        """What it is called in messages."""
        first, *others = self.case_ids
        return f"{first} and {len(others)} more" if others else first


def jobs_of(cases: Sequence[Case], convention: Convention) -> list[Job]:
    """Return the jobs that some cases make, the largest first.

    Args:
        cases: to segment.
        convention: knows which part of its files a case is.
    """
    parts: dict[str, list[str]] = {}
    sizes: dict[str, float] = {}
    for case in cases:
        mask = str(case.mask)
        parts.setdefault(mask, []).append(case.case_id)
        share = conventions.share_of(convention, case)
        sizes[mask] = sizes.get(mask, 0.0) + share * file_mib(case.channels)
    found = [Job(tuple(ids), sizes[mask]) for mask, ids in parts.items()]
    return sorted(found, key=lambda job: (-job.mib, job.case_ids))


def largest_mib(cases: Sequence[Case]) -> float:
    """Return what reading the case with the largest files takes, in MiB, by its header."""
    if not cases:
        return 0.0
    return reading_mib(max(cases, key=lambda case: file_mib(case.channels)).channels)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended.

    Attributes:
        records: of its cases; None where the worker was lost.
        fault: what became of the worker, in words.
    """

    job: Job
    records: list[CaseRecord] | None = None
    fault: str = ""
