"""Where the border of a lesion belongs, as scribbles near it tell: features and a small network.

A scribble lies on an error, between the mask's border and where the border should be. Features of a
voxel are its distance from the border, votes of the scribbles for how far the border moves (each
votes for how far it lies beyond the border, and counts the less the further away it is), and where
the nearest scribble of each kind lies. `profiling/fit_scribbles.py` fitted the network to scribbles
that it played on masks of att_umamba_petct in its training crops. Uptake, density and the
probabilities of the network that made the masks told little more there, and are no features: so
the network serves any predictor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PARAMETERS = Path(__file__).with_name("_border.json")
ALONG = 0.5  # of distances across slices: errors go on there
FURTHEST_MM = 90.0  # from a scribble, up to which it counts
_REACHES_MM = (10.0, 30.0)  # over which votes fade
_AS_IT_IS = 0.3  # the weight of the border as it is
_NEAR_MM = 30.0  # over which the nearest scribble of a kind fades
_UNIT_MM = 10.0  # of features
_MOST_MM = 40.0
_HIGH_PERCENTILE = 90.0
_OF_NEAREST = 7  # features of the nearest scribble of a kind

_Points = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Spacing = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Scribble:
    """A row of points that somebody drew in one go.

    Attributes:
        places_ZYX: (N, 3) voxels.
        outwards: whether it lies on tumor.
    """

    places_ZYX: _Points
    outwards: bool

    @property
    def sign(self) -> int:
        """1 on tumor, where the border moves outwards, -1 on background."""
        return 1 if self.outwards else -1


@dataclass(frozen=True)
class BorderNetwork:
    """Layers of a perceptron, with max(0, x) between them and a logistic function after the last.

    Attributes:
        layers: weights (inputs, outputs) and biases (outputs,) of each.
    """

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of a lesion (N,) for features (N, inputs)."""
        values = features
        for number, (weights, biases) in enumerate(self.layers):
            values = (np.maximum(0, values) if number else values) @ weights + biases
        probability = 1 / (1 + np.exp(-np.clip(values[:, 0], -30, 30)))
        return probability.astype(np.float32)


@cache
def border_network() -> BorderNetwork:
    """Return the network that was fitted."""
    layers = json.loads(PARAMETERS.read_text())["layers"]
    return BorderNetwork(
        tuple(
            (np.array(each["weights"], np.float32), np.array(each["biases"], np.float32))
            for each in layers
        )
    )


def radius_of_ball_mm(mask_ZYX: NDArray[np.bool_], spacing_mm: _Spacing) -> float:
    """Return the radius of a ball as large as a mask; the least spacing where it is empty."""
    volume_mm3 = np.count_nonzero(mask_ZYX) * float(np.prod(spacing_mm))
    return max(float(np.cbrt(volume_mm3 * 3 / 4 / np.pi)), min(spacing_mm))


def border_features(
    places_ZYX: _Points, scribbles: Sequence[Scribble], away_mm: _Floats, spacing_mm: _Spacing
) -> NDArray[np.float32]:
    """Return the features (N, inputs) of voxels.

    Args:
        places_ZYX: (N, 3) voxels.
        scribbles: one at least.
        away_mm: how far every voxel is from the mask; within it, minus how far from what is not.
        spacing_mm: distance between neighbouring voxels.
    """
    scale = np.array(spacing_mm) * (ALONG, 1, 1)
    in_order = sorted(scribbles, key=lambda each: (each.sign, sorted(each.places_ZYX.tolist())))
    rows = [_Row(each, away_mm, scale) for each in in_order]
    own_mm = np.clip(away_mm[tuple(places_ZYX.T)], -_MOST_MM, _MOST_MM)
    radius_mm = radius_of_ball_mm(away_mm <= 0, spacing_mm)
    columns = [
        own_mm / _UNIT_MM,
        own_mm / radius_mm,
        np.full(len(places_ZYX), np.log(radius_mm / _UNIT_MM)),
    ]
    found = [row.nearest_to(places_ZYX * scale) for row in rows]
    far_mm = [far for far, _ in found]
    for reach_mm in _REACHES_MM:
        weights = [np.exp(-0.5 * (far / reach_mm) ** 2) for far in far_mm]
        total = sum(weights, np.full(len(places_ZYX), _AS_IT_IS))
        for votes in ([row.middle_mm for row in rows], [row.high_mm for row in rows]):
            shift = sum(
                (w * vote * row.sign for w, vote, row in zip(weights, votes, rows, strict=True)),
                np.zeros(len(places_ZYX)),
            )
            columns.append(shift / total / _UNIT_MM)
        for sign in (1, -1):
            of_kind = [w for w, row in zip(weights, rows, strict=True) if row.sign == sign]
            columns.append(np.tanh(sum(of_kind, np.zeros(len(places_ZYX)))))
    for sign in (1, -1):
        columns += _nearest(sign, rows, found, own_mm)
    return np.stack(columns, axis=1).astype(np.float32)


def _nearest(
    sign: int, rows: Sequence[_Row], found: Sequence[tuple[_Floats, _Floats]], own_mm: _Floats
) -> list[_Floats]:
    """Return what the nearest scribble of a kind says; zeros where there is none."""
    chosen = [k for k, row in enumerate(rows) if row.sign == sign]
    if not chosen:
        return [np.zeros(len(own_mm))] * _OF_NEAREST
    far = np.stack([found[k][0] for k in chosen])
    nearest, least = far.argmin(axis=0), far.min(axis=0)
    fade = np.exp(-least / _NEAR_MM)
    beyond = np.stack([found[k][1] for k in chosen])[nearest, np.arange(len(own_mm))]
    middle = np.array([rows[k].middle_mm for k in chosen])
    high = np.array([rows[k].high_mm for k in chosen])
    off = np.clip(own_mm * sign - beyond, -_MOST_MM, _MOST_MM)
    return [
        np.exp(-least / _UNIT_MM),
        fade,
        fade * off / _UNIT_MM,
        np.exp(-least / _UNIT_MM) * off / _UNIT_MM,
        fade * middle[nearest] / _UNIT_MM,
        fade * high[nearest] / _UNIT_MM,
        np.full(len(own_mm), middle.mean() / _UNIT_MM),
    ]


class _Row:
    """A scribble and how far it lies beyond the border."""

    def __init__(self, scribble: Scribble, away_mm: _Floats, scale: _Floats) -> None:
        from scipy.spatial import KDTree

        places = np.unique(scribble.places_ZYX, axis=0)
        self.sign = scribble.sign
        self._beyond_mm = np.clip(self.sign * away_mm[tuple(places.T)], -_MOST_MM, _MOST_MM)
        self.middle_mm = float(np.median(self._beyond_mm))
        self.high_mm = float(np.percentile(self._beyond_mm, _HIGH_PERCENTILE))
        self._tree = KDTree(places * scale)

    def nearest_to(self, places_mm: _Floats) -> tuple[_Floats, _Floats]:
        """Return how far places are from it, and how far beyond the border its voxel there is.

        Distances across slices are shortened.
        """
        distances, numbers = self._tree.query(places_mm)
        return distances, self._beyond_mm[numbers]
