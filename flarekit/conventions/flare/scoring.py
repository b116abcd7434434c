"""FLARE: volumetric Dice (`dsc`) and surface Dice at each organ's tolerance (`nsd`).

Source: the evaluation scripts of JunMa11/FLARE (FLARE21 to FLARE24). They compare arrays in stored
order and round to four digits. The aorta, the inferior vena cava and the esophagus are compared on
the truth's slices only, of which the last is left out; where there is but one the scripts stop, and
the figure is NaN here. FLARE24's rules serve its successors too;
FLARE26's task 1 (`26`) scores lesions only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flarekit.conventions._dsc_nsd import dsc_and_nsd
from flarekit.core.errors import UsageError
from flarekit.evaluation.masks import Mask
from flarekit.evaluation.scheme import Row, Settings, Summary, means_of
from flarekit.evaluation.surface import check_tables
from flarekit.evaluation.tolerances import TOLERANCES_MM

EDITIONS = ("21", "22", "23", "26", "24")  # the default last
_FLARE21 = {"liver": 1.0, "kidneys": 1.0, "spleen": 1.0, "pancreas": 1.0}
_LESION = "lesion"
_ON_TRUE_SLICES = {"aorta", "inferior_vena_cava", "esophagus"}
_LEAST_DSC = {
    "21": 0.0,
    "22": 0.0,
    "23": 0.1,
    "24": 0.2,
    "26": 0.2,
}  # below it the surfaces are not compared
_DIGITS = 4
_ABSENT = {"dsc": 0.0, "nsd": 0.0}


def default_labels(edition: str) -> dict[str, int]:
    """Return the edition's labels: of FLARE22 and 24 the thirteen organs, of 26 the lesion."""
    if edition == "26":
        return {_LESION: 1}
    names = _FLARE21 if edition == "21" else TOLERANCES_MM
    labels = {name: value for value, name in enumerate(names, 1)}
    if edition in ("22", "24"):
        del labels[_LESION]
    return labels


def check(settings: Settings) -> None:
    """Check that every label has a tolerance.

    Raises:
        UsageError: one has none, or a package is missing.
    """
    check_tables()
    known = _tolerances_mm(settings)
    unknown = [name for name in settings.labels if name not in known]
    if unknown:
        raise UsageError(
            f"FLARE{settings.edition} has no surface tolerance for {', '.join(unknown)}",
            fix=f"add --tolerance {unknown[0]}=MM, or name the labels as FLARE does: "
            f"{', '.join(known)}",
        )


def score(case_id: str, truth: Mask, predicted: Mask | None, settings: Settings) -> list[Row]:
    """Score one case; a missing prediction scores 0 for every label."""
    if predicted is None or _has_foreign_label(predicted, settings):
        return [Row(row_id=case_id, scores=dict.fromkeys(settings.labels, _ABSENT))]
    tolerances_mm = _tolerances_mm(settings)
    scores = {}
    for name, value in settings.labels.items():
        dsc, nsd = dsc_and_nsd(
            truth.values_ZYX == value,
            predicted.values_ZYX == value,
            truth.spacing_mm_XYZ.astype(np.float64),
            tolerances_mm[name],
            _LEAST_DSC[settings.edition],
            on_true_slices=name in _ON_TRUE_SLICES and settings.edition != "21",
        )
        scores[name] = {"dsc": _rounded(dsc, settings), "nsd": _rounded(nsd, settings)}
    return [Row(row_id=case_id, scores=scores)]


def summarise(rows: Sequence[Row], settings: Settings) -> Summary:
    """Return means over cases, rounded, and the means of those over the organs (FLARE23's)."""
    labels = means_of(rows, lambda values: _rounded(np.mean(values), settings))
    organs = [name for name in labels if name != _LESION] or list(labels)
    overall = {
        key: _rounded(np.mean([labels[name][key].value for name in organs]), settings)
        for key in ("dsc", "nsd")
        if organs
    }
    return Summary(labels=labels, overall=overall)


def _tolerances_mm(settings: Settings) -> dict[str, float]:
    own = _FLARE21 if settings.edition == "21" else TOLERANCES_MM
    return {**own, **settings.tolerances_mm}


def _has_foreign_label(predicted: Mask, settings: Settings) -> bool:
    """Return whether task 1 of FLARE24 and 26, lesions only, refuses a mask for a value."""
    lesions_only = settings.edition in ("24", "26") and dict(settings.labels) == {_LESION: 1}
    return lesions_only and bool((predicted.values_ZYX > 1).any())


def _rounded(value: float | np.floating[Any], settings: Settings) -> float:
    if settings.edition == "21":
        return float(value)
    return float(np.round(np.float64(value), _DIGITS))
