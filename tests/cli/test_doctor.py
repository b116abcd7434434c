"""`flarekit doctor` tells what works by trying it; only what is here and broken is a fault."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from flarekit import engine
from flarekit.cli import doctor
from flarekit.cli.main import app
from tests.processor import AVX2_ONLY, WITH_AVX512


def run(*arguments):
    return CliRunner().invoke(app, ["doctor", *arguments])


@pytest.fixture
def _toys_only(toy, monkeypatch):
    monkeypatch.setattr("flarekit.segmentation.predictors.predictor_folders", lambda: [toy.folder])


@pytest.mark.usefixtures("_toys_only")
def test_what_works_is_told_and_what_is_missing_is_no_fault(caplog):
    result = run("--json")
    assert result.exit_code == 0
    assert not caplog.records
    found = {(each["topic"], each["what"]): each for each in json.loads(result.stdout)}
    assert found["engine", "torch"]["state"] == "ok"
    assert f"{torch.__version__} runs in" in found["engine", "torch"]["found"]
    assert found["scan", "chunked on cpu"]["state"] == "ok"
    assert {what for topic, what in found if topic == "folder"} == {"cache", "ledgers of runs"}
    assert found["predictor", "toy"]["state"] == "ok"
    assert {each["state"] for each in found.values()} <= {"ok", "absent"}


@pytest.mark.usefixtures("_toys_only")
def test_damaged_weights_are_a_fault(toy):
    toy.weights.write_bytes(toy.weights.read_bytes()[:-1] + b"x")
    result = run()
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("!")]
    assert line.split()[:3] == ["!", "predictor", "toy"]
    assert "1 of these do not work" in result.stderr


def test_an_engine_that_is_there_and_fails_is_a_fault(monkeypatch):
    def create(*_arguments, **_options):
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(engine, "create", create)
    found = doctor._engine("torch", "cpu")
    assert found.state == "broken"
    assert "illegal instruction" in found.found


def test_a_driver_that_is_too_old_is_a_fault(monkeypatch):
    monkeypatch.setattr("flarekit.engine._cuda_driver.installed_driver", lambda: "470.10.01")
    monkeypatch.setattr("torch.version.cuda", "12.6")
    (found,) = doctor._gpus()
    assert found.state == "broken"
    assert "too old" in found.found


@pytest.mark.parametrize(
    ("processor", "told"),
    [(AVX2_ONLY, "fp32; bf16 is not"), (WITH_AVX512 + " avx512_bf16", "bf16 and fp32")],
)
def test_the_precisions_of_the_processor_are_told(monkeypatch, processor, told):
    monkeypatch.setattr("flarekit.engine._cpu._cpu_info", lambda: processor)
    (found,) = [each for each in doctor._machine() if each.what == "precisions"]
    assert found.found.startswith(told)
