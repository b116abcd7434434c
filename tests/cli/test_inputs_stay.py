"""Nothing that a command reads is ever overwritten, whatever it is told to write."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flarekit.cli.main import app
from flarekit.core.errors import UsageError
from flarekit.importing.writing import write_predictor
from flarekit.segmentation.predictors import build_networks


def bytes_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(tmp_path, *arguments) -> str:
    """Run a command that must change nothing, and return what it said."""
    before = bytes_below(tmp_path)
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert isinstance(result.exception, UsageError), result.output or result.exception
    assert bytes_below(tmp_path) == before
    return str(result.exception)


@pytest.fixture
def masks(tmp_path, write_scan):
    """Folders of predictions, truths and scans, a dataset.json beside the truth."""
    for name in ("pred", "truth", "scans"):
        (tmp_path / name).mkdir()
        write_scan(tmp_path / name / "a.nii.gz")
    (tmp_path / "pred" / "surplus.mha").write_bytes(b"a mask without a truth")
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
    (tmp_path / "scans" / "a.png").write_bytes(b"somebody's own picture")
    return tmp_path


@pytest.mark.parametrize("option", ["--json", "--csv"])
@pytest.mark.parametrize(
    "file",
    ["pred/a.nii.gz", "pred/surplus.mha", "truth/a.nii.gz", "scans/a.nii.gz", "dataset.json"],
)
def test_scores_never_replace_what_is_scored(masks, option, file):
    said = refused(
        masks,
        *("evaluate", "--pred", masks / "pred", "--truth", masks / "truth"),
        *("--images", masks / "scans", option, masks / "truth" / ".." / file),
    )
    assert Path(file).name in said
    assert "would be replaced" in said


def test_scores_never_replace_what_the_predictor_is_made_of(masks, toy):
    weights = masks / "scores.json"
    os.link(toy.weights, weights)
    said = refused(
        masks,
        *("evaluate", "--pred", masks / "pred", "--truth", masks / "truth", "-p", toy.folder),
        *("--json", weights),
    )
    assert "is a file of the predictor's folder" in said


def test_pictures_of_scores_never_replace_a_picture_beside_the_scans(masks):
    said = refused(
        masks,
        *("evaluate", "--pred", masks / "pred", "--truth", masks / "truth"),
        *("--images", masks / "scans", "--pictures", masks / "scans"),
    )
    assert "a.png: is a file of the input folder" in said


def test_older_scores_beside_the_predictions_may_be_replaced(masks):
    scores = masks / "pred" / "scores.json"
    (masks / "pred" / "surplus.mha").unlink()
    command = ["evaluate", "--pred", masks / "pred", "--truth", masks / "truth", "--json", scores]
    for _ in range(2):
        result = CliRunner().invoke(app, [*map(str, command), "--workers", "1"])
        assert not isinstance(result.exception, UsageError)
        assert scores.read_bytes().startswith(b"{")


@pytest.mark.parametrize("file", ["model.safetensors", "predictor.toml", "new.tar.gz"])
def test_a_predictor_is_not_packed_into_its_own_folder(toy, tmp_path, file):
    said = refused(tmp_path, "weights", "pack", toy.folder, "-o", toy.folder / file)
    assert "is the predictor's folder" in said


def test_a_predictor_is_not_packed_over_its_own_file_by_another_name(toy, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "model.tar.gz").symlink_to(toy.weights)
    said = refused(
        tmp_path, "weights", "pack", toy.folder, "-o", tmp_path / "links" / "model.tar.gz"
    )
    assert "is a file of the predictor's folder" in said


@pytest.mark.parametrize("name", ["model.safetensors", "predictor.toml"])
def test_a_checkpoint_is_not_replaced_by_what_it_is_imported_to(tmp_path, toy, name):
    facts = tomllib.loads((toy.folder / "predictor.toml").read_text())
    networks = build_networks(toy)
    before = bytes_below(tmp_path)
    with pytest.raises(UsageError, match=f"{name}: is an input and would be replaced"):
        write_predictor(toy.folder, facts, networks, source=toy.folder / name)
    with pytest.raises(UsageError, match="is the folder of the weights to import"):
        write_predictor(toy.folder, facts, networks, source=toy.folder / "." / ".." / "toy")
    with pytest.raises(UsageError, match="is a file of the folder of the weights to import"):
        write_predictor(toy.folder, facts, networks, source=toy.folder.parent)
    assert bytes_below(tmp_path) == before


@pytest.mark.parametrize("option", ["--output", "--report"])
def test_neither_masks_nor_reports_go_into_the_predictor(toy, tmp_path, write_scan, option):
    (tmp_path / "in").mkdir()
    write_scan(tmp_path / "in" / "a_0000.nii.gz")
    folders = {"--input": tmp_path / "in", "--output": tmp_path / "out", option: toy.folder}
    said = refused(
        tmp_path,
        *("predict", "-p", toy.folder),
        *(word for pair in folders.items() for word in pair),
    )
    assert "is the predictor's folder" in said


def test_training_writes_neither_into_what_it_reads_nor_into_a_predictor(toy, tmp_path):
    recipe = Path("weights/abdomen_ct/recipe.toml")
    (tmp_path / "data").mkdir()
    command = ("train", "compact", recipe, tmp_path / "data")
    assert "a folder that the training reads" in refused(tmp_path, *command, tmp_path / "data")
    assert "is a predictor folder" in refused(tmp_path, *command, toy.folder)
    started = refused(tmp_path, *command, toy.folder, "--start", toy.folder)
    assert "a folder that the training reads" in started


def test_a_predictor_is_not_made_in_the_folder_of_its_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"hours of training")
    said = refused(tmp_path, "train", "export", tmp_path / "run", tmp_path / "run" / ".")
    assert "is the folder of the run" in said
