"""The training command, dry-run on the CPU with a tiny dataset."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import gpu_train
import nibabel
import numpy as np
import pytest
import torch
from gpu.step_size import batch_within, kept_mib, sized, with_batch

from flarekit.core.spec import read_spec
from flarekit.training.recipe import read_recipe, recipe_of
from flarekit.training.recipe_changes import changes_between
from tests.training.conftest import RECIPE

ROOT = Path(__file__).parents[2]
RECIPES = [
    ROOT / "weights" / name / "recipe.toml" for name in gpu_train.DATASETS if "/" not in name
]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A dataset of two cases, one of them held out, and a recipe for it."""
    folder = tmp_path / "data" / "Dataset001_Tiny"
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[8:20, 8:20, 8:20] = 1
    labels[24:32, 24:32, 8:20] = 3
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in ("case_a", "case_b"):
        noise = np.random.default_rng(0).normal(0, 12, labels.shape)
        hu = (np.array([-100, 110, 0, 130])[labels] + noise).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(hu, affine), folder / "imagesTr" / f"{case}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "labelsTr" / f"{case}.nii.gz")
    recipe = tmp_path / "weights" / "tiny" / "recipe.toml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(RECIPE)
    monkeypatch.setattr(gpu_train, "_ROOT", tmp_path)
    monkeypatch.setattr(gpu_train, "DATASETS", {"tiny": gpu_train.Data(dataset="Dataset001_Tiny")})
    return tmp_path / "data"


def test_a_pack_leaves_held_out_cases_behind_and_keeps_intensities(data, tmp_path):
    size = gpu_train.pack(data, tmp_path / "pack", ["tiny"], 6)
    packed = sorted(path.name for path in (tmp_path / "pack").rglob("*.nii.gz"))
    assert packed == ["case_a.nii.gz", "case_a_0000.nii.gz"]
    assert 0 < size < 1
    scan, small = (
        np.asarray(nibabel.load(next(folder.rglob("case_a_0000.nii.gz"))).dataobj, float)
        for folder in (data, tmp_path / "pack")
    )
    assert np.abs(scan - small).max() <= 4  # half a step of 500 / 64 HU
    assert abs(float((scan - small).mean())) < 0.5


def test_predictors_that_need_a_scan_otherwise_have_it_in_a_folder_of_theirs(
    data, tmp_path, monkeypatch
):
    both = {
        "tiny": gpu_train.Data(dataset="Dataset001_Tiny"),
        "parts": gpu_train.Data(
            dataset=".",
            parts=("Dataset001_Tiny",),
            material=("Dataset001_Tiny",),
            under="parts",
            ranges=((-50.0, 50.0),),
            bits=8,
        ),
    }
    monkeypatch.setattr(gpu_train, "DATASETS", both)
    monkeypatch.setattr(gpu_train, "_recipe_path", lambda _: tmp_path / "weights/tiny/recipe.toml")
    scan = data / "Dataset001_Tiny" / "imagesTr" / "case_a_0000.nii.gz"
    scan.with_name("case_a_0001.nii.gz").write_bytes(scan.read_bytes())
    gpu_train.pack(data, tmp_path / "pack", ["parts", "tiny"], 6)
    folder = tmp_path / "pack" / "parts" / "Dataset001_Tiny"
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == ["case_a_0000.nii.gz"]
    widths = [
        np.ptp(np.asarray(nibabel.load(path).dataobj, float))
        for path in (folder, tmp_path / "pack" / "Dataset001_Tiny")
        for path in path.rglob("case_a_0000.nii.gz")
    ]
    assert widths[0] == pytest.approx(100, abs=1)
    assert widths[1] > 250


def test_predictors_whose_data_do_not_fit_are_left_out_and_their_files_go(
    data, tmp_path, monkeypatch, capsys
):
    both = {
        "tiny": gpu_train.Data(dataset="Dataset001_Tiny"),
        "more": gpu_train.Data(dataset="Dataset001_Tiny", under="more", bits=8),
        "again": gpu_train.Data(dataset="Dataset001_Tiny"),
    }
    monkeypatch.setattr(gpu_train, "DATASETS", both)
    monkeypatch.setattr(gpu_train, "_recipe_path", lambda _: tmp_path / "weights/tiny/recipe.toml")
    whole = gpu_train.pack(data, tmp_path / "whole", ["tiny"], 6)
    line = ["gpu_train.py", "pack", str(data), "--to", str(tmp_path / "pack")]
    monkeypatch.setattr("sys.argv", [*line, "--max-mib", str(whole + 1e-4)])
    gpu_train.main()
    told = json.loads((tmp_path / "pack" / "pack.json").read_text())
    assert told == {"predictors": ["tiny", "again"], "left_out": ["more"]}
    files = [path.name for path in (tmp_path / "pack").rglob("*.gz")]
    assert sorted(files) == ["case_a.nii.gz", "case_a_0000.nii.gz"]
    assert "left out" in capsys.readouterr().out


