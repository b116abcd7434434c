"""`flarekit job`: which weights run, and what the platform gets to see when something is wrong."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK

from flarekit.cli.console import Console
from flarekit.cli.job import run_job
from flarekit.cli.requests import JobFolders
from flarekit.core.budget import Budget
from flarekit.core.errors import PredictorError
from flarekit.core.records import CaseRecord, RunRecord
from flarekit.core.spec import read_spec
from flarekit.segmentation.folder import Options
from flarekit.segmentation.job import predictor_of_job

SETTINGS = """
[convention_settings]
[[convention_settings.outputs]]
path = "images/organ-segmentation"
kind = "Segmentation"
"""


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "input" / "images" / "ct").mkdir(parents=True)
    (tmp_path / "output").mkdir()
    return JobFolders(
        inputs=tmp_path / "input", outputs=tmp_path / "output", model=tmp_path / "model"
    )


@pytest.fixture
def platform_toy(toy):
    """Return the toy as a predictor for the platform."""
    file = toy.folder / "predictor.toml"
    text = file.read_text().replace('"flare"', '"grandchallenge"')
    head, rest = text.split("[architecture]", 1)
    file.write_text(head + SETTINGS + "\n[architecture]" + rest)
    return read_spec(toy.folder)


def write_ct(folders, voxels=None):
    voxels = np.zeros((9, 20, 14), np.int16) if voxels is None else voxels
    image = SimpleITK.GetImageFromArray(voxels)
    SimpleITK.WriteImage(image, folders.inputs / "images" / "ct" / "a.mha")


def run(toy, folders):
    options = Options(device="cpu", time_budget_s=0)
    return run_job(str(toy.folder), folders, options, Console())


def test_without_an_upload_the_image_s_own_predictor_runs(toy, tmp_path):
    for model in (tmp_path / "absent", tmp_path):
        assert predictor_of_job(str(toy.folder), model / "empty").folder == toy.folder


def test_an_uploaded_predictor_goes_first_also_one_folder_down(toy, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(toy.folder, model / "inner")
    assert predictor_of_job("abdomen_ct", model).folder == model / "inner"
    shutil.copytree(toy.folder, tmp_path / "flat")
    assert predictor_of_job("abdomen_ct", tmp_path / "flat").folder == tmp_path / "flat"


def test_two_uploaded_predictors_are_refused(toy, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(toy.folder, tmp_path / "model" / name)
    with pytest.raises(PredictorError, match="2 predictors \\(one, two\\)"):
        predictor_of_job("abdomen_ct", tmp_path / "model")


def test_uploaded_weights_without_facts_are_refused(toy, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(toy.folder / "model.safetensors", model)
    with pytest.raises(PredictorError, match=r"model.safetensors but no predictor.toml"):
        predictor_of_job("abdomen_ct", model)


def test_an_upload_of_something_else_is_left_aside_and_said(toy, tmp_path, caplog):
    model = tmp_path / "model"
    model.mkdir()
    (model / "notes.txt").write_text("hello")
    assert predictor_of_job(str(toy.folder), model).folder == toy.folder
    assert "holds no predictor" in caplog.text


def test_a_job_writes_its_outputs_and_ends_with_0(platform_toy, folders):
    write_ct(folders)
    assert run(platform_toy, folders) == 0
    assert (folders.outputs / "images" / "organ-segmentation" / "a.mha").is_file()


def test_a_failed_job_says_why_on_its_last_line(platform_toy, folders, capfd):
    (folders.inputs / "images" / "ct" / "a.mha").write_bytes(b"<html>no</html>")
    assert run(platform_toy, folders) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "a.mha" in last


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory of this machine"),
        (MemoryError(), "memory of this machine"),
        (KeyError("x"), "an unexpected KeyError ended the job"),
    ],
)
def test_whatever_happens_the_last_line_is_a_sentence(
    platform_toy, folders, capfd, monkeypatch, error, words
):
    def fail(*_):
        raise error

    monkeypatch.setattr("flarekit.cli.job.segment_folder", fail)
    assert run(platform_toy, folders) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last


def record_of(*errors):
    return RunRecord(
        predictor="toy",
        convention="uls23",
        mode="fast",
        engine="torch",
        device="cpu",
        device_name="a processor",
        precision="fp32",
        budget=Budget(),
        seconds={},
        wall_s=1.0,
        cases=tuple(
            CaseRecord(case_id=f"voi-{i}", mask=None, error=error) for i, error in enumerate(errors)
        ),
    )


@pytest.mark.parametrize(
    ("errors", "code", "words"),
    [
        ((None, "too odd", None), 0, "voi-1 failed and got a stand-in"),
        (("too odd", "too odd"), 1, "2 of 2 cases failed"),
        ((None,), 0, "1 of 1 cases segmented"),
    ],
)
def test_a_stack_is_not_lost_for_one_of_its_parts(
    platform_toy, folders, capfd, monkeypatch, errors, code, words
):
    monkeypatch.setattr("flarekit.cli.job.segment_folder", lambda *_: record_of(*errors))
    assert run(platform_toy, folders) == code
    assert words in capfd.readouterr().err
