"""ULS23: Dice, errors of the long and the short axis, consistency, and the ChallengeScore.

Source: evaluation/evaluation.py and misc.py of DIAGNijmegen/ULS23. A file of 128 x 256 x 256
volumes stacked along Z is scored volume by volume, any other file as one volume. Where the folder
of the truth holds the organiser's `single_sample.json` only the volumes it names are scored; with
`multi_sample.json` and `stacked_spacing.json` the masks of one lesion seen from several clicks are
compared (`consistency`). Without them there is no ChallengeScore, but the same sum without its last
term, over 0.9. A missing stack counts as an empty one.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError
from flarekit.evaluation.confusion import confusion
from flarekit.evaluation.diameters import axis_diameters, symmetric_error
from flarekit.evaluation.masks import Mask
from flarekit.evaluation.scheme import Row, Settings, Summary, check_one_label, means_of

EDITIONS = ("23",)
_DEPTH = 128
_PLANE = (256, 256)
_WEIGHTS = {"dice": 0.8, "long_axis_error": 0.05, "short_axis_error": 0.05, "consistency": 0.1}


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Two volumes of one lesion: their places in the stack, and the way from one to the other.

    Attributes:
        shift_mm_XYZ: as `multi_sample.json` states it, from the second to the first.
    """

    one: int
    other: int
    shift_mm_XYZ: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What the organiser's JSON files say of a stack; None where there is no such file."""

    scored: tuple[int, ...] | None
    lesions: tuple[tuple[_Comparison, ...], ...]
    spacings_mm_XYZ: tuple[tuple[float, float, float], ...]


def default_labels(edition: str) -> dict[str, int]:  # noqa: ARG001 - there is one edition
    """Return the only label that is scored."""
    return {"lesion": 1}


def check(settings: Settings) -> None:
    """Check that there is one label.

    Raises:
        UsageError: there are more.
    """
    check_one_label(settings, "ULS23")


def score(case_id: str, truth: Mask, predicted: Mask | None, settings: Settings) -> list[Row]:
    """Score a stack: a row per volume, then one per lesion with several volumes.

    Raises:
        InputError: the organiser's JSON files do not fit the stack.
    """
    ((name, value),) = settings.labels.items()
    layout = _read_layout(truth.path.parent)
    truths = _volumes(truth.values_ZYX, layout)
    predictions = None if predicted is None else _volumes(predicted.values_ZYX, layout)
    scored = range(len(truths)) if layout.scored is None else layout.scored
    _check_places(truth.path.parent, layout, len(truths))
    rows = []
    for place in scored:
        row_id = case_id if len(truths) == 1 else f"{case_id}[{place}]"
        in_truth = truths[place] == value
        in_predicted = (
            np.zeros_like(in_truth) if predictions is None else predictions[place] == value
        )
        rows.append(Row(row_id=row_id, scores={name: _score_volume(in_truth, in_predicted)}))
    for number, comparisons in enumerate(layout.lesions):
        consistency = (
            0.0 if predictions is None else _consistency(predictions, value, comparisons, layout)
        )
        row_id = f"{case_id} samples[{number}]"
        rows.append(Row(row_id=row_id, scores={name: {"consistency": consistency}}))
    return rows


def summarise(rows: Sequence[Row], settings: Settings) -> Summary:
    """Return means over volumes and the ChallengeScore."""
    labels = means_of(rows, lambda values: float(statistics.mean(values)))
    (name,) = settings.labels
    overall = {key: mean.value for key, mean in labels.get(name, {}).items()}
    if not overall:
        return Summary(labels=labels, overall=overall)
    terms = {
        key: overall[key] if key in ("dice", "consistency") else 1 - min(1.0, overall[key])
        for key in _WEIGHTS
        if key in overall
    }
    total = 0.0
    for key, term in terms.items():
        total += _WEIGHTS[key] * term
    if "consistency" in terms:
        overall["challenge_score"] = total
    else:
        overall["score_without_consistency"] = total / (1 - _WEIGHTS["consistency"])
    return Summary(labels=labels, overall=overall)


