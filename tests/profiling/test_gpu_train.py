"""The training command, dry-run on the CPU with a tiny dataset."""

from __future__ import annotations

import argparse
import json

import gpu_train
import nibabel
import numpy as np
import pytest

from flarekit.core.spec import read_spec
from flarekit.training.recipe import read_recipe
from tests.training.conftest import RECIPE


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


@pytest.mark.long
def test_a_child_trains_shows_and_its_weights_become_a_predictor(data, tmp_path):
    import time

    gpu_train.pack(data, tmp_path / "pack", ["tiny"], 8)
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    (work / "tiny").mkdir(parents=True)
    arguments = argparse.Namespace(
        pack=tmp_path / "pack", name="tiny", out=out, work=work, device="cpu", quick=True,
        processes=1, began=time.time(), until=time.time() + gpu_train._LAST_S + 4,
    )  # fmt: skip
    gpu_train.child(arguments)
    status = json.loads((work / "tiny" / "progress.json").read_text())
    assert status["saved"]["steps"] > 0
    assert status["ms_to_draw"] > 0
    gpu_train._Archives(out, work, ["tiny"]).update()
    assert [path.name for path in out.iterdir()] == ["weights-0.tar.gz"]
    (out / "train.json").write_text(json.dumps({"predictors": {"tiny": status}}))
    gpu_train.export(out, tmp_path / "made")
    predictor = read_spec(tmp_path / "made" / "tiny")
    assert predictor.spec.labels == {"liver": 1, "spleen": 3}
    assert predictor.spec.provenance["steps"] == status["saved"]["steps"]


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
