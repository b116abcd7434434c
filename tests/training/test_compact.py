from __future__ import annotations

import numpy as np
import pytest
import torch

from flarekit.core.errors import FlarekitError
from flarekit.core.spec import read_spec
from flarekit.pipeline.predictors import build_networks
from flarekit.training.compact import averaged_network, train
from flarekit.training.export import export_predictor
from flarekit.training.recipe import read_recipe
from flarekit.training.samples import MAYBE, TrainingCase, draw_sample, phantom_cases

RECIPE = """
[predictor]
name = "tiny"
title = "liver and spleen"
convention = "flare"

[predictor.architecture]
name = "nnunet"

[predictor.architecture.arguments]
input_channels = 1
n_stages = 2
features_per_stage = [4, 8]
kernel_sizes = [[3, 3, 3], [3, 3, 3]]
strides = [[1, 1, 1], [2, 2, 2]]
n_conv_per_stage = [1, 1]
num_classes = 3
n_conv_per_stage_decoder = [1]

[[predictor.channels]]
name = "CT"
intensity = { kind = "window", low_hu = -125, high_hu = 275, mean = 50, std = 80 }

[predictor.grid]
spacing_mm_ZYX = [8.0, 8.0, 8.0]
tile_ZYX = [16, 16, 16]

[predictor.labels]
liver = 1
spleen = 3

[training]
held_out = []
phantom_seeds = [1000, 1001]
phantom_share = 1.0
tile_ZYX = [16, 16, 16]
batch = 1
learning_rate = 1e-2

[provenance]
data = ["one phantom"]
licence = "CC0"
command = "none"
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return read_recipe(tmp_path / "recipe.toml")


@pytest.fixture
def phantoms(recipe):
    return list(phantom_cases(recipe))


def test_a_sample_has_the_tile_s_shape_and_the_case_s_classes(phantoms):
    rng = np.random.default_rng(0)
    for _ in range(20):
        image, classes = draw_sample(phantoms[0], (16, 24, 20), (8.0, 8.0, 8.0), rng)
        assert image.shape == (1, 16, 24, 20)
        assert classes.shape == (16, 24, 20)
        assert torch.isfinite(image).all()
        assert set(classes.unique().tolist()) <= {0, 1, 2, MAYBE}


def test_most_samples_show_the_rarest_class_s_turn():
    classes = np.zeros((32, 32, 32), np.uint8)
    classes[16, 16, 16] = 2
    classes[:8] = 1
    centres = {k: np.argwhere(classes == k).astype(np.int32) for k in (1, 2)}
    case = TrainingCase(
        case_id="c",
        image_ZYX=np.zeros((32, 32, 32), np.float16),
        classes_ZYX=classes,
        centres=centres,
    )
    rng = np.random.default_rng(0)
    seen = [2 in draw_sample(case, (12, 12, 12), (1.0, 1.0, 1.0), rng)[1] for _ in range(60)]
    assert np.mean(seen) > 0.25


def test_training_lowers_the_loss_and_resumes_after_a_kill(recipe, phantoms, tmp_path):
    import json

    train(recipe, [], phantoms, run_dir=tmp_path / "run", minutes=0.05)
    first = averaged_network(recipe, tmp_path / "run" / "checkpoint.pt")[1]
    train(recipe, [], phantoms, run_dir=tmp_path / "run", minutes=0.1)
    second = averaged_network(recipe, tmp_path / "run" / "checkpoint.pt")[1]
    assert second["steps"] > first["steps"] > 0
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "curve.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_an_exported_run_is_a_whole_predictor(recipe, phantoms, tmp_path):
    train(recipe, [], phantoms, run_dir=tmp_path / "run", minutes=0.02)
    export_predictor(recipe, tmp_path / "run" / "checkpoint.pt", tmp_path / "tiny")
    predictor = read_spec(tmp_path / "tiny")
    (network,) = build_networks(predictor)
    average, effort = averaged_network(recipe, tmp_path / "run" / "checkpoint.pt")
    assert predictor.spec.provenance["steps"] == effort["steps"]
    for ours, theirs in zip(network.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_recipe_with_an_unknown_field_is_refused(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("title", "titel"))
    with pytest.raises(FlarekitError, match="titel"):
        read_recipe(tmp_path / "recipe.toml")