def _score_volume(
    truth_ZYX: NDArray[np.bool_], predicted_ZYX: NDArray[np.bool_]
) -> dict[str, float]:
    true_axes, predicted_axes = axis_diameters(truth_ZYX), axis_diameters(predicted_ZYX)
    return {
        "dice": _dice(truth_ZYX, predicted_ZYX),
        "long_axis_error": symmetric_error(true_axes[0], predicted_axes[0]),
        "short_axis_error": symmetric_error(true_axes[1], predicted_axes[1]),
    }


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    dice = confusion(one, other).dice
    return 0.0 if math.isnan(dice) else dice


def _volumes(values_ZYX: NDArray[np.uint8], layout: _Layout) -> NDArray[np.uint8]:
    """Return (volumes, Z, Y, X), a view."""
    depth, *plane = values_ZYX.shape
    stacked = tuple(plane) == _PLANE or layout.scored is not None
    if not stacked or depth % _DEPTH:
        return values_ZYX[None]
    return values_ZYX.reshape(-1, _DEPTH, *plane)


def _consistency(
    volumes: NDArray[np.uint8],
    value: int,
    comparisons: Sequence[_Comparison],
    layout: _Layout,
) -> float:
    """Return the mean Dice of a lesion's masks, two by two, aligned; an empty one counts 0."""
    total = 0.0
    for comparison in comparisons:
        one, other = volumes[comparison.one] == value, volumes[comparison.other] == value
        if one.any() and other.any():
            spacing_mm_XYZ = layout.spacings_mm_XYZ[comparison.one]
            x, y, z = (
                int(shift // step)
                for shift, step in zip(comparison.shift_mm_XYZ, spacing_mm_XYZ, strict=True)
            )
            total += _dice(one, _moved(other, (z, -y, -x)))
    return total / len(comparisons)


def _moved(mask_ZYX: NDArray[np.bool_], by_ZYX: Sequence[int]) -> NDArray[np.bool_]:
    """Return the mask moved by whole voxels; what comes in repeats the border."""
    for axis, by in enumerate(by_ZYX):
        length = mask_ZYX.shape[axis]
        mask_ZYX = mask_ZYX.take(np.clip(np.arange(length) - by, 0, length - 1), axis)
    return mask_ZYX


def _read_layout(folder: Path) -> _Layout:
    scored = _read_json(folder / "single_sample.json")
    lesions = _read_json(folder / "multi_sample.json")
    spacings = _read_json(folder / "stacked_spacing.json")
    if lesions is not None and spacings is None:
        raise InputError(
            f"{folder}: multi_sample.json needs stacked_spacing.json beside it", fix="add that file"
        )
    try:
        return _Layout(
            scored=None if scored is None else tuple(int(place) for place in scored),
            lesions=tuple(
                tuple(
                    _Comparison(one=int(one), other=int(other), shift_mm_XYZ=_three(shift))
                    for one, other, shift in lesion
                )
                for lesion in lesions or ()
            ),
            spacings_mm_XYZ=tuple(_three(spacing) for spacing in spacings or ()),
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: its single_sample, multi_sample or stacked_spacing.json is not as ULS23's "
            f"({error})",
            fix="see evaluation/ground-truth in the ULS23 repository",
        ) from error


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _read_json(path: Path) -> list[Any] | None:
    if not path.is_file():
        return None
    try:
        content: list[Any] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})", fix="correct that file") from error
    return content


def _check_places(folder: Path, layout: _Layout, count: int) -> None:
    named = {
        each for lesion in layout.lesions for pair in lesion for each in (pair.one, pair.other)
    }
    spaced = len(layout.spacings_mm_XYZ) if layout.lesions else count
    wrong = [place for place in (*(layout.scored or ()), *named) if not 0 <= place < count]
    if wrong or spaced < count or any(len(lesion) == 0 for lesion in layout.lesions):
        raise InputError(
            f"{folder}: its JSON files describe another stack than one of {count} volumes",
            fix="put the stack and its JSON files together",
        )
