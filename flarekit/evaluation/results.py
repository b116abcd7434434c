"""An evaluation in writing: all of it as JSON, rows and a last line of means as CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flarekit.core.files import write_atomically
from flarekit.core.package import VERSION
from flarekit.evaluation.evaluate import CaseResult, Evaluation
from flarekit.evaluation.scheme import Mean


def write_json(evaluation: Evaluation, path: Path) -> None:
    """Write all rows, means and faults; what is not defined is null.

    Raises:
        OutputError: it could not be written.
    """
    text = json.dumps(as_dict(evaluation), indent=2, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def write_csv(evaluation: Evaluation, path: Path) -> None:
    """Write columns `case`, `state` and one per label and figure; what is not defined is empty.

    The last line has the means, each of the cells above it that are not empty.

    Raises:
        OutputError: it could not be written.
    """
    columns = [
        (label, figure) for label, means in evaluation.summary.labels.items() for figure in means
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "state", *(f"{label}_{figure}" for label, figure in columns)])
    for case in evaluation.cases:
        for row in case.rows:
            values = (row.scores.get(label, {}).get(figure, math.nan) for label, figure in columns)
            writer.writerow([row.row_id, case.state, *map(_cell, values)])
        if not case.rows:
            writer.writerow([case.case_id, case.state, *("" for _ in columns)])
    means = [evaluation.summary.labels[label][figure] for label, figure in columns]
    writer.writerow(["mean", "", *(_cell(mean.value) for mean in means)])
    write_atomically(path, stream.getvalue().encode())


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return plain values for JSON."""
    settings = evaluation.settings
    return {
        "flarekit": VERSION,
        "convention": evaluation.scheme.name,
        "edition": settings.edition,
        "labels": dict(settings.labels),
        "regions": {name: list(values) for name, values in settings.regions.items()},
        "tolerances_mm": dict(settings.tolerances_mm),
        "overall": _plain(evaluation.summary.overall),
        "means": {
            label: {figure: _mean(mean) for figure, mean in means.items()}
            for label, means in evaluation.summary.labels.items()
        },
        "lacking": {
            label: {
                "cases": cases,
                "means_without": {
                    figure: _mean(mean)
                    for figure, mean in evaluation.means_without(cases, label).items()
                },
            }
            for label in settings.members
            if (cases := evaluation.lacking(label))
        },
        "values_of_no_label": {
            str(value): {"truths": truths, "predictions": predictions}
            for value, (truths, predictions) in evaluation.strange_values.items()
        },
        "labels_in_no_mask": list(evaluation.absent_labels),
        "cases": [_case(case) for case in evaluation.cases],
        "without_truth": list(evaluation.surplus),
    }


def _case(case: CaseResult) -> dict[str, Any]:
    return {
        "case": case.case_id,
        "state": case.state,
        "rows": [
            {
                "row": row.row_id,
                "scores": {label: _plain(figures) for label, figures in row.scores.items()},
            }
            for row in case.rows
        ],
        "truth_values": list(case.truth_values),
        "predicted_values": list(case.predicted_values),
        "warnings": list(case.warnings),
        "error": case.error,
        "fix": case.fix,
        "seconds": round(case.seconds, 3),
    }


def _mean(mean: Mean) -> dict[str, float | int | None]:
    return {"value": _number(mean.value), "count": mean.count}


def _plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in figures.items()}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _cell(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else ""
