"""What a locator saves and costs."""

from __future__ import annotations

import json

import bench_anytime
import bench_locator
import numpy as np
import pytest


@pytest.fixture
def petct(make_located):
    return make_located("autopet", {"lesion": 1}, channels=2)


@pytest.fixture
def pets(write_scan, tmp_path):
    """A folder with one real body, which has a lesion and no CT."""
    suv, lesion = np.zeros((72, 96, 96), np.float32), np.zeros((72, 96, 96), np.uint8)
    suv[8:64, 8:88, 8:88] = 1
    lesion[20:40, 20:40, 20:40] = 1
    write_scan(tmp_path / "x_suv.nii.gz", suv + 3 * lesion)
    write_scan(tmp_path / "x_label.nii.gz", lesion)
    return tmp_path


@pytest.mark.long
def test_every_way_of_a_body_has_figures_tiles_and_processor_time(petct, pets, tmp_path):
    options = ["--split", "pets", "--pets", str(pets), "--case", "x", "--quick"]
    output = tmp_path / "results"
    assert bench_locator.main([str(petct.folder), *options, "--output", str(output)]) == 0
    (path,) = output.iterdir()
    result = json.loads(path.read_text())
    (rows,) = result["cases"].values()
    assert list(rows) == ["without", "with", "half", "alone"] == list(result["summary"])
    assert rows["alone"]["tiles"] == 0 < rows["half"]["tiles"] <= rows["with"]["tiles"]
    assert all(row["cpu_s"] > 0 and row["dice"] is not None for row in rows.values())


def test_a_predictor_without_a_locator_is_refused(make_predictor, capsys, tmp_path):
    line = ["--split", "pets", "--quick", "--output", str(tmp_path)]
    assert bench_locator.main([str(make_predictor().folder), *line]) == 2
    assert "has no locator" in capsys.readouterr().err


def test_a_predictor_of_another_layout_is_refused(located, capsys, tmp_path):
    line = ["--split", "pets", "--quick", "--output", str(tmp_path)]
    assert bench_locator.main([str(located.folder), *line]) == 2
    assert "tiny: finds no lesions as autoPET lays them out" in capsys.readouterr().err


def test_sums_leave_out_what_an_empty_truth_does_not_define():
    row = {"fpv_ml": 2.0, "found": 1.0, "missed": 0.0, "spurious": 1.0, "tiles": 3, "cpu_s": 0.5}
    cases = {
        "a": {"with": {**row, "dice": 0.5, "fnv_ml": 1.0}},
        "b": {"with": {**row, "dice": None, "fnv_ml": None}},
    }
    told = bench_locator.summary(cases)["with"]
    assert told["dice"] == 0.5
    assert told["fpv_ml"] == 4.0
    assert told["fnv_ml"] == 1.0
    assert told["tiles"] == 6


def test_half_of_the_tiles_are_the_best_ones_rounded_up():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Placed:
        plan: object

    @dataclass(frozen=True)
    class Plan:
        tiles: tuple[int, ...]

    kept = bench_locator.best(0.5)(Placed(Plan((5, 3, 8))))
    assert kept.plan.tiles == (5, 3)
    assert bench_locator.best(0.0)(Placed(Plan((5, 3, 8)))).plan.tiles == ()


def test_anytime_runs_over_real_bodies(petct, pets, tmp_path):
    line = [str(petct.folder), "--pets", str(pets), "--bodies", "x", "--quick"]
    arguments = bench_anytime.parse_arguments([*line, "--output", str(tmp_path)])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (trial,) = bench_anytime.trials(arguments, petct, scratch)
    assert [path.name for path in trial.truths.iterdir()] == ["x_flat_ct.mha"]
    assert len(list(trial.inputs.rglob("x_flat_ct.mha"))) == 2
