from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flarekit.core.expected import Expected
from flarekit.core.records import LabelStatistics
from flarekit.core.volume import Geometry
from flarekit.report.quality import Findings, agreement, flags_of, removed_shares
from flarekit.report.statistics import label_statistics

EXPECTED = {
    "liver": Expected(
        cases=16,
        missing=0.0,
        volume_ml=(600.0, 4000.0),
        intensity=(30.0, 170.0),
        cut=0.05,
        second_part=0.02,
    )
}
USUAL = LabelStatistics(
    label="liver", value=1, voxels=900, volume_ml=1500.0, intensities={"CT": (100.0, 20.0)}
)


def kinds(each=USUAL, expected=EXPECTED, **findings):
    return [flag.kind for flag in flags_of([each], expected, Findings(**findings))]


def test_what_is_usual_has_no_flag():
    assert kinds() == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"volume_ml": 500.0}, "volume"),
        ({"volume_ml": 4500.0}, "volume"),
        ({"voxels": 0, "volume_ml": 0.0, "intensities": {"CT": None}}, "volume"),
        ({"touches_edge": True}, "edge"),
        ({"second_part": 0.3}, "parts"),
        ({"intensities": {"CT": (-20.0, 5.0)}}, "intensity"),
        ({"intensities": {"CT": (300.0, 5.0)}}, "intensity"),
    ],
)
def test_what_training_never_showed_is_flagged(change, kind):
    assert kinds(replace(USUAL, **change)) == [kind]


def test_a_label_that_is_cut_is_not_flagged_for_being_small_as_well():
    assert kinds(replace(USUAL, touches_edge=True, volume_ml=200.0)) == ["edge"]


def test_what_was_seen_in_training_is_not_flagged():
    often = {"liver": EXPECTED["liver"].model_copy(update={"cut": 0.6, "second_part": 0.4})}
    often["liver"] = often["liver"].model_copy(update={"missing": 0.1})
    assert kinds(replace(USUAL, touches_edge=True, second_part=0.3), often) == []
    assert kinds(replace(USUAL, voxels=0, volume_ml=0.0, intensities={"CT": None}), often) == []


def test_without_training_cases_a_cut_label_is_flagged_and_no_volume_is():
    assert kinds(replace(USUAL, touches_edge=True, volume_ml=1.0), {}) == ["edge"]
    unknown = {name: each.model_copy(update={"cut": None}) for name, each in EXPECTED.items()}
    assert kinds(replace(USUAL, touches_edge=True), unknown) == ["edge"]


def test_the_scan_the_rules_and_the_locator_have_a_say():
    assert kinds(warnings=("no voxel is below -200 HU",)) == ["scan"]
    assert kinds(removed={"liver": 0.3}) == ["parts"]
    assert kinds(removed={"liver": 0.05, "unknown": 0.9}) == []
    assert kinds(agreement={"liver": 0.2}) == ["locator"]
    assert kinds(agreement={"liver": 0.9}) == []


def test_a_flag_says_what_was_found_and_what_is_usual():
    (flag,) = flags_of([replace(USUAL, volume_ml=120.0)], EXPECTED, Findings())
    assert str(flag) == (
        "liver: its volume is 120 ml; 600 to 4000 ml are usual, judged by 16 training cases"
    )


def test_agreement_is_the_dice_of_what_is_large():
    one, other = np.zeros((2, 10, 10, 10), np.uint8)
    one[:, :, :4], other[:, :, 2:6], one[0, 0, 9] = 1, 1, 2
    assert agreement(one, other, {"liver": 1, "small": 2}, 1.0) == {"liver": 0.5}
    assert agreement(one, other, {"liver": 1}, 0.01) == {}


def test_shares_that_rules_took_away():
    assert removed_shares({"a": 10.0, "b": 0.0, "c": 5.0}, {"a": 7.0, "b": 0.0, "c": 6.0}) == {
        "a": pytest.approx(0.3),
        "c": 0.0,
    }


def test_the_second_part_is_that_of_the_label_alone():
    label_map = np.zeros((1, 1, 20), np.uint8)
    label_map[0, 0, :6], label_map[0, 0, 8:11], label_map[0, 0, 13] = 1, 1, 1
    label_map[0, 0, 15:19] = 2
    geometry = Geometry(shape_ZYX=(1, 1, 20), affine=np.eye(4), header=None)
    one, two = label_statistics(label_map, geometry, {"one": 1, "two": 2}, {})
    assert (one.components, one.second_part) == (3, pytest.approx(0.3))
    assert (two.components, two.second_part) == (1, 0.0)
