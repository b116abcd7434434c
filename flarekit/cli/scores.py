"""Scores as lines of text: rows, means with their counts, and what missing predictions cost."""

import math
from collections.abc import Sequence

from flarekit.cli.columns import aligned
from flarekit.evaluation.evaluate import Evaluation
from flarekit.evaluation.scheme import Mean


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
        [label, *(_mean(means[name]) if name in means else "-" for name in figures)]
        for label, means in evaluation.summary.labels.items()
    ]
    overall = [
        [name, _text(value), _counts(evaluation, name)]
        for name, value in evaluation.summary.overall.items()
    ]
    return [
        *aligned(["case", *figures], by_row),
        "",
        *aligned(["mean of label", *figures], by_label),
        *_costs(evaluation),
        "",
        *aligned(["overall", "", ""], overall),
    ]


def _costs(evaluation: Evaluation) -> list[str]:
    """Return, for every label, what missing and empty predictions do to its means."""
    lines = []
    for label, means in evaluation.summary.labels.items():
        lacking = evaluation.lacking(label)
        if not lacking:
            continue
        without = evaluation.means_without(lacking, label)
        counted = [
            f"{name} {_mean(mean)}" + (f" (else {_mean(without[name])})" if name in without else "")
            for name, mean in means.items()
            if name not in without or without[name].count != mean.count
        ]
        left_out = [
            name
            for name, mean in means.items()
            if name in without and without[name].count == mean.count
        ]
        cases = ", ".join(f"{case} ({why})" for case, why in lacking.items())
        line = f"{label} is in the truth and not in the prediction of {cases}"
        if counted:
            line += f"; these count: {', '.join(counted)}"
        if left_out:
            line += f"; not defined for them, and not counted: {', '.join(left_out)}"
        lines.append(line)
    return ["", *lines] if lines else []


def _mean(mean: Mean) -> str:
    return f"{_text(mean.value)} of {mean.count}"


def _counts(evaluation: Evaluation, figure: str) -> str:
    """Return of how many cases the means are that an overall figure is made of."""
    counts = [
        means[figure].count
        for means in evaluation.summary.labels.values()
        if figure in means and means[figure].count
    ]
    if not counts:
        return ""
    few, many = min(counts), max(counts)
    labels = f" in {len(counts)} labels" if len(evaluation.settings.members) > 1 else ""
    return f"of {few if few == many else f'{few} to {many}'}{labels}"


def _mean_over_labels(values: Sequence[float | None]) -> str:
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return _text(sum(defined) / len(defined)) if defined else "-"


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