def test_a_quick_pack_has_one_case_of_each_folder(data, tmp_path):
    (data / "Dataset001_Tiny" / "imagesTr" / "case_b_0000.nii.gz").rename(
        data / "Dataset001_Tiny" / "imagesTr" / "case_c_0000.nii.gz"
    )
    (data / "Dataset001_Tiny" / "labelsTr" / "case_b.nii.gz").rename(
        data / "Dataset001_Tiny" / "labelsTr" / "case_c.nii.gz"
    )
    gpu_train.pack(data, tmp_path / "pack", ["tiny"], 6, quick=True)
    packed = sorted(path.name for path in (tmp_path / "pack").rglob("*.nii.gz"))
    assert packed == ["case_a.nii.gz", "case_a_0000.nii.gz"]


@pytest.mark.slow
def test_a_child_trains_shows_and_its_weights_become_a_predictor(data, tmp_path, monkeypatch):
    import time

    saved = []
    keep = gpu_train._Progress.saved
    monkeypatch.setattr(gpu_train, "_SHOW_S", 0.0)
    monkeypatch.setattr(gpu_train, "_QUICK_S", 3.0)
    monkeypatch.setattr(
        gpu_train._Progress,
        "saved",
        lambda self, effort: (saved.append(effort), keep(self, effort)),
    )
    gpu_train.pack(data, tmp_path / "pack", ["tiny"], 8)
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    (work / "tiny").mkdir(parents=True)
    arguments = argparse.Namespace(
        pack=tmp_path / "pack", name="tiny", out=out, work=work, device="cpu", quick=True,
        room_mib=1000.0, began=time.time(), until=time.time() + gpu_train._LAST_S + 4,
    )  # fmt: skip
    gpu_train.child(arguments)
    status = json.loads((work / "tiny" / "progress.json").read_text())
    assert saved[0]["steps"] == 1  # on the way already
    assert status["saved"] == saved[-1] != saved[0]
    assert status["ms_to_draw"] > 0
    gpu_train._Archives(out, work, ["tiny"]).update()
    assert [path.name for path in out.iterdir()] == ["weights-0.tar.gz"]
    (out / "train.json").write_text(json.dumps({"predictors": {"tiny": status}}))
    gpu_train.export(out, tmp_path / "made")
    predictor = read_spec(tmp_path / "made" / "tiny")
    assert predictor.spec.labels == {"liver": 1, "spleen": 3}
    assert predictor.spec.provenance["steps"] == status["saved"]["steps"]
    made = read_recipe(tmp_path / "made" / "tiny" / "recipe.toml").training
    assert made.batch == status["batch"] == 4


@pytest.mark.usefixtures("data")
def test_a_quick_recipe_keeps_what_is_trained():
    recipe = read_recipe(gpu_train._recipe_path("tiny"))
    quick = gpu_train._quick(recipe)
    assert quick.spec == recipe.spec
    assert quick.training.batch == 1


def test_no_archive_of_weights_is_too_large_to_send(tmp_path, monkeypatch):
    sizes = {"a": 9e6, "b": 10e6, "c": 16e6, "d": 4e6, "e": 1e6}
    monkeypatch.setattr(gpu_train, "_expected_bytes", sizes.__getitem__)
    groups = gpu_train._Archives(tmp_path, tmp_path, list(sizes))._groups
    assert sorted(name for group in groups for name in group) == sorted(sizes)
    assert all(sum(sizes[name] for name in group) <= 15.9 * 2**20 for group in groups)
    assert len(groups) == 3


def test_unknown_predictors_are_named():
    with pytest.raises(argparse.ArgumentTypeError, match="no predictor nothing"):
        gpu_train._names("abdomen_ct,nothing")


CHILD = """
import json, sys
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
is_alone = not list(folder.glob("*.at-work"))
at_work = folder / f"{name}.at-work"
at_work.touch()
(folder / f"{name}.json").write_text(json.dumps({"alone": is_alone}))
at_work.unlink()
"""


