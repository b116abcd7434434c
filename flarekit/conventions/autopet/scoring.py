"""autoPET: Dice, volumes of false positive and false negative lesions, and lesion F1.

Source: val_script.py of lab-midas/autoPET (editions 1, 2), evaluation_metrics.py of
ClinicalDataScience/autoPETIII (3) and lab-midas/autoPETCTIV (4), metrics.py of autoPET V (5).
A lesion is a component of 18-connected voxels. From edition 3 on, Dice and the missed volume are
not defined where the truth is empty and stay out of the means.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.evaluation.confusion import confusion
from flarekit.evaluation.lesions import LesionMatch, f1_of, match_lesions
from flarekit.evaluation.masks import Mask
from flarekit.evaluation.scheme import Row, Settings, Summary, check_one_label, means_of

EDITIONS = ("1", "2", "3", "4", "5")
_SUMMED = ("found", "spurious", "missed")


def default_labels(edition: str) -> dict[str, int]:  # noqa: ARG001 - the same for all
    """Return the only label that is scored."""
    return {"lesion": 1}


def check(settings: Settings) -> None:
    """Check that there is one label.

    Raises:
        UsageError: there are more.
    """
    check_one_label(settings, "autoPET")


def score(case_id: str, truth: Mask, predicted: Mask | None, settings: Settings) -> list[Row]:
    """Score one case; a missing prediction has Dice and F1 0 and misses every lesion."""
    ((name, value),) = settings.labels.items()
    in_truth = truth.values_ZYX == value
    in_predicted = np.zeros_like(in_truth) if predicted is None else predicted.values_ZYX == value
    match = match_lesions(in_truth, in_predicted)
    figures = _volumes(in_truth, in_predicted, match, truth.voxel_ml, settings.edition)
    if settings.edition == "5":
        figures["f1"] = f1_of(match.found, match.spurious, match.missed)
        figures |= {key: float(getattr(match, key)) for key in _SUMMED}
    if predicted is None:
        figures |= {key: 0.0 for key in ("dice", "f1") if key in figures}
    return [Row(row_id=case_id, scores={name: figures})]


def summarise(rows: Sequence[Row], settings: Settings) -> Summary:
    """Return means over cases; of the lesions' counts the sums, and the F1 of those (edition 5)."""
    labels = means_of(rows, lambda values: float(np.mean(values)))
    overall = {}
    for means in labels.values():
        overall = {key: mean.value for key, mean in means.items() if key not in _SUMMED}
    if settings.edition == "5":
        (name,) = settings.labels
        totals = {key: sum(int(row.scores[name][key]) for row in rows) for key in _SUMMED}
        overall["f1_aggregated"] = f1_of(**totals)
        overall |= {f"lesions_{key}": float(total) for key, total in totals.items()}
    return Summary(labels=labels, overall=overall)


def _volumes(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    match: LesionMatch,
    voxel_ml: float,
    edition: str,
) -> dict[str, float]:
    dice = confusion(truth, predicted).dice
    missed_ml = match.missed_voxels * voxel_ml
    if edition not in ("1", "2") and not truth.any():
        dice = missed_ml = math.nan
    return {"dice": dice, "fpv_ml": match.spurious_voxels * voxel_ml, "fnv_ml": missed_ml}
