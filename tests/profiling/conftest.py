"""The scripts of `profiling/` as modules, and predictors with tiny random networks for them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from flarekit import models
from flarekit.core.files import sha256_of
from flarekit.core.spec import read_spec, write_spec

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "profiling"))

TRAINING = """
[training]
held_out = ["case_b", "case_c"]
tile_ZYX = [16, 16, 16]
"""


@pytest.fixture
def make_predictor(tmp_path):
    """Return a function that makes a predictor folder, with the recipe that it came from."""

    def make(convention="flare", labels=None, channels=1, training=TRAINING):
        import torch

        torch.manual_seed(0)
        folder = tmp_path / "weights" / "tiny"
        folder.mkdir(parents=True)
        labels = labels or {"liver": 1, "spleen": 3}
        arguments = {
            "input_channels": channels,
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "kernel_sizes": [[3, 3, 3]] * 2,
            "strides": [[1, 1, 1], [2, 2, 2]],
            "n_conv_per_stage": [1, 1],
            "num_classes": 1 + len(labels),
            "n_conv_per_stage_decoder": [1],
        }
        window = {"kind": "window", "low_hu": -125, "high_hu": 275, "mean": 50, "std": 80}
        weights = folder / "model.safetensors"
        network = models.create("nnunet", **arguments)
        models.save_weights(network, weights, dtype=torch.float16)
        facts = {
            "name": "tiny",
            "title": "random weights",
            "convention": convention,
            "architecture": {"name": "nnunet", "arguments": arguments},
            "channels": [{"name": name, "intensity": window} for name in ("CT", "SUV")[:channels]],
            "grid": {"spacing_mm_ZYX": [8.0, 8.0, 8.0], "tile_ZYX": [16, 16, 16]},
            "labels": labels,
            "provenance": {
                "command": "flarekit train compact recipe.toml DATASET RUN_DIR --minutes 5",
                "minutes": 5.02,
                "steps": 1234,
                "stored_as": "fp16",
            },
        }
        measured = {
            "file": weights.name,
            "sha256": sha256_of(weights),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        }
        write_spec(folder, {**facts, "weights": measured}, head="made by a test")
        recipe = {"predictor": {k: v for k, v in facts.items() if k != "provenance"}}
        text = tomli_w.dumps(recipe) + training + "\n[provenance]\nlicence = 'CC0'\n"
        (folder / "recipe.toml").write_text(text)
        return read_spec(folder)

    return make


@pytest.fixture
def make_dataset(tmp_path, write_scan):
    """Return a function that makes a dataset in nnU-Net's raw layout."""

    def make(cases=("case_a", "case_b", "case_c"), channels=1, value=1, affine=None):
        folder = tmp_path / "Dataset"
        for name in ("imagesTr", "labelsTr"):
            (folder / name).mkdir(parents=True)
        rng = np.random.default_rng(0)
        labels = np.zeros((16, 20, 24), np.uint8)
        labels[4:9, 5:12, 6:16] = value
        for case in cases:
            for channel in range(channels):
                image = rng.integers(-100, 200, labels.shape) + 100 * (labels > 0)
                path = folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"
                write_scan(path, image, affine)
            write_scan(folder / "labelsTr" / f"{case}.nii.gz", labels, affine)
        return folder

    return make


@pytest.fixture
def make_located(make_predictor):
    """Return a function that makes a predictor, whose locator is the same network twice as coarse.

    The weights are random, at 8 mm.
    """

    def make(*arguments, **more):
        predictor = make_predictor(*arguments, **more)
        folder = predictor.folder / "locator"
        folder.mkdir()
        text = (predictor.folder / "predictor.toml").read_text()
        (folder / "predictor.toml").write_text(text.replace("8.0", "16.0"))
        (folder / "model.safetensors").write_bytes(predictor.weights.read_bytes())
        facts = f'\n[locator]\nsha256 = "{predictor.spec.weights.sha256}"\n'
        (predictor.folder / "predictor.toml").write_text(text + facts)
        return read_spec(predictor.folder)

    return make


@pytest.fixture
def located(make_located):
    """A predictor of abdominal organs with a locator."""
    return make_located()
