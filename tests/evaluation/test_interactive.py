"""Areas under curves of interactive segmentation equal what a hand computes."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from flarekit.evaluation.curves import curves_svg
from flarekit.evaluation.interactive import Session, Step, area, areas, figures_of, mean_curve


def session(case_id, dice, dmm=None, error=None):
    dmm = dmm or [1.0] * len(dice)
    steps = tuple(
        Step(figures={"dice": d, "dmm": m, "fpv_ml": 2.0 * k, "fnv_ml": 1.0}, seconds=1.0)
        for k, (d, m) in enumerate(zip(dice, dmm, strict=True))
    )
    return Session(case_id=case_id, kind="random", steps=steps, error=error)


def test_the_area_is_the_trapezoid_s():
    # by hand: (0.2 + 0.4) / 2 + (0.4 + 0.4) / 2 + (0.4 + 1.0) / 2 = 0.3 + 0.4 + 0.7
    assert area([0.2, 0.4, 0.4, 1.0]) == pytest.approx(1.4)
    assert area([1.0] * 6) == 5.0
    assert area([0.7]) == 0.0
    assert math.isnan(area([0.5, math.nan, 0.5]))


def test_areas_are_means_over_the_cases_that_define_them():
    one = session("a", [0.5, 0.6, 0.8, 0.8, 0.9, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0, 1.0])
    other = session("b", [0.3, 0.3, 0.3, 0.3, 0.3, 0.3], [math.nan] * 6)
    failed = session("c", [0.0] * 6, error="broken")
    found = areas([one, other, failed])
    # by hand: a 0.25 + 0.6 + 0.8 + 0.8 + 0.9 + 0.5 = 3.85; b 0.3 * 5 = 1.5
    assert found["dice"]["auc"] == pytest.approx((3.85 + 1.5) / 2)
    assert found["dice"]["mean"] == pytest.approx((3.85 + 1.5) / 10)
    assert found["dice"]["first"] == pytest.approx(0.4)
    assert found["dice"]["last"] == pytest.approx(0.65)
    assert found["dmm"]["auc"] == pytest.approx(3.5)  # 0 + 0.5 + 0.5 + 1 + 1 + 0.5
    assert found["dmm"]["cases"] == 1
    assert found["fpv_ml"]["auc"] == pytest.approx(25.0)  # 2 * (0.5 + 1.5 + 2.5 + 3.5 + 4.5)
    assert mean_curve([one, other, failed], "dice") == pytest.approx(
        [0.4, 0.45, 0.55, 0.55, 0.6, 0.65]
    )


def test_a_mean_of_no_case_is_nan_and_no_warning():
    healthy = session("a", [math.nan] * 3)
    assert np.isnan(mean_curve([healthy, healthy], "dice")).tolist() == [True] * 3
    assert mean_curve([healthy, session("b", [0.5, 0.5, 1.0])], "dice") == [0.5, 0.5, 1.0]
    assert mean_curve([session("c", [0.5], error="failed")], "dice") == []
    assert "dice" not in areas([healthy])
    assert "<svg" in curves_svg({"Dice": [[math.nan] * 3]}, {"Dice": [math.nan] * 3})


def test_figures_of_one_mask_are_those_of_autopet():
    truth = np.zeros((4, 10, 10), bool)
    mask = truth.copy()
    truth[1, 1:5, 1:5] = True
    truth[3, 8, 8] = True
    mask[1, 1:5, 3:7] = True
    mask[3, 1, 1:4] = True
    found = figures_of(truth, mask, voxel_ml=0.5)
    assert found["dice"] == pytest.approx(2 * 8 / (17 + 19))
    assert found["dmm"] == pytest.approx(2 / (2 + 1 + 1))
    assert found["fpv_ml"] == 1.5
    assert found["fnv_ml"] == 0.5


def test_without_a_lesion_only_false_positives_count():
    found = figures_of(np.zeros((2, 3, 3), bool), np.ones((2, 3, 3), bool), voxel_ml=1.0)
    assert found["fpv_ml"] == 18
    assert all(math.isnan(found[name]) for name in ("dice", "dmm", "fnv_ml"))


def test_curves_are_drawn_as_a_picture_that_can_be_parsed():
    text = curves_svg(
        {"Dice <1>": [[0.2, math.nan, 0.6], [0.1, 0.3, 0.5]]}, {"Dice <1>": [0.1, 0.5]}
    )
    root = ET.fromstring(text)  # noqa: S314 - our own text
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 4
    assert any(each.text == "Dice <1>" for each in root.iter())
    middle = {each.text: float(each.get("x")) for each in root.iter() if each.get("x")}
    points = [point.split(",") for point in lines[2].get("points").split()]
    assert [float(x) for x, _ in points] == [middle["0"], middle["1"], middle["2"]]
    assert middle["marks given"] == middle["1"] == (middle["0"] + middle["2"]) / 2
