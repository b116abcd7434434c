"""What a rule takes away is counted beside the mask as it is."""

from __future__ import annotations

from types import SimpleNamespace

import accuracy_gate
import numpy as np
import pytest

from flarekit.core.gate import Gate


@pytest.fixture
def case():
    """A lesion of 8 ml of which a mask finds half, and 1 ml that is none, at 10 mm."""
    lesions = np.zeros((8, 8, 8), bool)
    lesions[1:3, 1:3, 1:3] = True
    return accuracy_gate.Examination(
        kind="held-out crop",
        name="a",
        channels=(np.zeros(lesions.shape), np.where(lesions, 5.0, 1.0)),
        lesions_ZYX=lesions,
        spacing_mm=(10.0, 10.0, 10.0),
    )


def test_components_that_touch_no_lesion_are_false_positives(case):
    mask = np.zeros((8, 8, 8), bool)
    mask[1, 1:3, 1:3] = mask[6, 6, 6] = True
    told = accuracy_gate.figures_of(mask, case)
    assert told == {
        "false_components": 1,
        "false_ml": 1.0,
        "lesions": 1,
        "found": 1,
        "dice": round(8 / 13, 4),
    }


def test_every_rule_has_figures_beside_the_mask_as_it_is(case, monkeypatch):
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[1:3, 1:3, 1:3] = labels[6, 6, 6] = 1
    segmenter = SimpleNamespace(segment=lambda *_, **__: SimpleNamespace(labels=labels))

    class Loaded:
        def __enter__(self):
            return segmenter

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(accuracy_gate.flarekit, "load", lambda *_, **__: Loaded())
    spec = SimpleNamespace(
        channels=[SimpleNamespace(name="CT"), SimpleNamespace(name="PET")], labels={"lesion": 1}
    )
    wide = tuple(tuple(row) for row in (1e6 * np.eye(4)).tolist())
    gate = Gate(channel="PET", components=5, mean=(0.0,) * 4, covariance=wide)
    fitted = SimpleNamespace(label="lesion", gate=gate, most=1.0)
    rules = accuracy_gate.rules_of(fitted, ["suv_threshold=2", "min_volume_ml=20"])
    predictor = SimpleNamespace(spec=spec, folder=None)
    (row,) = accuracy_gate.tried(predictor, "lesion", rules, iter([case]))
    found = {name: (row[name]["false_ml"], row[name]["found"]) for name in ("without", *rules)}
    assert found == {
        "without": (1.0, 1),
        "with": (1.0, 1),  # a gate so wide drops nothing
        "suv_threshold 2": (0.0, 1),
        "min_volume_ml 20": (0.0, 0),
    }
    (line,) = accuracy_gate.summary([row])
    assert "with the gate 1 cases with false positives" in line
    assert "with suv_threshold 2 0 cases with false positives" in line
