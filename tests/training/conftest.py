"""A tiny recipe, and cases for it."""

from __future__ import annotations

import numpy as np
import pytest

from flarekit.training.recipe import read_recipe
from flarekit.training.training_case import TrainingCase

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
held_out = ["case_b"]
tile_ZYX = [16, 16, 16]
batch = 1
learning_rate = 1e-2

[provenance]
data = ["nothing"]
licence = "CC0"
command = "none"
"""


@pytest.fixture
def make_recipe(tmp_path):
    """Return a function that reads the tiny recipe with some of its text replaced."""

    def make(*changes):
        text = RECIPE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "recipe.toml").write_text(text)
        return read_recipe(tmp_path / "recipe.toml")

    return make


@pytest.fixture
def recipe(make_recipe):
    """Return the tiny recipe."""
    return make_recipe()


def make_case(image_CZYX=None, classes_ZYX=None, *, classes=3, spacing_mm=(8.0, 8.0, 8.0)):
    """Return a case: a bright cube of class 1, one voxel of class 2."""
    if classes_ZYX is None:
        classes_ZYX = np.zeros((24, 24, 24), np.uint8)
        classes_ZYX[4:12, 4:12, 4:12] = 1
        classes_ZYX[18, 18, 18] = 2
    if image_CZYX is None:
        noise = np.random.default_rng(0).normal(0, 0.1, classes_ZYX.shape)
        image_CZYX = (2.0 * (classes_ZYX == 1) + noise)[None]
    centres = {
        int(k): np.argwhere(classes_ZYX == k).astype(np.int32)
        for k in np.unique(classes_ZYX)
        if k not in (0, 255)
    }
    return TrainingCase(
        case_id="c",
        image_CZYX=image_CZYX.astype(np.float16),
        classes_ZYX=classes_ZYX,
        possible_K=np.zeros(classes, np.bool_),
        centres=centres,
        spacing_mm_ZYX=spacing_mm,
    )
