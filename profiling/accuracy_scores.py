"""What a predictor's masks come to: Dice, surface Dice, and its organiser's own figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_bodies import largest_false_ml, worst_of
from accuracy_cases import Trial

from flarekit import conventions
from flarekit.core.errors import InputError
from flarekit.evaluation.confusion import dice_per_label
from flarekit.evaluation.evaluate import Evaluation, evaluate
from flarekit.evaluation.masks import Mask, Pair, find_pairs, read_mask
from flarekit.evaluation.results import as_dict
from flarekit.evaluation.scheme import Settings
from flarekit.evaluation.tolerances import TOLERANCES_MM

_EDITIONS = {"flare": "22", "autopet": "5", "uls23": "23"}
_LESION_EDITION = "24"  # of FLARE: the first with a tolerance for lesions alone


def score(trial: Trial, masks: Path, convention: str, labels: Mapping[str, int]) -> dict[str, Any]:
    """Score masks against their truths.

    Returns:
        `mean`, `labels`, `cases`: Dice of whole volumes; `nsd`: likewise FLARE's surface Dice at
        its tolerances; under the convention's name: its evaluator's figures; `groups`: means where
        the cases are of several sources; `false_positives_ml`: the largest in each organ, where
        those are known.

    Raises:
        InputError: a mask is missing or does not fit its truth.
    """
    pairs, _ = find_pairs(masks, trial.truths)
    official = _evaluated(pairs, convention, labels)
    result = _dice(pairs, official, convention, labels)
    if not trial.organs:
        result["nsd"] = _nsd(pairs, official, convention, labels)
    result[convention] = _official(official)
    if len(set(trial.groups.values())) > 1:
        result["groups"] = _by_group(result["cases"], trial.groups)
    if trial.organs:
        found = {pair.case_id: _false_positives(pair, trial) for pair in pairs}
        result["false_positives_ml"] = {"largest": worst_of(found), "cases": found}
    return result


def worst_case(result: Mapping[str, Any]) -> str:
    """Return the case with the largest false positive; of equal ones that with the lowest Dice."""
    cases: Mapping[str, Mapping[str, float | None]] = result["cases"]
    false: Mapping[str, Mapping[str, float]] = result.get("false_positives_ml", {}).get("cases", {})

    def badness(case: str) -> tuple[float, float, str]:
        dice = [value for value in cases[case].values() if value is not None]
        largest = max(false[case].values()) if false else 0.0
        return -largest, float(np.mean(dice)) if dice else 1.0, case

    return min(cases, key=badness)


def _evaluated(pairs: list[Pair], scheme: str, labels: Mapping[str, int]) -> Evaluation:
    edition = _LESION_EDITION if scheme == "flare" and "lesion" in labels else _EDITIONS[scheme]
    evaluation = evaluate(
        pairs, conventions.scheme_of(scheme), Settings(edition=edition, labels=labels)
    )
    for case in evaluation.faulty:
        raise InputError(f"{case.case_id}: {case.error}", fix=case.fix or "see above")
    return evaluation


def _dice(
    pairs: list[Pair], official: Evaluation, convention: str, labels: Mapping[str, int]
) -> dict[str, Any]:
    if convention == "autopet":  # not defined where the truth has no lesion
        return _averaged(_figure(official, "dice"), labels)
    cases = {}
    for pair in pairs:
        predicted, truth = _masks(pair)
        cases[pair.case_id] = dice_per_label(predicted.values_ZYX, truth.values_ZYX, labels)
    return _averaged(cases, labels)


def _nsd(
    pairs: list[Pair], official: Evaluation, convention: str, labels: Mapping[str, int]
) -> dict[str, Any]:
    flare = official if convention == "flare" else _evaluated(pairs, "flare", labels)
    return {
        "tolerances_mm": {name: TOLERANCES_MM[name] for name in labels},
        **_averaged(_figure(flare, "nsd"), labels),
    }


def _figure(evaluation: Evaluation, figure: str) -> dict[str, dict[str, float]]:
    return {
        row.row_id: {label: figures[figure] for label, figures in row.scores.items()}
        for case in evaluation.cases
        for row in case.rows
    }


def _masks(pair: Pair) -> tuple[Mask, Mask]:
    if pair.predicted is None:
        raise InputError(f"{pair.case_id}: no mask", fix="run the predictor again")
    return read_mask(pair.predicted), read_mask(pair.truth)


def _averaged(
    cases: Mapping[str, Mapping[str, float]], labels: Mapping[str, int]
) -> dict[str, Any]:
    rounded = {case: _rounded(scores, 4) for case, scores in cases.items()}
    per_label = {name: _mean([scores[name] for scores in rounded.values()]) for name in labels}
    return {"mean": _mean(list(per_label.values())), "labels": per_label, "cases": rounded}


def _official(evaluation: Evaluation) -> dict[str, Any]:
    """Return an organiser's figures per case and over all."""
    whole = as_dict(evaluation)
    return {
        "edition": whole["edition"],
        "overall": _rounded(whole["overall"], 4),
        "labels": {
            label: {figure: _number(mean["value"], 4) for figure, mean in means.items()}
            for label, means in whole["means"].items()
        },
        "cases": {
            row["row"]: {label: _rounded(figures, 4) for label, figures in row["scores"].items()}
            for case in whole["cases"]
            for row in case["rows"]
        },
    }


def _by_group(
    cases: Mapping[str, Mapping[str, float | None]], groups: Mapping[str, str]
) -> dict[str, float | None]:
    values: dict[str, list[float | None]] = {}
    for case, scores in cases.items():
        values.setdefault(groups[case], []).extend(scores.values())
    return {group: _mean(each) for group, each in values.items()}


def _false_positives(pair: Pair, trial: Trial) -> dict[str, float]:
    predicted, truth = _masks(pair)
    z, y, x = (float(mm) for mm in reversed(truth.spacing_mm_XYZ))
    found = largest_false_ml(
        predicted.values_ZYX > 0, truth.values_ZYX > 0, trial.organs[pair.case_id], (z, y, x)
    )
    return {name: round(ml, 3) for name, ml in found.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is defined."""
    defined = [value for value in values if value is not None]
    return _number(float(np.mean(defined)), 4) if defined else None


def _rounded(values: Mapping[str, float | None], digits: int) -> dict[str, Any]:
    return {name: _number(value, digits) for name, value in values.items()}


def _number(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
