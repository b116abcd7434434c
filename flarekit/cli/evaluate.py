"""`flarekit evaluate`: masks against their truth, by an organiser's rules."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import typer

from flarekit.cli.console import Console
from flarekit.core.errors import UsageError
from flarekit.core.files import make_folder
from flarekit.evaluation import schemes
from flarekit.evaluation.evaluate import CaseResult, Evaluation, evaluate
from flarekit.evaluation.masks import find_pairs
from flarekit.evaluation.picture import Pictures
from flarekit.evaluation.results import write_csv, write_json
from flarekit.evaluation.schemes import Settings


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command's options.

    Attributes:
        predicted: folder of masks.
        truth: folder of masks of the same names.
        convention: a name in `flarekit.evaluation.schemes`.
        edition: of the convention's rules; None for the newest.
        labels: `liver=1,spleen=3`; None for the predictor's or the convention's.
        predictor: whose labels to score.
        ignore: names or values, separated by commas, that the truth does not hold.
        tolerances: `name=mm` each.
        json: file to write.
        csv: file to write.
        workers: processes; None for one per core.
        pictures: folder to fill.
        scans: folder of the scans behind the pictures.
    """

    predicted: Path
    truth: Path
    convention: str
    edition: str | None = None
    labels: str | None = None
    predictor: str | None = None
    ignore: str | None = None
    tolerances: tuple[str, ...] = ()
    json: Path | None = None
    csv: Path | None = None
    workers: int | None = None
    pictures: Path | None = None
    scans: Path | None = None


def run_evaluate(request: Request, console: Console) -> int:
    """Score a folder, print the tables, write the files, and return the exit code."""
    settings = _settings(request)
    pairs, surplus = find_pairs(request.predicted, request.truth)
    pictures = None
    if request.pictures is not None:
        make_folder(request.pictures)
        pictures = Pictures(folder=request.pictures, scans=request.scans)
    total, done = len(pairs), 0

    def on_case(case: CaseResult) -> None:
        nonlocal done
        console.start_case(case.case_id, done, total)
        done += 1
        for warning in case.warnings:
            console.say(f"warning: {case.case_id}: {warning}")
        if case.error is not None:
            console.error(f"case {case.case_id}: {case.error}", case.fix)

    with console:
        evaluation = evaluate(
            pairs,
            request.convention,
            settings,
            workers=request.workers or _cores(),
            pictures=pictures,
            on_case=on_case,
            surplus=surplus,
        )
    if request.json is not None:
        write_json(evaluation, request.json)
    if request.csv is not None:
        write_csv(evaluation, request.csv)
    for line in tables(evaluation):
        typer.echo(line)
    return _close(evaluation, console)


def tables(evaluation: Evaluation) -> list[str]:
    """Return the scores as lines: every row by figure, every label by figure, and the whole."""
    figures = list(
        dict.fromkeys(name for means in evaluation.summary.labels.values() for name in means)
    )
    by_row = [
        [
            row.row_id,
            *(
                _mean_over_labels([each.get(name) for each in row.scores.values()])
                for name in figures
            ),
        ]
        for case in evaluation.cases
        for row in case.rows
    ]
    by_label = [
        [label, *(_text(means[name].value) if name in means else "-" for name in figures)]
        for label, means in evaluation.summary.labels.items()
    ]
    overall = [[name, _text(value)] for name, value in evaluation.summary.overall.items()]
    return [
        *_aligned(["case", *figures], by_row),
        "",
        *_aligned(["mean of label", *figures], by_label),
        "",
        *_aligned(["overall", ""], overall),
    ]


def _settings(request: Request) -> Settings:
    scheme = schemes.get(request.convention)
    edition = request.edition or scheme.EDITIONS[-1]
    if edition not in scheme.EDITIONS:
        raise UsageError(
            f"convention {request.convention!r} has no edition {edition!r}",
            fix=f"known: {', '.join(scheme.EDITIONS)}",
        )
    if request.labels is not None and request.predictor is not None:
        raise UsageError("--labels and --predictor both name labels", fix="give one of them")
    if request.labels is not None:
        labels = _parse_labels(request.labels)
    elif request.predictor is not None:
        from flarekit.segmentation.predictors import find_predictor

        labels = dict(find_predictor(request.predictor).spec.labels)
    else:
        labels = scheme.default_labels(edition)
    tolerances_mm = dict(_parse_tolerance(entry) for entry in request.tolerances)
    kept = _without(labels, request.ignore)
    strange = [name for name in tolerances_mm if name not in kept]
    if strange:
        raise UsageError(
            f"--tolerance names {', '.join(strange)}, which is not scored",
            fix=f"scored: {', '.join(kept)}",
        )
    return Settings(edition=edition, labels=kept, tolerances_mm=tolerances_mm)


def _parse_labels(text: str) -> dict[str, int]:
    labels: dict[str, int] = {}
    for entry in text.split(","):
        name, _, value = (part.strip() for part in entry.partition("="))
        if not name or not value.isdecimal() or not 1 <= int(value) <= 255 or name in labels:
            raise UsageError(
                f"--labels: {entry.strip()!r} is no label", fix="write liver=1,spleen=3 (1 to 255)"
            )
        labels[name] = int(value)
    if len(set(labels.values())) != len(labels):
        raise UsageError("--labels: two labels share one value", fix="give each its own")
    return labels


def _parse_tolerance(text: str) -> tuple[str, float]:
    name, _, value = (part.strip() for part in text.partition("="))
    try:
        tolerance_mm = float(value)
    except ValueError:
        tolerance_mm = math.nan
    if not name or not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise UsageError(f"--tolerance: {text!r} is no tolerance", fix="write duodenum=7 (in mm)")
    return name, tolerance_mm


def _without(labels: dict[str, int], ignore: str | None) -> dict[str, int]:
    """Return the labels that are scored."""
    ignored = [entry.strip() for entry in (ignore or "").split(",") if entry.strip()]
    names_of_values = {str(value): name for name, value in labels.items()}
    for entry in ignored:
        if entry not in labels and entry not in names_of_values:
            near = get_close_matches(entry, labels, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(labels)}"
            raise UsageError(f"--ignore: no label {entry!r}", fix=hint)
    left_out = {names_of_values.get(entry, entry) for entry in ignored}
    kept = {name: value for name, value in labels.items() if name not in left_out}
    if not kept:
        raise UsageError("--ignore leaves no label to score", fix="ignore fewer")
    return kept


def _close(evaluation: Evaluation, console: Console) -> int:
    """Say what the run came to; the last line of a faulty run names every faulty case."""
    if evaluation.surplus:
        console.say(f"not scored, no truth: {', '.join(evaluation.surplus)}")
    total = len(evaluation.cases)
    faulty = evaluation.faulty
    if not faulty:
        console.say(f"{total} of {total} cases scored")
        return 0
    parts = []
    for state in ("missing", "unreadable", "failed", "scored"):
        names = [case.case_id for case in faulty if case.state == state]
        if names:
            parts.append(f"{_MEANING[state]}: {', '.join(names)}")
    console.error(f"{len(faulty)} of {total} cases have faults; {'; '.join(parts)}", None)
    return 1


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_MEANING = {
    "missing": "no prediction, scored as missing",
    "unreadable": "prediction unusable, scored as missing",
    "failed": "not scored",
    "scored": "scored, but without a picture",
}


def _mean_over_labels(values: Sequence[float | None]) -> str:
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return _text(sum(defined) / len(defined)) if defined else "-"


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *rows)
    ]
