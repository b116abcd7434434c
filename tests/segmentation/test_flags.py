from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from flarekit.core.spec import read_spec
from flarekit.segmentation import measuring
from tests.command import run

EXPECTED = """
[expected.organ]
cases = 9
missing = 0.0
volume_ml = [90000.0, 99000.0]
intensity = [-1000.0, 1000.0]
cut = 1.0
second_part = 1.0
"""


@pytest.fixture
def inputs(tmp_path, write_scan):
    folder = tmp_path / "inputs"
    folder.mkdir()
    write_scan(folder / "a_0000.nii.gz")
    return folder


def rows_of(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_flags_are_in_ledger_table_record_and_log(toy, inputs, tmp_path):
    path = toy.folder / "predictor.toml"
    path.write_text(path.read_text() + EXPECTED)
    command = ["predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    said = run(*command, "--report", tmp_path / "report", "--no-pictures").stderr
    assert "a: look at this mask: organ: " in said
    assert "masks to look at, 1 of 1: a" in said
    (line,) = (tmp_path / "report" / "ledger.jsonl").read_text().splitlines()
    flags = json.loads(line)["flags"]
    assert {"kind": "volume", "label": "organ"}.items() <= flags[0].items()
    rows = {row["label"]: row for row in rows_of(tmp_path / "report" / "statistics.csv")}
    assert "volume" in rows["organ"]["flags"].split()
    record = json.loads((tmp_path / "report" / "run.json").read_text())
    assert record["flagged"]["a"][0].startswith("organ: ")


def test_without_a_report_nothing_is_measured_or_flagged(toy, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "flags_of", lambda *_: pytest.fail("flagged"))
    command = ["predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    assert run(*command).returncode == 0


@pytest.mark.slow
def test_what_the_locator_found_elsewhere_is_flagged(
    located_toy, inputs, tmp_path, write_scan, monkeypatch
):
    write_scan(inputs / "a_0000.nii.gz", np.random.default_rng(0).integers(-200, 300, (40, 90, 90)))
    monkeypatch.setattr("flarekit.report.quality._LARGE_ML", 0.001)
    monkeypatch.setattr("flarekit.report.quality._AGREE", 1.0)
    predictor = read_spec(located_toy.folder)
    command = ["predict", "-i", inputs, "-o", tmp_path / "out", "-p", predictor.folder]
    run(*command, "--report", tmp_path / "report", "--no-pictures")
    (line,) = (tmp_path / "report" / "ledger.jsonl").read_text().splitlines()
    assert "locator" in {flag["kind"] for flag in json.loads(line)["flags"]}
