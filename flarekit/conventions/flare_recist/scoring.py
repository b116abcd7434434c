"""FLARE25, task 1: Dice (`dsc`) and surface Dice at 2 mm (`nsd`) of each lesion of each file.

The organisers' script for this task was not found. The figures are those of FLARE's other scripts
for lesions: tolerance, what is empty, no surface below a Dice of 0.2. As in the scripts of that
family every value of the truth counts, lesion by lesion, and values that only a prediction has do
not. Means are over lesions.
"""

from collections.abc import Sequence

import numpy as np

from flarekit.conventions._dsc_nsd import dsc_and_nsd
from flarekit.core.errors import UsageError
from flarekit.evaluation.masks import Mask
from flarekit.evaluation.scheme import Row, Settings, Summary, means_of
from flarekit.evaluation.surface import check_tables
from flarekit.evaluation.tolerances import TOLERANCES_MM

EDITIONS = ("25",)
_LESION = "lesion"
_LEAST_DSC = 0.2
_DIGITS = 4


def default_labels(edition: str) -> dict[str, tuple[int, ...]]:  # noqa: ARG001 - there is one
    """Return the only label, with all the numbers that a lesion may have."""
    return {_LESION: tuple(range(1, 256))}


def check(settings: Settings) -> None:
    """Check that there is one label, whose values are numbers of lesions.

    Raises:
        UsageError: there are more, or a package is missing.
    """
    check_tables()
    if len(settings.members) != 1:
        raise UsageError(
            f"FLARE25's task 1 scores lesions by their numbers, not {len(settings.members)} labels",
            fix="leave --labels out",
        )


def score(case_id: str, truth: Mask, predicted: Mask | None, settings: Settings) -> list[Row]:
    """Score a file: a row per lesion of the truth, one for a file without lesions."""
    ((name, values),) = settings.members.items()
    tolerance_mm = settings.tolerances_mm.get(name, TOLERANCES_MM[_LESION])
    there = np.intersect1d(np.unique(truth.values_ZYX), values).tolist()
    rows = []
    for value in there or values[:1]:
        row_id = case_id if len(there) < 2 else f"{case_id}[{value}]"  # noqa: PLR2004
        dsc, nsd = 0.0, 0.0
        if predicted is not None:
            found = predicted.values_ZYX == value if there else predicted.values_ZYX > 0
            dsc, nsd = dsc_and_nsd(
                truth.values_ZYX == value,
                found,
                truth.spacing_mm_XYZ.astype(np.float64),
                tolerance_mm,
                _LEAST_DSC,
            )
        figures = {"dsc": round(dsc, _DIGITS), "nsd": round(nsd, _DIGITS)}
        rows.append(Row(row_id=row_id, scores={name: figures}))
    return rows


def summarise(rows: Sequence[Row], settings: Settings) -> Summary:  # noqa: ARG001
    """Return means over lesions."""
    labels = means_of(rows, lambda values: round(float(np.mean(values)), _DIGITS))
    overall = {key: mean.value for means in labels.values() for key, mean in means.items()}
    return Summary(labels=labels, overall=overall)
