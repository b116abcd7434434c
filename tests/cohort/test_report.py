from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser

import nibabel
import numpy as np
import pytest

from flarekit.cohort.outliers import histogram, outliers
from flarekit.cohort.page import write_page
from flarekit.cohort.report import write_report
from flarekit.core.errors import InputError
from tests.command import run

VOID = ("meta", "img", "rect", "circle", "line")
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40


def test_outliers_are_far_from_the_others_by_robust_z():
    volumes = {f"c{index}": 1000.0 + 20 * index for index in range(20)}
    found = outliers({"liver": volumes | {"small": 90.0, "large": 9000.0, "none": 0.0}})
    assert {each.case_id for each in found} == {"small", "large"}
    assert found[0].z * found[1].z < 0
    assert outliers({"liver": {"a": 1.0, "b": 5000.0}}) == []


def test_a_tenth_of_the_cohort_being_far_off_hides_none_of_it():
    rng = np.random.default_rng(0)
    volumes = {f"c{k}": float(v) for k, v in enumerate(rng.lognormal(7, 0.2, 90))}
    volumes |= {f"far{k}": 30.0 for k in range(10)}
    found = outliers({"liver": volumes})
    assert {f"far{k}" for k in range(10)} <= {each.case_id for each in found}
    assert len(found) < 13


@pytest.mark.parametrize("values", [[1.0], [3.0, 3.0], [0.01, 5.0, 2000.0]])
def test_a_histogram_counts_every_value(values):
    counts, edges = histogram(values, 7)
    assert sum(counts) == len(values)
    assert edges == sorted(edges)


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.addresses, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(path):
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    return text, page


def test_the_page_needs_nothing_from_outside_and_escapes_what_it_shows(tmp_path):
    evil = "<script>alert(1)</script>"
    lines = {
        f"c{k}": {"volumes_ml": {"liver": 1000.0 + k}, "wall_s": 3.0 + k, "peak_mib": 900.0}
        for k in range(20)
    }
    lines["far"] = {"volumes_ml": {"liver": 5.0}, "wall_s": 4.0}
    lines[evil] = {"error": evil, "fix": evil, "flags": [{"kind": "scan", "text": evil}]}
    (tmp_path / "far.png").write_bytes(PNG)
    volumes = {
        "liver": {
            name: line["volumes_ml"]["liver"]
            for name, line in lines.items()
            if "volumes_ml" in line
        }
    }
    text, page = read_page(write_page(tmp_path, lines, volumes))
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert len(page.addresses) == 1
    assert evil not in text
    assert not re.search(r"https?://|url\(", text)
    said = " ".join(page.text)
    for words in ("Cohort of 22 cases", "far", "z -", "seconds per case", "Failures"):
        assert words in said


def test_a_page_of_thousands_of_cases_stays_small(tmp_path):
    lines = {f"c{k}": {"wall_s": 2.0, "error": "no" if k % 2 else None} for k in range(5000)}
    volumes = {"liver": {f"c{k}": 900.0 + k for k in range(5000)}}
    text, page = read_page(write_page(tmp_path, lines, volumes))
    assert len(text) < 400_000
    assert "2200 more are in ledger.jsonl." in " ".join(page.text)


def test_an_empty_cohort_has_a_page_and_odd_lines_cost_nothing(tmp_path):
    read_page(write_page(tmp_path, {}, {}))
    lines = {"a": {"wall_s": "soon", "flags": "none", "volumes_ml": None}}
    read_page(write_page(tmp_path, lines, {}))


@pytest.fixture
def report(toy, tmp_path, write_scan):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name in "abc":
        write_scan(inputs / f"{name}_0000.nii.gz")
    (inputs / "d_0000.nii.gz").write_bytes(b"torn")
    command = ["predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    run(*command, "--report", tmp_path / "report", "--no-pictures")
    return tmp_path / "report"


def test_the_report_of_a_run_is_made_of_its_ledger(report):
    assert run("cohort", "report", report).returncode == 0
    _, page = read_page(report / "report.html")
    said = " ".join(page.text)
    assert "Cohort of 4 cases" in said
    assert "d_0000.nii.gz" in said
    lines = [json.loads(line) for line in (report / "ledger.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert all(line["peak_mib"] > 50 for line in lines)
    with pytest.raises(InputError, match="has no ledger"):
        write_report([report / "none"], report)


def test_the_parquet_file_holds_the_table_with_types(report):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `statistics` is missing")
    run("cohort", "report", report)
    table = parquet.read_table(report / "statistics.parquet").to_pylist()
    with (report / "statistics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in table] == [row["case"] for row in rows]
    assert table[0]["volume_ml"] == float(rows[0]["volume_ml"])
    assert isinstance(table[0]["touches_edge"], bool)
    assert table[0]["suv_mean"] is None


def test_masks_that_are_there_are_measured_without_segmenting(report, toy, tmp_path):
    masks, scans = tmp_path / "out", tmp_path / "inputs"
    (masks / "d.nii.gz").unlink()
    measured = run(
        "statistics", "--masks", masks, "--scans", scans, "-p", toy.folder, "-o", tmp_path / "new"
    )
    assert measured.returncode == 0, measured.stderr
    assert (tmp_path / "new" / "report.html").is_file()
    columns = slice(0, 20)  # flags also tell of locator and rules when a scan is segmented

    def rows_of(path):
        with path.open() as stream:
            return [row[columns] for row in csv.reader(stream)]

    assert rows_of(tmp_path / "new" / "statistics.csv") == rows_of(report / "statistics.csv")


def test_masks_that_cannot_be_measured_are_named_and_the_others_are(report, tmp_path):
    masks = tmp_path / "out"
    (masks / "b.nii.gz").write_bytes(b"torn")
    floats = np.full((14, 20, 9), 0.5, np.float32)
    nibabel.save(nibabel.Nifti1Image(floats, np.eye(4)), masks / "c.nii.gz")
    measured = run(
        "statistics", "--masks", masks, "--scans", tmp_path / "inputs", "-o", tmp_path / "new"
    )
    assert measured.returncode == 1
    for words in ("b: ", "c: ", "is not a label map", "d: ", "1 of 4 masks measured"):
        assert words in measured.stderr
    assert "label 1" in (tmp_path / "new" / "statistics.csv").read_text()
    assert report.is_dir()


def test_a_folder_without_masks_or_of_the_inputs_is_refused(report, tmp_path):
    (tmp_path / "empty").mkdir()
    assert run("statistics", "--masks", tmp_path / "empty", "-o", tmp_path / "x").returncode == 3
    assert run("statistics", "--masks", tmp_path / "out", "-o", tmp_path / "out").returncode == 2
    assert report.is_dir()
