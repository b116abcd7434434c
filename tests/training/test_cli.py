from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from flarekit.cli.main import app
from flarekit.core.errors import InputError, UsageError
from flarekit.core.spec import read_spec
from tests.training.test_cases import write_dataset


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.mark.long
def test_a_recipe_becomes_a_run_and_the_run_a_predictor(recipe, tmp_path):
    dataset = write_dataset(tmp_path / "d", ["a", "case_b"])
    out = tmp_path / "run"
    made = run(
        "compact", tmp_path / "recipe.toml", dataset, out, "--minutes", 0.02, "--device", "cpu"
    )
    assert made.exit_code == 0, made.output
    exported = run("export", out, tmp_path / "tiny")
    assert exported.exit_code == 0, exported.output
    spec = read_spec(tmp_path / "tiny").spec
    assert spec.name == recipe.spec.name
    assert spec.provenance["steps"] >= 1


def test_a_folder_that_is_no_run_is_named(tmp_path):
    result = run("export", tmp_path, tmp_path / "out")
    assert isinstance(result.exception, InputError)
    assert "plans.json" in str(result.exception)


def test_help_names_the_four_commands():
    text = run("--help").output
    assert all(name in text for name in ("compact", "plan", "run", "export"))


@pytest.mark.usefixtures("recipe")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--minutes", 0), "--minutes 0: leaves no time to train"),
        (("--minutes", -5), "--minutes -5: leaves no time"),
        (("--material", "scans"), r"--material scans: the recipe has no table \[training.synth"),
        (("--negatives", "scans"), r"--negatives scans: the recipe has no table \[training.neg"),
    ],
)
def test_an_option_that_trains_nothing_is_refused_before_anything_is_prepared(
    tmp_path, option, message
):
    dataset = write_dataset(tmp_path / "d", ["a", "case_b"])
    result = run("compact", tmp_path / "recipe.toml", dataset, tmp_path / "run", *option)
    assert isinstance(result.exception, UsageError)
    assert re.match(message, str(result.exception))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", [("--folds", 0), ("--checkpoint", "best"), ("-c", "uls23")])
def test_options_of_an_nnunet_result_are_refused_for_a_run(tmp_path, option):
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    result = run("export", tmp_path, tmp_path / "out", *option)
    assert isinstance(result.exception, UsageError), result.output
    assert "apply to an nnU-Net result" in str(result.exception)
