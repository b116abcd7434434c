"""Fit the network that moves a lesion's border by scribbles (flarekit/postprocess/_border.json).

    python profiling/fit_scribbles.py att_umamba_petct --dataset DATASET --output _border.json

Masks of the predictor in its training cases of DATASET (those that its recipe holds out are left
out) are played as autoPET V's organiser does: five scribbles of each kind on the largest error.
Rounds follow each other: each plays with the network of the round before, so that it learns from
the errors that it leaves. With --folds, networks are fitted without a part of the cases and play
on that part, which is what a new case can expect; the last one is fitted to all. --quick: one case.

    python profiling/fit_scribbles.py att_umamba_petct --dataset DATASET --play held_out

fits nothing, and plays cases by the rule `clicks` as it is, each with every kind of scribble.
How far any rule could go, `bounds_scribbles.py` shows.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_cases import Array, Spacing, petct_of
from measured import bare_parser, write
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

import flarekit
from flarekit.core.errors import FlarekitError, InputError
from flarekit.core.spec import Rule
from flarekit.evaluation.scribbles import (
    KINDS,
    TUMOR,
    Kind,
    Marks,
    added,
    corrective_scribble,
    no_marks,
)
from flarekit.postprocess import Scan, apply_rules
from flarekit.postprocess._border import BorderNetwork, Scribble, border_features
from flarekit.postprocess._scribbles import moved, rows_in, surroundings
from flarekit.segmentation.predictors import find_predictor
from flarekit.training.cases import case_ids
from flarekit.training.recipe import read_recipe

SPLITS = ("training", "validation", "held_out")
STEPS = 5
STRIDE = 2  # voxels in plane that are left out: distances in mm are the same
SAMPLES = 600  # voxels of each call that the network learns from
HIDDEN = (32, 16)
SMALL = 0.4  # of their size: a second copy of each case, as crops show large lesions only
CLICKS = 0.1  # of the scribbles are but one voxel
RIGHT_MM = 12.0  # from a scribble, before there is a network
EPOCHS, BATCH, RATE, DECAY = 8, 2048, 6e-3, 1e-3
Player = Callable[["Crop", Array, Marks], Array]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A case and the predictor's mask of it; `probability_ZYX` is that of a lesion."""

    case_id: str
    mask_ZYX: Array
    truth_ZYX: Array
    uptake_ZYX: Array
    spacing_mm: Spacing
    probability_ZYX: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one call showed of some voxels; weights are shares of the lesions' volume."""

    case_id: str
    features: NDArray[np.float32]
    truth: Array
    weights: Array


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = bare_parser(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--dataset", type=Path, required=True, help="nnU-Net raw layout")
    parser.add_argument("--output", type=Path, help="where the network is written")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--folds", type=int, default=3, help="0 for none")
    parser.add_argument("--play", choices=SPLITS, help="fit nothing")
    parser.add_argument("--quick", action="store_true", help="one case, one round")
    return parser.parse_args(line)


def crops(arguments: argparse.Namespace, stride: int) -> Iterator[Crop]:
    """Yield the cases of a split (training where none is named) with the predictor's masks."""
    predictor = find_predictor(arguments.predictor)
    facts = read_recipe(predictor.folder / "recipe.toml").training
    apart = {"held_out": facts.held_out, "validation": facts.validation}
    known = case_ids(arguments.dataset)
    ids = [each for each in known if each not in {*facts.held_out, *facts.validation}]
    if arguments.play in apart:
        ids = [each for each in known if each in apart[arguments.play]]
    with flarekit.load(predictor.folder, device="cpu") as segmenter:
        for case_id in ids[: 1 if arguments.quick else None]:
            channels, truth, spacing_mm = petct_of(arguments.dataset, case_id)
            stacked = np.stack(channels).astype(np.float32)
            result = segmenter.segment(stacked, spacing_mm=spacing_mm, probabilities=True)
            assert result.probabilities is not None
            mask = np.asarray(result.labels) > 0
            if mask.any():
                z, y, x = spacing_mm
                yield Crop(
                    case_id=case_id,
                    mask_ZYX=mask[:, ::stride, ::stride],
                    truth_ZYX=truth[:, ::stride, ::stride],
                    uptake_ZYX=stacked[1][:, ::stride, ::stride],
                    spacing_mm=(z, stride * y, stride * x),
                    probability_ZYX=result.probabilities[1][:, ::stride, ::stride],
                )


def dice(one: Array, other: Array) -> float:
    return 2 * int((one & other).sum()) / int(one.sum() + other.sum())


def scribbles_of(marks: Marks) -> list[Scribble]:
    return [
        Scribble(places_ZYX=row, outwards=name == TUMOR)
        for name, places in marks.items()
        for row in rows_in(places)
    ]


def sampled(crop: Crop, scribbles: Sequence[Scribble], rng: np.random.Generator) -> Sample | None:
    """Return what voxels that a call may change show; None where it may change none."""
    around = surroundings(crop.mask_ZYX, scribbles, crop.spacing_mm)
    if around is None:
        return None
    places = np.argwhere(around.changeable)
    share = len(places) / SAMPLES
    places = places[rng.choice(len(places), SAMPLES)]
    return Sample(
        case_id=crop.case_id,
        features=border_features(places, around.scribbles, around.away_mm, crop.spacing_mm),
        truth=crop.truth_ZYX[around.box][tuple(places.T)],
        weights=np.full(SAMPLES, share / crop.truth_ZYX.sum()),
    )


def put_right(crop: Crop, scribbles: Sequence[Scribble], within_mm: float = RIGHT_MM) -> Array:
    """Return the mask as somebody would have it who puts right what is near the scribbles."""
    blank = np.ones(crop.mask_ZYX.shape, bool)
    for scribble in scribbles:
        blank[tuple(scribble.places_ZYX.T)] = False
    near = distance_transform_edt(blank, sampling=crop.spacing_mm) <= within_mm
    return np.where(near, crop.truth_ZYX, crop.mask_ZYX)


def played(
    cases: Sequence[Crop],
    network_of: Callable[[str], BorderNetwork | None],
    seed: int,
    kinds: Callable[[int], Sequence[Kind]],
) -> tuple[list[Sample], NDArray[np.float64]]:
    """Play cases, and return what the calls showed and the curves of Dice."""
    seen, curves = [], []
    for number, crop in enumerate(cases):
        network = network_of(crop.case_id)
        for kind in kinds(number):
            rng = np.random.default_rng([seed, zlib.crc32(f"{crop.case_id}{kind}".encode())])
            marks, mask = no_marks(), crop.mask_ZYX
            curve = [dice(mask, crop.truth_ZYX)]
            for _ in range(STEPS):
                scribble = corrective_scribble(crop.truth_ZYX, mask, kind, rng)
                if scribble is not None:
                    name, places = scribble
                    if rng.random() < CLICKS:
                        places = places[rng.integers(len(places))][None]
                    marks = added(marks, name, places)
                    drawn = scribbles_of(marks)
                    sample = sampled(crop, drawn, rng)
                    seen += [] if sample is None else [sample]
                    if network is None:
                        mask = put_right(crop, drawn)
                    else:
                        mask = moved(crop.mask_ZYX, drawn, crop.spacing_mm, network)
                curve.append(dice(mask, crop.truth_ZYX))
            curves.append(curve)
    return seen, np.array(curves)


def curve_of(crop: Crop, kind: Kind, player: Player) -> list[float]:
    """Return the Dice before and after each scribble of a kind, drawn as the organiser draws it.

    Args:
        crop: whose mask is corrected.
        kind: of the scribbles.
        player: makes the next mask of the present one and all scribbles so far.
    """
    rng = np.random.default_rng([0, zlib.crc32(f"{crop.case_id}{kind}".encode())])
    marks, mask = no_marks(), crop.mask_ZYX
    curve = [dice(mask, crop.truth_ZYX)]
    for _ in range(STEPS):
        scribble = corrective_scribble(crop.truth_ZYX, mask, kind, rng)
        if scribble is not None:
            marks = added(marks, *scribble)
            mask = player(crop, mask, marks)
        curve.append(dice(mask, crop.truth_ZYX))
    return curve


def by_the_rule(cases: Sequence[Crop]) -> dict[str, Any]:
    """Play cases by the rule `clicks` with each kind, and return the curves of Dice."""
    rule = Rule(name="clicks", labels=("lesion",), value=0.41)
    dices: dict[str, dict[str, list[float]]] = {}
    slowest_s = 0.0

    def corrected(crop: Crop, _: Array, marks: Marks) -> Array:
        nonlocal slowest_s
        began = time.process_time()
        scan = Scan(
            spacing_mm_ZYX=crop.spacing_mm, channels={"PET": crop.uptake_ZYX}, points=dict(marks)
        )
        labels = crop.mask_ZYX.astype(np.uint8)
        mask = apply_rules(labels, [rule], {"lesion": 1}, voxel_ml=1.0, scan=scan) > 0
        slowest_s = max(slowest_s, time.process_time() - began)
        return mask

    for kind, crop in product(KINDS, cases):
        curve = curve_of(crop, kind, corrected)
        dices.setdefault(kind, {})[crop.case_id] = [round(each, 4) for each in curve]
    curves = np.array([list(each.values()) for each in dices.values()])
    words = {kind: f"{kind}: {said(own)}" for kind, own in zip(dices, curves, strict=True)}
    words["all"] = f"all: {said(curves.reshape(-1, STEPS + 1))}"
    words["slowest"] = f"slowest call of the rule: {slowest_s:.1f} s of processor time"
    return {"said": words, "dice": dices}


def fitted(samples: Sequence[Sample], seed: int = 0) -> BorderNetwork:
    """Fit the network: cross-entropy, each voxel by its share of its lesion's volume."""
    import torch

    torch.manual_seed(seed)
    features = torch.from_numpy(np.concatenate([sample.features for sample in samples]))
    truth = torch.from_numpy(np.concatenate([sample.truth for sample in samples])).float()
    weights = torch.from_numpy(np.concatenate([sample.weights for sample in samples])).float()
    weights = weights / weights.mean()
    sizes = (features.shape[1], *HIDDEN, 1)
    layers = [torch.nn.Linear(one, other) for one, other in pairwise(sizes)]
    network = torch.nn.Sequential(*(part for each in layers for part in (each, torch.nn.ReLU())))
    steps = EPOCHS * len(truth) // BATCH
    optimiser = torch.optim.AdamW(network[:-1].parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(truth), (BATCH,))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            network[:-1](features[chosen])[:, 0], truth[chosen], weight=weights[chosen]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return BorderNetwork(
        tuple(
            (each.weight.detach().numpy().T.copy(), each.bias.detach().numpy().copy())
            for each in layers
        )
    )


def _scaled(spacing_mm: Spacing) -> Spacing:
    z, y, x = spacing_mm
    return SMALL * z, SMALL * y, SMALL * x


def said(curves: NDArray[np.float64]) -> str:
    mean = curves.mean(axis=0)
    way = (mean[-1] - mean[0]) / (1 - mean[0])
    return f"Dice {' '.join(f'{each:.3f}' for each in mean)}, {way:.0%} of the way to 1"


def fit(
    cases: Sequence[Crop], rounds: int, folds: int
) -> tuple[BorderNetwork, list[dict[str, Any]]]:
    """Play and fit in turns, and return the network of all cases and the curves of each round."""
    fold_of = {crop.case_id: number % max(1, folds) for number, crop in enumerate(cases)}
    small = [replace(crop, spacing_mm=_scaled(crop.spacing_mm)) for crop in cases]
    seen, curves = played(cases, lambda _: None, 0, lambda _: KINDS)
    print(f"put right within {RIGHT_MM:g} mm of scribbles: {said(curves)}", file=sys.stderr)
    seen += played(small, lambda _: None, 0, lambda number: [KINDS[number % len(KINDS)]])[0]
    history = []
    for turn in range(1, rounds + 1):
        networks = [
            fitted([each for each in seen if folds < 2 or fold_of[each.case_id] != fold])
            for fold in range(max(1, folds))
        ]

        def network_of(case_id: str, own: Sequence[BorderNetwork] = networks) -> BorderNetwork:
            return own[fold_of[case_id]]

        def kinds(number: int, turn: int = turn) -> Sequence[Kind]:
            return [KINDS[(number + turn) % len(KINDS)]]

        further, curves = played(cases, network_of, turn, kinds)
        seen += further + played(small[turn % 2 :: 2], network_of, turn, kinds)[0]
        print(f"round {turn}, {len(seen)} calls: {said(curves)}", file=sys.stderr)
        history.append({"calls": len(seen), "dice": curves.mean(axis=0).round(4).tolist()})
    return fitted(seen), history


def main(line: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(line)
    if arguments.quick:
        arguments.rounds, arguments.folds = 1, 0
    try:
        cases = list(crops(arguments, 1 if arguments.play else STRIDE))
        if not cases:
            raise InputError(
                f"{arguments.dataset}: no training case in which the predictor marks anything",
                fix="take the dataset that it was trained on",
            )
        if arguments.play:
            found = by_the_rule(cases)
            for words in found["said"].values():
                print(words)
            if arguments.output is not None:
                write(arguments.output, found)
            return 0
        network, history = fit(cases, arguments.rounds, arguments.folds)
    except FlarekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.output is not None:
        layers = [
            {"weights": weights.round(4).tolist(), "biases": biases.round(4).tolist()}
            for weights, biases in network.layers
        ]
        write(arguments.output, {"rounds": history, "layers": layers})
    return 0


if __name__ == "__main__":
    sys.exit(main())
