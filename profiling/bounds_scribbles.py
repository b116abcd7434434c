"""How far five scribbles could bring a predictor's masks, if each were used perfectly.

    python profiling/bounds_scribbles.py att_umamba_petct --dataset DATASET --play validation

Cases are played as `fit_scribbles.py` plays them, by players who put right, of the present mask,
every voxel within so many mm of the scribble, or all of the error component that it lies on.
Others know the truth of a whole lesion, and may choose one number for it: the probability, or the
distance from the mask's border, from which on it is a lesion; or a logistic function of both, of
the uptake, and of their squares. They show what a rule can gain that moves all of a lesion's border
as one feature tells. --quick: one case.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from accuracy_cases import Array
from fit_scribbles import (
    SPLITS,
    STRIDE,
    Crop,
    Player,
    crops,
    curve_of,
    dice,
    put_right,
    said,
    scribbles_of,
)
from measured import bare_parser, write
from numpy.typing import NDArray

from flarekit.core.errors import FlarekitError
from flarekit.evaluation.scribbles import KINDS, Marks
from flarekit.postprocess._scribbles import signed_distance_mm

WITHIN_MM = (10.0, 12.0, 14.0, 16.0, 20.0)
AROUND_MM = 20.0  # of a border, where a number chosen for a lesion may change its mask
NEWTON_STEPS = 10


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = bare_parser(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--dataset", type=Path, required=True, help="nnU-Net raw layout")
    parser.add_argument("--play", choices=SPLITS, default="validation", help="which cases")
    parser.add_argument("--output", type=Path, help="a JSON file with the mean Dice of every step")
    parser.add_argument("--quick", action="store_true", help="one case")
    return parser.parse_args(line)


def whole_component(crop: Crop, mask: Array, marks: Marks) -> Array:
    """Return the mask without the error components that the marks lie on."""
    wrong = mask != crop.truth_ZYX
    numbered = cc3d.connected_components(np.where(wrong, 1 + mask, 0), connectivity=26)
    hit = np.unique([numbered[tuple(place)] for places in marks.values() for place in places])
    return np.where(np.isin(numbered, hit[hit > 0]), crop.truth_ZYX, mask)


def within(reach_mm: float) -> Player:
    return lambda crop, _, marks: put_right(crop, scribbles_of(marks), reach_mm)


def logistic(features: NDArray[np.float64], truth: Array) -> Array:
    """Return what a logistic function of features says that was fitted to the truth."""
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    inputs = np.concatenate([scaled, scaled**2, np.ones((len(scaled), 1))], axis=1)
    weights = np.zeros(inputs.shape[1])
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        spread = inputs * (probability * (1 - probability))[:, None]
        slope = inputs.T @ (truth - probability)
        weights += np.linalg.solve(inputs.T @ spread + 1e-2 * np.eye(len(weights)), slope)
    return np.asarray(inputs @ weights > 0)


def of_one_number(crop: Crop) -> dict[str, float]:
    """Return the Dice of masks for which something was chosen for the whole lesion."""
    assert crop.probability_ZYX is not None
    truth, away_mm = crop.truth_ZYX, signed_distance_mm(crop.mask_ZYX, crop.spacing_mm)
    odds = np.clip(crop.probability_ZYX, 1e-4, 1 - 1e-4)
    logit = np.log(odds / (1 - odds))
    around = np.abs(away_mm) <= AROUND_MM
    uptake = np.log(np.maximum(crop.uptake_ZYX, 0) + 0.1)
    fitted = crop.mask_ZYX.copy()
    features = np.stack([logit, away_mm / 10, uptake], axis=-1)[around].astype(np.float64)
    fitted[around] = logistic(features, truth[around])
    near = away_mm <= AROUND_MM
    return {
        "no scribble": dice(crop.mask_ZYX, truth),
        "best probability": max(dice((logit > each) & near, truth) for each in np.arange(-6, 6.5)),
        "best distance": max(dice(away_mm <= each, truth) for each in np.arange(-10, 15.5)),
        "best logistic function": dice(fitted, truth),
    }


def bounds(cases: Sequence[Crop]) -> dict[str, Any]:
    """Return the mean Dice of every step of every player, and of what was chosen for lesions."""
    players: dict[str, Player] = {f"within {each:g} mm": within(each) for each in WITHIN_MM}
    players["whole component"] = whole_component
    steps = {}
    for name, player in players.items():
        curves = np.array([curve_of(crop, kind, player) for crop, kind in product(cases, KINDS)])
        print(f"{name}: {said(curves)}")
        steps[name] = curves.mean(axis=0).round(4).tolist()
    chosen = [of_one_number(crop) for crop in cases]
    first = float(np.mean([each["no scribble"] for each in chosen]))
    lesions = {name: float(np.mean([each[name] for each in chosen])) for name in chosen[0]}
    for name, mean in lesions.items():
        print(f"{name}: {mean:.3f}, {(mean - first) / (1 - first):.0%} of the way to 1")
    return {"steps": steps, "of a whole lesion": {k: round(v, 4) for k, v in lesions.items()}}


def main(line: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(line)
    try:
        found = bounds(list(crops(arguments, STRIDE)))
    except FlarekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.output is not None:
        write(arguments.output, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
