"""Masks with some of a predictor's labels."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

import flarekit
from flarekit.core.errors import PredictorError, UsageError
from tests.command import run

CPU = {"device": "cpu", "precision": "fp32", "engine": "torch"}


@pytest.fixture
def scan(tmp_path, write_scan):
    (tmp_path / "in").mkdir()
    return write_scan(tmp_path / "in" / "p_0000.nii.gz")


def both(toy, scan, wanted):
    """Return labels with all of them, and with some."""
    found = []
    for labels in (None, wanted):
        with flarekit.load(toy, labels=labels, **CPU) as segmenter:
            found.append(segmenter.segment(scan))
    return found


def test_the_other_labels_are_background_and_the_wanted_ones_are_as_ever(toy, scan):
    (name, value), *_ = toy.labels.items()
    everything, some = both(toy, scan, [name])
    assert len(np.unique(everything.labels)) > 2  # or the test would say nothing
    assert np.array_equal(some.labels, np.where(everything.labels == value, value, 0))
    assert some.label_names == {value: name}
    assert some.volumes_ml == {name: everything.volumes_ml[name]}
    assert {each.label for each in some.statistics} == {name}


@pytest.mark.long
def test_the_command_writes_and_records_the_wanted_labels_alone(toy, scan, tmp_path):
    (name, value), *_ = toy.labels.items()
    words = ["predict", "-p", toy.folder, "-i", scan.parent, "-o", tmp_path / "out"]
    words += ["--device", "cpu", "--labels", f" {name} ", "--report", tmp_path / "report"]
    said = run(*words)
    assert said.returncode == 0, said.stderr
    mask = np.asarray(nibabel.load(tmp_path / "out" / "p.nii.gz").dataobj)
    assert set(np.unique(mask)) <= {0, value}
    rows = (tmp_path / "report" / "statistics.csv").read_text().splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == {name}
    said = run(*words[:-2], "--report", tmp_path / "report", "--resume")
    assert "p" in said.stderr


def test_a_run_with_other_labels_is_another_run(toy, scan, tmp_path):
    names = list(toy.labels)
    folders = (scan.parent, tmp_path / "out")
    report = {"report": tmp_path / "report", "pictures": False, "resume": True}
    for labels in ([names[0]], [names[0]], names[:2]):
        flarekit.predict(*folders, predictor=toy, labels=labels, **report, **CPU)
    ledger = (tmp_path / "report" / "ledger.jsonl").read_text().splitlines()
    assert len([line for line in ledger if json.loads(line).get("case_id") == "p"]) >= 1
    mask = np.asarray(nibabel.load(tmp_path / "out" / "p.nii.gz").dataobj)
    assert set(np.unique(mask)) == {0, *(toy.labels[name] for name in names[:2])}


def test_a_label_that_is_not_there_is_refused_before_anything_is_written(toy, scan, tmp_path):
    name = next(iter(toy.labels))
    words = ["predict", "-p", toy.folder, "-i", scan.parent, "-o", tmp_path / "out"]
    said = run(*words, "--labels", f"{name}x,{name}")
    assert said.returncode == 2
    assert f"did you mean '{name}'?" in said.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="no label is named"):
        flarekit.load(toy, labels=[], **CPU)


def test_a_predictor_may_say_itself_which_labels_masks_get(toy, scan):
    path = toy.folder / "predictor.toml"
    name, value = next(iter(toy.labels.items()))
    path.write_text(f'only_labels = ["{name}"]\n' + path.read_text())
    with flarekit.load(str(toy.folder), **CPU) as segmenter:
        assert segmenter.segment(scan).label_names == {value: name}
    path.write_text(path.read_text().replace(f'["{name}"]', '["tail"]'))
    with pytest.raises(PredictorError, match="only_labels names unknown labels"):
        flarekit.load(str(toy.folder), **CPU)
