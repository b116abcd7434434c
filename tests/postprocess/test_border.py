"""What scribbles tell of the border of a lesion, as numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flarekit.postprocess._border import (
    PARAMETERS,
    BorderNetwork,
    Scribble,
    border_features,
    border_network,
)
from flarekit.postprocess._scribbles import signed_distance_mm, surroundings

SPACING = (2.0, 1.0, 1.0)
MASK = np.zeros((12, 30, 30), bool)
MASK[4:9, 8:20, 8:20] = True
AWAY_MM = signed_distance_mm(MASK, SPACING)
PLACES = np.argwhere(np.abs(AWAY_MM) < 6)
OUT = Scribble(places_ZYX=np.array([(6, y, 22) for y in range(9, 16)]), outwards=True)
IN = Scribble(places_ZYX=np.array([(5, 9, x) for x in range(9, 15)]), outwards=False)
ONE_VOXEL = Scribble(places_ZYX=np.array([(6, 14, 21)]), outwards=True)


def features(*scribbles):
    return border_features(PLACES, scribbles, AWAY_MM, SPACING)


@pytest.mark.parametrize("scribbles", [(OUT,), (IN,), (OUT, IN), (ONE_VOXEL,), (OUT, OUT)])
def test_there_are_as_many_features_as_the_network_takes_and_all_are_finite(scribbles):
    found = features(*scribbles)
    assert found.shape == (len(PLACES), len(border_network().layers[0][0]))
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 10


def test_features_do_not_depend_on_the_order_of_scribbles():
    np.testing.assert_allclose(
        features(OUT, IN, ONE_VOXEL), features(ONE_VOXEL, IN, OUT), atol=1e-6
    )


def test_features_of_a_scribble_are_those_of_its_mirror_image():
    mirrored = Scribble(places_ZYX=OUT.places_ZYX * (1, 1, -1) + (0, 0, 27), outwards=True)
    places = PLACES * (1, 1, -1) + (0, 0, 27)
    inside = (places >= 0).all(axis=1) & (places < MASK.shape).all(axis=1)
    found = border_features(places[inside], [mirrored], AWAY_MM, SPACING)
    np.testing.assert_allclose(found, features(OUT)[inside], atol=1e-6)


def test_the_network_is_layers_with_a_threshold_between_and_a_logistic_function_after():
    layers = (
        (np.array([[1.0, -1.0]], np.float32), np.zeros(2, np.float32)),
        (np.array([[2.0], [3.0]], np.float32), np.array([0.5], np.float32)),
    )
    found = BorderNetwork(layers)(np.array([[1.0], [-1.0], [0.0]], np.float32))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.array([2.5, 3.5, 0.5]))), rtol=1e-6)


def test_the_stored_network_says_how_it_came_about():
    content = json.loads(PARAMETERS.read_text())
    assert content["rounds"][-1]["dice"][-1] > content["rounds"][-1]["dice"][0]


def test_without_a_component_near_there_is_nothing_to_move():
    far = np.zeros((12, 30, 90), bool)
    far[..., :30] = MASK
    scribble = Scribble(places_ZYX=np.array([(6, 10, 80)]), outwards=True)
    assert surroundings(far, [scribble], SPACING) is None