@pytest.mark.long
def test_a_dry_run_trains_as_many_at_once_as_there_are_cores(tmp_path, monkeypatch):
    rooms = []

    def start(name, arguments, began, until, room_mib):
        assert until - began == pytest.approx(60 * arguments.minutes)
        rooms.append(room_mib)
        return subprocess.Popen([sys.executable, "-S", "-c", CHILD, str(tmp_path), name])

    monkeypatch.setattr(gpu_train, "_start", start)
    monkeypatch.setattr(gpu_train, "prepare", lambda _: None)
    monkeypatch.setattr(gpu_train, "_expected_bytes", lambda _: 1.0)
    monkeypatch.setattr(gpu_train.os, "cpu_count", lambda: 1)
    names = ["a", "b", "c"]
    arguments = argparse.Namespace(
        out=tmp_path / "out", work=tmp_path, predictors=names, minutes=60.0, device="cpu",
        quick=True, room_mib=900.0,
    )  # fmt: skip
    assert gpu_train.run(arguments) == 0
    told = [json.loads((tmp_path / f"{name}.json").read_text())["alone"] for name in names]
    assert (told, rooms) == ([True] * 3, [300.0] * 3)
    facts = json.loads((tmp_path / "out" / "train.json").read_text())["facts"]
    assert facts["room_mib"] == 900


def test_what_there_was_no_time_to_begin_is_said_and_counts_as_failed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(gpu_train, "prepare", lambda _: None)
    monkeypatch.setattr(gpu_train, "_expected_bytes", lambda _: 1.0)
    arguments = argparse.Namespace(
        out=tmp_path / "out", work=tmp_path, predictors=["a"], minutes=-1.0, device="cpu",
        quick=True, room_mib=0.0,
    )  # fmt: skip
    assert gpu_train.run(arguments) == 1
    assert "a                          no step; not begun: the time was up" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_a_gpu_has_a_batch_of_its_own_and_a_smaller_one_where_there_is_little_room(path):
    recipe = read_recipe(path)
    usual = 24 if recipe.flat else 4
    assert batch_within(recipe, 1e5, 100.0) == max(usual, recipe.training.batch)
    assert batch_within(recipe, 500.0, 100.0) == 3
    assert batch_within(recipe, 1.0, 100.0) == 1
    larger = with_batch(recipe, 2 * usual)
    rates = [each.regime.optimiser.learning_rate for each in (recipe, larger)]
    assert rates[0] <= rates[1] <= max(4e-3, rates[0])
    assert recipe_of(larger.text, tomllib.loads(larger.text), path).training == larger.training
    assert changes_between(recipe, larger)
    assert all(
        "batch" in each or "learning_rate" in each for each in changes_between(recipe, larger)
    )
    assert with_batch(recipe, recipe.training.batch) is recipe


@pytest.mark.usefixtures("data")
def test_the_room_of_a_step_is_what_its_forward_keeps():
    recipe = read_recipe(gpu_train._recipe_path("tiny"))
    cpu = torch.device("cpu")
    larger = recipe.training.model_copy(update={"tile_ZYX": (32, 16, 16)})
    one, two = (kept_mib(each, cpu) for each in (recipe, replace(recipe, training=larger)))
    assert 0.05 < one < 2
    assert two == pytest.approx(2 * one, rel=0.05)
    assert sized(recipe, 5 * one, cpu).training.batch == 3


def run_quickly(names, data, tmp_path):
    """Pack, train and export by the commands, and return what is said of the trainings."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pack, out, work, made = (str(tmp_path / name) for name in ("pack", "out", "work", "made"))
    of = ["--predictors", ",".join(names)]
    quickly = ["--device", "cpu", "--quick", "--minutes", "30"]
    quickly += ["--room-mib", str(300 * len(names))]
    for line in (
        ["pack", str(data), "--to", pack, "--quick", *of],
        ["run", pack, "--out", out, "--work", work, *quickly],
        ["export", out, made],
    ):
        done = subprocess.run(
            [sys.executable, "profiling/gpu_train.py", *line],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "out" / "train.json").read_text())["predictors"]
    for name in names:
        assert told[name]["saved"]["steps"] > 0
        assert told[name]["batch"] > 1  # which is a dry run's own where no room is named
        assert read_spec(tmp_path / "made" / name).spec.provenance["steps"] > 0
    return told


@pytest.mark.data
def test_a_dry_run_of_the_commands_packs_trains_and_exports(shared, tmp_path):
    run_quickly(["mamba_ahnet_mr"], shared / "data", tmp_path)


@pytest.mark.data
@pytest.mark.slow
def test_a_dry_run_of_the_commands_trains_every_recipe(shared, tmp_path):
    told = run_quickly(list(gpu_train.DATASETS), shared / "data", tmp_path)
    assert set(told) == set(gpu_train.DATASETS)
