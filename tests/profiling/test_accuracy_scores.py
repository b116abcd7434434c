from __future__ import annotations

import numpy as np
import pytest
from accuracy_cases import Trial, write_mha
from accuracy_scores import score, worst_case

from flarekit.core.errors import InputError
from flarekit.synthesis import ORGANS

SPACING = (3.0, 2.0, 2.0)


def block(start, size=4, value=1):
    mask = np.zeros((16, 20, 24), np.uint8)
    mask[start : start + size, 4:12, 4:12] = value
    return mask


@pytest.fixture
def lay_out(tmp_path):
    """Return a function that writes masks and truths by case and returns the trial."""

    def lay(cases, groups=None, organs=None):
        trial = Trial(folder=tmp_path, groups=groups or {}, organs=organs or {})
        for name, (predicted, truth) in cases.items():
            if predicted is not None:
                write_mha(trial.outputs / f"{name}.mha", predicted, SPACING)
            write_mha(trial.truths / f"{name}.mha", truth, SPACING)
        return trial

    return lay


def test_organs_are_scored_by_dice_and_by_flares_surface_dice(lay_out):
    trial = lay_out({"same": (block(4), block(4)), "half": (block(6), block(4))})
    result = score(trial, trial.outputs, "flare", {"liver": 1})
    assert result["cases"] == {"half": {"liver": 0.5}, "same": {"liver": 1.0}}
    assert result["labels"] == {"liver": 0.75}
    assert result["mean"] == 0.75
    assert result["nsd"]["tolerances_mm"] == {"liver": 5.0}
    assert result["nsd"]["cases"]["same"] == {"liver": 1.0}
    assert 0 < result["nsd"]["cases"]["half"]["liver"] < 1
    assert result["flare"]["cases"]["half"]["liver"]["dsc"] == 0.5
    assert worst_case(result) == "half"


def test_vessels_count_on_all_slices_and_on_the_truths_slices_under_flares_name(lay_out):
    trial = lay_out({"long": (block(4, 8), block(4, 4))})
    result = score(trial, trial.outputs, "flare", {"aorta": 1})
    assert result["labels"]["aorta"] == pytest.approx(2 / 3, abs=1e-4)
    assert result["flare"]["cases"]["long"]["aorta"]["dsc"] == 1.0


def test_lesions_have_a_tolerance_of_flare_too(lay_out):
    trial = lay_out({"one": (block(4), block(4))})
    result = score(trial, trial.outputs, "uls23", {"lesion": 1})
    assert result["nsd"]["tolerances_mm"] == {"lesion": 2.0}
    assert result["nsd"]["mean"] == 1.0
    assert result["uls23"]["overall"]["score_without_consistency"] == 1.0


def test_an_empty_body_has_no_dice_and_stays_out_of_the_mean(lay_out):
    organs = np.zeros((16, 20, 24), np.uint8)
    organs[10:, 4:12, 4:12] = ORGANS["bladder"]
    nothing = np.zeros_like(organs)
    trial = lay_out(
        {"empty": (block(12, 1), nothing), "lesion": (block(4), block(4))},
        organs={"empty": organs, "lesion": organs},
    )
    result = score(trial, trial.outputs, "autopet", {"lesion": 1})
    assert result["cases"] == {"empty": {"lesion": None}, "lesion": {"lesion": 1.0}}
    assert result["mean"] == 1.0
    volume_ml = 64 * 12 / 1000
    assert result["autopet"]["cases"]["empty"]["lesion"]["fpv_ml"] == pytest.approx(volume_ml)
    assert result["false_positives_ml"]["largest"]["bladder"] == pytest.approx(volume_ml)
    assert result["false_positives_ml"]["cases"]["lesion"]["bladder"] == 0.0
    assert "nsd" not in result
    assert worst_case(result) == "empty"


def test_of_bodies_with_the_same_false_positive_that_with_the_lowest_dice_is_the_worst():
    false = {"a": {"brain": 0.0}, "b": {"brain": 0.0}, "c": {"brain": 0.0}}
    result = {
        "cases": {"a": {"lesion": 0.9}, "b": {"lesion": 0.2}, "c": {"lesion": None}},
        "false_positives_ml": {"cases": false},
    }
    assert worst_case(result) == "b"
    false["a"]["brain"] = 6.0
    assert worst_case(result) == "a"


def test_each_source_has_its_own_mean(lay_out):
    cases = {name: (block(4), block(4)) for name in ("a", "b")}
    cases["c"] = (block(6), block(4))
    groups = {"a": "crops", "b": "crops", "c": "nodules"}
    trial = lay_out(cases, groups=groups)
    result = score(trial, trial.outputs, "autopet", {"lesion": 1})
    assert result["groups"] == {"crops": 1.0, "nodules": 0.5}


def test_a_missing_mask_is_an_error_and_not_a_zero(lay_out):
    trial = lay_out({"a": (block(4), block(4)), "b": (None, block(4))})
    with pytest.raises(InputError, match="b: no prediction"):
        score(trial, trial.outputs, "flare", {"liver": 1})
