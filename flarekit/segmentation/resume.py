"""Which cases an earlier run has done, by its ledger: hashes of inputs, predictor and masks."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.files import sha256_of
from flarekit.core.probabilities import probabilities_path
from flarekit.report.ledger import Line
from flarekit.segmentation.fingerprint import input_sha256
from flarekit.segmentation.report import Report

_LOG = logging.getLogger(__name__)
_NEW, _FAILED = "not done before", "failed before"


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """The cases of a run, sorted by what an earlier one has done.

    Attributes:
        to_run: those to segment.
        done: ids of those that are done, with a mask that is whole.
        failed: ids of those that failed, and are left so.
        reasons: why cases are run, in words -> how many.
    """

    to_run: list[Case] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def say(self) -> None:
        """Log what is skipped, and why the rest is not."""
        total = len(self.to_run) + len(self.done) + len(self.failed)
        said = [f"{len(self.done)} of {total} cases are done and whole, and are skipped"]
        if self.failed:
            said.append(f"{len(self.failed)} failed before (--retry-failed runs them again)")
        said += [f"{count} {reason}" for reason, count in self.reasons.most_common()]
        _LOG.info("resumed: %s", "; ".join(said))


def what_is_left(
    cases: Sequence[Case],
    report: Report | None,
    lines: Mapping[str, Line],
    stamp: Mapping[str, Any],
    convention: Convention,
    output_dir: Path,
    probabilities: Path | None = None,
) -> Sorted:
    """Return what is to be run: all of it, or what earlier runs left where this one resumes.

    What is skipped is said, and what is run again leaves the statistics of earlier runs.

    Args:
        cases: of the run.
        report: says whether the run resumes; None where nothing is recorded.
        lines: case id -> what the last run that ended it says of it.
        stamp: the predictor's SHA-256 and the settings of this run, as they stand in ledgers.
        convention: knows what is written for a case.
        output_dir: of the masks.
        probabilities: folder of those of every class; None where they are not wanted.

    Raises:
        OutputError: the statistics of earlier runs cannot be written.
    """
    if report is None or not report.resuming.wanted:
        return Sorted(to_run=list(cases))
    retry_failed = report.resuming.retry_failed
    found = _sorted(
        cases, lines, stamp, convention, output_dir, probabilities, retry_failed=retry_failed
    )
    found.say()
    report.forget(case.case_id for case in found.to_run)
    return found


def _sorted(
    cases: Sequence[Case],
    lines: Mapping[str, Line],
    stamp: Mapping[str, Any],
    convention: Convention,
    output_dir: Path,
    probabilities: Path | None,
    *,
    retry_failed: bool,
) -> Sorted:
    """Sort the cases by what is done; those that are parts of one mask are run together."""
    found = Sorted()
    by_mask: dict[Path, list[Case]] = {}
    for case in cases:
        by_mask.setdefault(case.mask, []).append(case)
    for mask, parts in by_mask.items():
        known = [lines.get(part.case_id) for part in parts]
        before = [line for line in known if line is not None]
        outputs = [output_dir / path for path in conventions.outputs_of(convention, parts)]
        reason = _NEW if len(before) < len(parts) else _changed(parts, before, stamp)
        if not reason and retry_failed and any(line.get("error") for line in before):
            reason = _FAILED
        if not reason and not _is_whole(output_dir / mask, outputs, before):
            reason = "have a mask that is missing or was changed"
        if not reason and not _has_probabilities(probabilities, before):
            reason = "have no probabilities in the folder that is named for them"
        if reason:
            found.to_run.extend(parts)
            found.reasons[reason] += len(parts)
            continue
        for part, line in zip(parts, before, strict=True):
            (found.failed if line.get("error") else found.done).append(part.case_id)
    order = {case.case_id: index for index, case in enumerate(cases)}
    found.to_run.sort(key=lambda case: order[case.case_id])
    return found


def _changed(cases: Iterable[Case], lines: Sequence[Line], stamp: Mapping[str, Any]) -> str:
    """Return what is different now, in words; nothing where nothing is."""
    if stamp["predictor_sha256"] is None:
        return "ran with a module in memory, which cannot be told from another"
    if any(line.get("predictor_sha256") != stamp["predictor_sha256"] for line in lines):
        return "ran with another predictor"
    for line in lines:
        settings = line.get("settings")
        if settings != stamp["settings"]:
            return f"ran with other settings ({_difference(settings, stamp['settings'])})"
    for case, line in zip(cases, lines, strict=True):
        if line.get("input_sha256") != input_sha256(case):
            return "had another input"
    return ""


def _difference(before: object, now: Mapping[str, Any]) -> str:
    if not isinstance(before, Mapping):
        return "unknown"
    names = [name for name, value in now.items() if before.get(name) != value]
    return ", ".join(names) or "unknown"


def _is_whole(mask: Path, outputs: Iterable[Path], lines: Sequence[Line]) -> bool:
    """Return whether the mask is the one that the last of its cases left."""
    last = max(lines, key=lambda line: str(line.get("ended", "")))
    if last.get("mask_sha256") is None:
        return last.get("error") is not None and last.get("mask") is None
    try:
        is_same = sha256_of(mask) == last["mask_sha256"]
    except OSError:
        return False
    return is_same and all(path.exists() for path in outputs)


def _has_probabilities(folder: Path | None, lines: Iterable[Line]) -> bool:
    """Return whether what is wanted beside the masks is there; cases that failed have none."""
    done = [str(line["case_id"]) for line in lines if not line.get("error")]
    return folder is None or all(probabilities_path(folder, each).is_file() for each in done)
