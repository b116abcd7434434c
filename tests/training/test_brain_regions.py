"""Brain tumours from BraTS's own values (1, 2, 4) to the scores of its regions, by the commands."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from flarekit.cli.main import app
from flarekit.training.recipe import paper_recipes
from tests.training.generated import write_dataset

SMALL = (
    ("[32, 64, 128, 256, 320, 320]", "[16, 16, 32, 32, 32, 32]"),
    ("[1.0, 1.0, 1.0]", "[4.0, 4.0, 4.0]"),
    ("tile_ZYX = [128, 128, 128]", "tile_ZYX = [64, 32, 32]"),
    ("mirror_axes = [0, 1, 2]\n\n[predictor.labels]", "\n[predictor.labels]"),
    ("enhancing = 3", "enhancing = 4"),
)


def command(*line):
    result = CliRunner().invoke(app, [*map(str, line)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.mark.slow
def test_brats_own_values_are_trained_as_exclusive_labels_and_scored_as_regions(tmp_path):
    dataset = write_dataset(tmp_path / "data", "mamba_clinix/brats", 3)
    for path in (dataset / "labelsTr").iterdir():
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
        four = np.where(values == 3, 4, values).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(four, image.affine), path)
    text = paper_recipes()["mamba_clinix/brats"].read_text(encoding="utf-8")
    for old, new in SMALL:
        assert old in text
        text = text.replace(old, new)
    recipe, run, made = tmp_path / "recipe.toml", tmp_path / "run", tmp_path / "brats"
    recipe.write_text(text, encoding="utf-8")
    options = ("--minutes", 0.03, "--device", "cpu", "--processes", 1)
    command("train", "compact", recipe, dataset, run, *options)
    command("train", "export", run, made)
    masks = tmp_path / "masks"
    command("predict", "-p", made, "-i", dataset / "imagesTr", "-o", masks)
    found = np.unique(np.concatenate(
        [np.asarray(nibabel.load(path).dataobj).ravel() for path in masks.glob("*.nii.gz")]
    ))  # fmt: skip
    assert set(found) <= {0, 1, 2, 4}
    for folder in (masks, dataset / "labelsTr"):
        line = ("--pred", folder, "--truth", dataset / "labelsTr", "--convention", "papers")
        line += ("--labels", "WT=1+2+4,TC=1+4,ET=4", "--json", tmp_path / "scores.json")
        command("evaluate", *line)
    text = (tmp_path / "scores.json").read_text(encoding="utf-8")
    assert {"WT", "TC", "ET"} <= set(json.dumps(json.loads(text)).replace('"', " ").split())
