"""Every figure of the papers whose networks are here, per label.

DSC, NSD (FLARE23's attention U-Net, U-Mamba's data), recall (MambaClinix), accuracy, precision,
specificity, IoU, MCC (MPU-Net), RAVD, ASD, Hausdorff distance, AUC (Mamba-AHNet; where there are
probabilities), balanced accuracy, and the mean distance that Att-UMamba calls NSD (`assd_mm`).
docs/scores.md has the equation of each. Labels may be regions of several values. What is 0 / 0, and
a distance to a surface that is not there, is NaN and stays out of the means; a missing prediction
counts as an empty one.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.core.probabilities import probabilities_path, read_probabilities
from flarekit.evaluation.confusion import confusion, roc_auc
from flarekit.evaluation.masks import Mask
from flarekit.evaluation.scheme import Row, Settings, Summary, means_of
from flarekit.evaluation.surface import check_tables, surface_distances
from flarekit.evaluation.tolerances import TOLERANCES_MM

EDITIONS = ("1",)
_OVERLAPS = (
    "dice",
    "iou",
    "accuracy",
    "precision",
    "recall",
    "specificity",
    "mcc",
    "balanced_accuracy",
    "ravd",
)


def default_labels(edition: str) -> dict[str, int]:  # noqa: ARG001 - there is one edition
    """Return one lesion label."""
    return {"lesion": 1}


def check(settings: Settings) -> None:  # noqa: ARG001
    """Accept any labels.

    Raises:
        UsageError: a package is missing.
    """
    check_tables()


def score(case_id: str, truth: Mask, predicted: Mask | None, settings: Settings) -> list[Row]:
    """Score one case; `nsd` stands where a label has a tolerance, FLARE24's by default."""
    tolerances_mm = {**TOLERANCES_MM, **settings.tolerances_mm}
    probable = None
    if settings.probabilities is not None and predicted is not None:
        path = probabilities_path(settings.probabilities, case_id)
        probable = read_probabilities(path, truth.values_ZYX.shape)
    scores = {}
    for name, values in settings.members.items():
        in_truth = np.isin(truth.values_ZYX, values)
        in_predicted = (
            np.zeros_like(in_truth) if predicted is None else np.isin(predicted.values_ZYX, values)
        )
        counts = confusion(in_truth, in_predicted)
        distances = surface_distances(
            in_truth.T, in_predicted.T, truth.spacing_mm_XYZ.astype(np.float64)
        )
        figures = {key: float(getattr(counts, key)) for key in _OVERLAPS}
        if settings.probabilities is not None:
            figures["auc"] = math.nan if probable is None else _auc(*probable, values, in_truth)
        figures["asd_mm"] = distances.mean_to_truth_mm()
        figures["assd_mm"] = distances.mean_mm()
        figures["hd_mm"] = distances.hausdorff_mm()
        figures["hd95_mm"] = distances.hausdorff_mm(95)
        if name in tolerances_mm:
            figures["nsd"] = distances.dice_within(tolerances_mm[name])
        scores[name] = figures
    return [Row(row_id=case_id, scores=scores)]


def _auc(
    probabilities_KZYX: NDArray[np.float16],
    values_K: NDArray[np.uint8],
    values: Sequence[int],
    in_truth: NDArray[np.bool_],
) -> float:
    """Return the area under the ROC curve of a label; of a region, by the sum of its classes."""
    rows = np.flatnonzero(np.isin(values_K, values))
    summed = np.zeros(in_truth.shape, np.float32)
    for row in rows:
        summed += probabilities_KZYX[row]
    return roc_auc(summed.clip(0, 1).astype(np.float16), in_truth) if len(rows) else math.nan


def summarise(rows: Sequence[Row], settings: Settings) -> Summary:  # noqa: ARG001
    """Return means over cases, and the means of those over labels."""
    labels = means_of(rows, lambda values: float(np.mean(values)))
    by_figure: dict[str, list[float]] = {}
    for means in labels.values():
        for key, mean in means.items():
            if mean.count:
                by_figure.setdefault(key, []).append(mean.value)
    overall = {key: float(np.mean(values)) for key, values in by_figure.items()}
    return Summary(labels=labels, overall=overall)
