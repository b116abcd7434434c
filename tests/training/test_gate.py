"""`flarekit train gate`: training lesions as numbers in a predictor's facts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from flarekit.cli.main import app
from flarekit.core.errors import InputError, UsageError
from flarekit.core.spec import read_spec
from flarekit.training.gate import fit_gate, write_gate


@pytest.fixture
def dataset(tmp_path, write_scan):
    """Return a data set with lesions of several sizes, two in each of ten cases."""
    folder = tmp_path / "Dataset001_Lesions"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for case in range(10):
        label_map = np.zeros((16, 30, 30), np.uint8)
        for corner in ((2, 3, 3), (8, 16, 16)):
            size = rng.integers(3, 7, 3)
            label_map[tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))] = 2
        hu = np.where(label_map, 60, 0) + rng.integers(-5, 6, label_map.shape)
        write_scan(folder / "imagesTr" / f"c{case}_0000.nii.gz", hu.astype(np.int16))
        write_scan(folder / "labelsTr" / f"c{case}.nii.gz", label_map)
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "CT"},
                "labels": {"background": 0, "spleen": 2},
                "numTraining": 10,
                "file_ending": ".nii.gz",
            }
        )
    )
    return folder


def label_of(toy):
    return next(iter(toy.spec.labels))


@pytest.fixture
def named(dataset, toy):
    """Return the data set with the toy's first label in place of its own."""
    path = dataset / "dataset.json"
    path.write_text(path.read_text().replace("spleen", label_of(toy)))
    return dataset


@pytest.mark.long
def test_lesions_become_numbers_in_the_facts(named, toy):
    result = CliRunner().invoke(
        app, ["train", "gate", str(toy.folder), str(named), "--label", label_of(toy)]
    )
    assert result.exit_code == 0, result.output
    assert "20 lesions measured" in result.output
    rules = read_spec(toy.folder).spec.rules
    (rule,) = [rule for rule in rules if rule.name == "shape_gate"]
    assert rule.labels == (label_of(toy),)
    assert rule.gate.components == 20
    assert rule.gate.mean[3] == pytest.approx(60, abs=1)
    again = fit_gate(read_spec(toy.folder), [named], label=label_of(toy))
    write_gate(read_spec(toy.folder), again)
    assert read_spec(toy.folder).spec.rules == rules


@pytest.mark.long
def test_the_rule_stands_before_what_a_person_marked(named, toy):
    path = toy.folder / "predictor.toml"
    rule = f'\n[[rules]]\nname = "recist_line"\nlabels = ["{label_of(toy)}"]\nvalue = 1.2\n'
    text = path.read_text()
    path.write_text(text.replace("[weights]", rule + "\n[weights]", 1))
    write_gate(read_spec(toy.folder), fit_gate(read_spec(toy.folder), [named], label=label_of(toy)))
    names = [each.name for each in read_spec(toy.folder).spec.rules]
    assert names[-2:] == ["shape_gate", "recist_line"]


def test_most_training_lesions_are_kept(named, toy):
    fitted = fit_gate(toy, [named], label=label_of(toy), lost=0.01)
    assert fitted.kept >= 0.99
    assert fit_gate(toy, [named], label=label_of(toy), lost=0.2).most < fitted.most


def test_what_cannot_be_measured_is_said(named, toy, dataset):
    with pytest.raises(UsageError, match="which label"):
        fit_gate(toy, [named])
    with pytest.raises(UsageError, match="no channel 'MR'"):
        fit_gate(toy, [named], label=label_of(toy), channel="MR")
    with pytest.raises(UsageError, match="not a share"):
        fit_gate(toy, [named], label=label_of(toy), lost=1.0)
    facts = (dataset / "dataset.json").read_text()
    regions = {"labels": {"background": 0, "all": [1, 2]}, "regions_class_order": [1]}
    (dataset / "dataset.json").write_text(json.dumps(regions))
    with pytest.raises(InputError, match="dataset.json: has regions, which overlap"):
        fit_gate(toy, [named], label=label_of(toy))
    (dataset / "dataset.json").write_text(facts)
    for path in list(dataset.glob("labelsTr/*"))[3:]:
        path.unlink()
    with pytest.raises(InputError, match="6 lesions"):
        fit_gate(toy, [named], label=label_of(toy))
