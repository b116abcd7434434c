"""The splits on the data that they are measured on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import accuracy
import bench_flags
import pytest
from accuracy_bodies import unseen_maps
from accuracy_vois import lesion_vois

from flarekit.evaluation.masks import read_mask
from flarekit.training.recipe import read_recipe

pytestmark = pytest.mark.data
ROOT = Path(__file__).parents[2]
PROFILING = ROOT / "profiling"


def test_every_real_lesion_lies_at_the_middle_of_its_volume(shared, tmp_path):
    facts = read_recipe(ROOT / "weights" / "mamba_ahnet_lesion" / "recipe.toml").training
    trial = lesion_vois(
        tmp_path,
        dataset=shared / "data" / "Dataset002_PETCT",
        held_out=facts.held_out,
        vois=shared / "data" / "lesion_vois",
    )
    assert len(trial.groups) == 6
    for case_id in trial.groups:
        truth = read_mask(trial.truths / f"{case_id}.mha").values_ZYX
        assert truth.shape == (128, 256, 256)
        assert truth[64, 128, 128] == 1


def test_organ_maps_of_other_patients_are_left_for_measuring(shared):
    recipe = read_recipe(ROOT / "weights" / "att_umamba_petct" / "recipe.toml")
    assert recipe.training.synthesis is not None
    unseen = unseen_maps(shared / "data" / "wholebody_organs", recipe.training.synthesis)
    assert len(unseen) == 21


@pytest.mark.slow
def test_spoilt_scans_are_flagged(shared, tmp_path):
    dataset = str(shared / "data" / "Dataset001_Abdomen")
    output = tmp_path / "results"
    bench_flags.main([dataset, "--quick", "--output", str(output)])
    result = json.loads((output / "flags_abdomen_ct.json").read_text())
    assert result["spoilt_scans_found"].endswith(" of 2")
    assert {row["scan"] for row in result["spoilt"]} == {"BTCV_03"}


@pytest.mark.slow
def test_a_second_measurement_gives_the_same_figures(shared, tmp_path, monkeypatch):
    line = ["accuracy.py", "abdomen_ct", "--split", "scans", "--output", str(tmp_path)]
    line += ["--dataset", str(shared / "data" / "Dataset001_Abdomen"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", line)
    again = json.loads(accuracy.measure(accuracy.parse_arguments()).read_text())
    kept = json.loads((PROFILING / "accuracy_abdomen_ct_scans.json").read_text())
    assert again["labels"] == pytest.approx(kept["labels"], abs=0.01)
    assert again["nsd"]["mean"] == pytest.approx(kept["nsd"]["mean"], abs=0.01)
    assert again["worst"]["case"] == kept["worst"]["case"]
