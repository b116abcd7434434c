"""Volumes and statistics of labels: in the record, in statistics.csv and in Python."""

from __future__ import annotations

import csv
import json
import math
import time
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from flarekit.cli.predict import given_up
from flarekit.segmentation import context, measuring
from flarekit.segmentation.folder import Options, Report, segment_folder
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source
from flarekit.segmentation.speeds import Speeds
from tests.segmentation.test_anytime import facts, segmenter_of

EXACT = Options(device="cpu", precision="fp32")


@pytest.fixture
def inputs(tmp_path, write_scan):
    folder = tmp_path / "inputs"
    folder.mkdir()
    write_scan(folder / "a_0000.nii.gz")
    return folder


def table_of(folder):
    with (folder / "statistics.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_report_has_statistics_of_every_label_measured_in_the_scan_itself(toy, inputs, tmp_path):
    report = Report(tmp_path / "report", pictures=False)
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT, report=report)
    image = nibabel.load(tmp_path / "out" / "a.nii.gz")
    mask, scan = np.asarray(image.dataobj), nibabel.load(inputs / "a_0000.nii.gz").get_fdata()
    rows = {row["label"]: row for row in table_of(tmp_path / "report")}
    assert set(rows) == {"organ", "lesion"}
    for name, value in toy.spec.labels.items():
        row, inside = rows[name], mask == value
        assert inside.any()
        ml = inside.sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000
        assert float(row["volume_ml"]) == pytest.approx(ml, rel=1e-4)
        assert record.cases[0].volumes_ml[name] == pytest.approx(ml)
        assert (row["case"], row["channel"]) == ("a", "CT")
        assert float(row["mean"]) == pytest.approx(scan[inside].mean(), rel=1e-4)
        centre = image.affine[:3] @ [*(axis.mean() for axis in np.nonzero(inside)), 1]
        found = [float(row[f"{axis}_mm_ras"]) for axis in "xyz"]
        assert found == pytest.approx(centre.tolist(), rel=1e-4)


def test_volumes_stand_in_the_ledger_and_in_the_record_of_the_run(toy, inputs, tmp_path):
    report = Report(tmp_path / "report", pictures=False)
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT, report=report)
    line = json.loads((tmp_path / "report" / "ledger.jsonl").read_text())
    run = json.loads((tmp_path / "report" / "run.json").read_text())
    assert line["volumes_ml"] == run["volumes_ml"]["a"] == record.cases[0].volumes_ml
    assert len(record.cases[0].statistics) == 2


def test_without_a_report_there_are_volumes_alone(toy, inputs, tmp_path):
    (case,) = segment_folder(toy, inputs, tmp_path / "out", EXACT).cases
    assert set(case.volumes_ml) == {"organ", "lesion"}
    assert case.statistics == ()


def test_a_failed_case_has_no_line_and_a_second_run_begins_a_new_table(toy, inputs, tmp_path):
    (inputs / "b_0000.nii.gz").write_bytes(b"no scan")
    for _ in range(2):
        report = Report(tmp_path / "report", pictures=False)
        record = segment_folder(toy, inputs, tmp_path / "out", EXACT, report=report)
    assert [case.case_id for case in record.failed] == ["b"]
    assert [row["case"] for row in table_of(tmp_path / "report")] == ["a", "a"]
    assert set(json.loads((tmp_path / "report" / "run.json").read_text())["volumes_ml"]) == {"a"}


