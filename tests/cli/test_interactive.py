"""`flarekit evaluate interactive`: a predictor played as autoPET's organiser plays images."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest
from typer.testing import CliRunner

from flarekit.cli.main import app
from flarekit.core.errors import InputError, UsageError
from tests.verification.fake_images import FakeSandbox

SHAPE = (8, 16, 20)


@pytest.fixture
def played(make_toy, tmp_path, write_scan):
    """Return a predictor of two channels with the rule `clicks`, and a folder of truths."""
    toy = make_toy(channels=2)
    path = toy.folder / "predictor.toml"
    label = next(iter(toy.spec.labels))
    text = path.read_text().replace('convention = "flare"', 'convention = "autopet"', 1)
    text = text.replace('name = "CT"', 'name = "PET"').replace('name = "PET"', 'name = "CT"', 1)
    rule = f'\n[[rules]]\nname = "clicks"\nlabels = ["{label}"]\nvalue = 0.41\n'
    settings = f'\n[convention_settings]\nlesion = "{label}"\n'
    path.write_text(text.replace("[weights]", rule + settings + "\n[weights]", 1))
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:6, 4:10, 5:12] = 1
    for case in ("a", "b"):
        write_scan(tmp_path / "labelsTr" / f"{case}.nii.gz", mask)
        for channel, voxels in enumerate((mask * 100 - 50, mask * 6 + 1)):
            place = tmp_path / "imagesTr" / f"{case}_000{channel}.nii.gz"
            write_scan(place, voxels.astype(np.int16))
    return toy.folder, tmp_path / "labelsTr"


def play(*arguments):
    line = ["evaluate", "interactive", *map(str, arguments), "--device", "cpu"]
    return CliRunner().invoke(app, line)


@pytest.mark.long
def test_a_predictor_is_played_and_its_curves_are_written(played, tmp_path):
    folder, truth = played
    files = ["--json", tmp_path / "figures.json", "--picture", tmp_path / "curves.svg"]
    result = play(folder, "--truth", truth, *files)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "figures.json").read_text())
    assert [len(case["steps"]) for case in content["cases"]] == [6, 6]
    dice = [[step["dice"] for step in case["steps"]] for case in content["cases"]]
    by_hand = np.mean([sum((a + b) / 2 for a, b in zip(d[:-1], d[1:], strict=True)) for d in dice])
    assert content["areas"]["dice"]["auc"] == pytest.approx(by_hand)
    assert f"{by_hand:9.4f}" in result.output
    assert (tmp_path / "curves.svg").read_text().startswith("<svg")


@pytest.mark.long
def test_figures_are_the_same_when_everything_is_forgotten(played, tmp_path):
    folder, truth = played
    found = []
    for name, more in (("kept", []), ("forgotten", ["--forget"])):
        path = tmp_path / f"{name}.json"
        assert play(folder, "--truth", truth, "--json", path, *more).exit_code == 0
        found.append(json.loads(path.read_text())["areas"])
    assert found[0] == found[1]


@pytest.mark.long
def test_a_call_above_the_limit_is_named_and_fails(played):
    folder, truth = played
    result = play(folder, "--truth", truth, "--time-limit", "0.0001")
    assert result.exit_code == 1
    assert "the limit is 0.0001 s" in result.output


def test_what_is_neither_a_predictor_nor_an_image_is_said_to_be_neither(played):
    result = play("att_umamba_pett", "--truth", played[1], "--sandbox", "process")
    assert isinstance(result.exception, InputError)
    assert "no predictor 'att_umamba_pett', and no image" in result.exception.message
    assert result.exception.fix.endswith(
        "or else name the file that flarekit save or docker save has made"
    )


def test_that_there_is_no_such_predictor_is_said_before_missing_scans_are(tmp_path):
    (tmp_path / "empty").mkdir()
    result = play("nosuch", "--truth", tmp_path / "empty", "--sandbox", "process")
    assert "no predictor 'nosuch'" in result.exception.message


@pytest.mark.parametrize("command", [("evaluate", "interactive", "x", "--truth", "y"), ("demo",)])
def test_a_seed_is_not_below_0(command):
    result = CliRunner().invoke(app, [*command, "--seed", "-1"])
    assert result.exit_code == 2
    assert "--seed': Input should be greater than or equal to 0" in result.stderr


def test_options_of_the_other_kind_are_refused_and_not_passed_over(played, monkeypatch, tmp_path):
    result = play(played[0], "--truth", played[1], "--gpus", "all")
    assert isinstance(result.exception, UsageError)
    assert "--gpus applies to images" in result.exception.message
    monkeypatch.setattr(
        "flarekit.images.verify.open_sandbox", lambda _request: nullcontext(FakeSandbox(None))
    )
    result = play(tmp_path / "image.tar", "--truth", played[1])
    assert isinstance(result.exception, UsageError)
    assert "--device applies to predictors" in result.exception.message


def test_figures_are_not_written_over_the_truth(played):
    folder, truth = played
    result = play(folder, "--truth", truth, "--json", truth / "a.nii.gz")
    assert result.exit_code != 0
    assert (truth / "a.nii.gz").stat().st_size > 0


def test_scoring_masks_is_still_called_by_one_word():
    result = CliRunner().invoke(app, ["evaluate", "--help"])
    assert "--pred" in result.output