def test_statistics_that_do_not_fit_into_memory_are_left_out_and_named(
    toy, inputs, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("flarekit.segmentation.memory._MEASURE_PER_VOXEL", 10**12)
    options = replace(EXACT, ram_budget_mib=1e6)
    report = Report(tmp_path / "report", pictures=False)
    (case,) = segment_folder(toy, inputs, tmp_path / "out", options, report=report).cases
    assert case.error is None
    assert case.mask.is_file()
    assert case.volumes_ml["organ"] > 0
    assert "no statistics of the labels" in caplog.text
    assert any("no statistics of the labels" in note for note in case.warnings)
    assert table_of(tmp_path / "report") == []


def test_the_time_for_statistics_is_kept_free_for_them():
    geometry = context.Geometry(shape_ZYX=(10, 20, 30), affine=np.eye(4), header=None)
    speeds = Speeds(None)
    speeds.learn("statistics", 3.0, math.prod(geometry.shape_ZYX))
    compute = context.Compute(engine=None, speeds=speeds)
    run = context.RunContext(spec=None, compute=lambda: compute, memory=None)
    wanted = context.CaseExtras(statistics=True)
    expected = speeds.at_most("statistics", math.prod(geometry.shape_ZYX))
    assert expected >= 3.0  # what was seen once may take longer
    assert run.for_mask(100.0, geometry, wanted) == pytest.approx(100.0 - expected)
    assert run.for_mask(None, geometry, wanted) is None
    assert run.for_mask(100.0, geometry, context.CaseExtras()) > 99.9


@pytest.fixture
def slow_statistics(still, monkeypatch):  # noqa: ARG001 - nothing but their sleep takes time
    """Let statistics of labels take 0.8 s."""
    measured = measuring.label_statistics

    def slow(*arguments):
        time.sleep(0.8)
        return measured(*arguments)

    monkeypatch.setattr(measuring, "label_statistics", slow)


@pytest.mark.usefixtures("slow_statistics")
def test_a_tight_budget_is_kept_with_statistics_that_take_long(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.segmentation.test_anytime.Bright.tile_s", 0.1)
    from flarekit.segmentation.folder import run_folder

    with segmenter_of(budget_s=3.0) as segmenter:
        for _ in range(3):  # how long they take is learnt
            report = Report(tmp_path / "report", pictures=False)
            record = run_folder(segmenter, inputs, tmp_path / "out", EXACT, report=report)
        (case,) = record.cases
    assert case.statistics
    assert case.seconds["statistics"] >= 0.8
    assert case.wall_s < 3.1


@pytest.mark.long
@pytest.mark.usefixtures("slow_statistics")
def test_statistics_are_left_out_where_the_mask_itself_is_late(inputs, tmp_path):
    from flarekit.segmentation.folder import run_folder

    with segmenter_of(budget_s=60) as segmenter:
        report = Report(tmp_path / "report", pictures=False)
        run_folder(segmenter, inputs, tmp_path / "out", EXACT, report=report)
        segmenter.budget = replace(segmenter.budget, time_s=0.1)
        record = run_folder(segmenter, inputs, tmp_path / "out", EXACT, report=report)
    (case,) = record.cases
    assert case.mask.is_file()
    assert case.volumes_ml["organ"] > 0
    assert case.statistics == case.flags == ()
    assert case.traded[-1] == "no statistics of the labels, and no flags"
    assert case.traded[-1] in given_up(record)
    assert case.wall_s < 0.3


def test_labels_are_measured_in_uptake_as_well_where_a_channel_is_pet():
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, image):
            logits = self.scale * (image[:, 1:2] - 0.5)
            return torch.cat([-logits, logits], dim=1)

    two = facts([16, 16, 16], 2.0)
    scale = {"kind": "scale", "divisor": 1.0}
    two["channels"] = [*two["channels"], {"name": "PET", "intensity": scale}]
    options = Options(engine="torch", device="cpu", precision="fp32", mode="exact")
    ct = np.full((16, 20, 20), 40, np.int16)
    pet = np.zeros(ct.shape, np.float32)
    pet[4:12, 4:12, 4:12] = 8
    with Segmenter(Source.of_module(Network(), two), options) as segmenter:
        (found,) = segmenter.segment([ct, pet], spacing_mm=(2, 2, 2), statistics=True).statistics
    assert found.intensities["CT"] == pytest.approx((40, 0))
    assert found.intensities["PET"] == pytest.approx((8, 0))
    assert found.voxels == 512


def test_results_are_measured_at_once_or_when_they_are_first_asked_for(toy, inputs):
    scan = inputs / "a_0000.nii.gz"
    with Segmenter(Source.of_folder(toy), EXACT) as segmenter:
        at_once = segmenter.segment(scan, statistics=True)
        later = segmenter.segment(scan)
    assert later.statistics == at_once.statistics
    assert {s.label: s.volume_ml for s in later.statistics} == {
        name: pytest.approx(ml) for name, ml in later.volumes_ml.items()
    }
    scan.unlink()
    assert len(at_once.statistics) == len(later.statistics) == 2
