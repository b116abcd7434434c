"""A predictor gets a locator from its own masks of scans that nobody labelled."""

from __future__ import annotations

import tomllib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

import flarekit
from flarekit.cli.main import app
from flarekit.core.channels import Channel, NonzeroCrop
from flarekit.core.errors import FlarekitError, InputError, PredictorError, UsageError
from flarekit.core.grid import Grid
from flarekit.core.spec import read_spec
from flarekit.training import locator
from flarekit.training.locator import add_locator, locator_recipe, refuse_what_needs_none
from flarekit.training.recipe import recipe_of

CPU = ("--device", "cpu")


def trained(predictor, scans, run_dir, *options):
    words = ["train", "locator", predictor.folder, scans, run_dir, "--minutes", "0.002"]
    return CliRunner().invoke(app, [*map(str, words), *CPU, *options])


@pytest.fixture
def scans(tmp_path, write_scan):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        voxels = np.random.default_rng(number).integers(-200, 300, (20, 24, 16))
        write_scan(folder / f"scan{number}_0000.nii.gz", voxels)
    return folder


def test_a_time_that_is_none_is_refused_before_a_scan_is_segmented(toy, scans, tmp_path):
    done = trained(toy, scans, tmp_path / "run", "--minutes", "-1")
    assert isinstance(done.exception, UsageError)
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_predictor_without_a_locator_gets_one_and_uses_it(toy, scans, tmp_path):
    (scans / "torn_0000.nii.gz").write_bytes(b"no scan")
    before = sorted(path.name for path in scans.iterdir())
    done = trained(toy, scans, tmp_path / "run")
    assert done.exit_code == 1, done.output
    assert "torn: left out" in done.output
    assert "1 of the scans were left out" in done.output
    masks = sorted(path.name for path in (tmp_path / "run" / "dataset" / "labelsTr").iterdir())
    assert masks == ["scan0.nii.gz", "scan1.nii.gz", "scan2.nii.gz"]
    predictor = read_spec(toy.folder)
    locator = predictor.locator
    assert locator.folder == toy.folder / "locator"
    assert set(locator.spec.labels) <= set(toy.spec.labels)
    assert locator.weights.stat().st_size < 1e6
    assert min(locator.spec.grid.spacing_mm_ZYX) > min(toy.spec.grid.spacing_mm_ZYX)
    assert (locator.folder / "CARD.md").is_file()
    assert predictor.weights.read_bytes() == toy.weights.read_bytes()
    assert sorted(path.name for path in scans.iterdir()) == before
    scan = np.random.default_rng(9).integers(-200, 300, (20, 24, 16)).astype(np.int16)
    with flarekit.load(toy.folder, device="cpu", precision="fp32") as segmenter:
        assert "locator" in segmenter.segment(scan, spacing_mm=(2, 2, 2)).stage_seconds
    again = trained(toy, scans, tmp_path / "run")  # never over one that is there
    assert isinstance(again.exception, UsageError)
    assert "add --replace" in again.exception.fix
    assert read_spec(toy.folder).locator.spec == locator.spec


def test_masks_that_are_there_are_not_made_again_and_empty_ones_are_told(toy, scans, tmp_path):
    labels = tmp_path / "run" / "dataset" / "labelsTr"
    labels.mkdir(parents=True)
    for number in range(3):
        empty = nibabel.Nifti1Image(np.zeros((16, 24, 20), np.uint8), np.diag([2.0, 2, 2, 1]))
        nibabel.save(empty, labels / f"scan{number}.nii.gz")
    done = trained(toy, scans, tmp_path / "run")
    assert isinstance(done.exception, InputError)
    assert "finds none of its labels" in done.exception.message
    assert read_spec(toy.folder).locator is None


@pytest.fixture
def made(toy, tmp_path):
    """A predictor folder like a locator of the toy predictor."""
    folder = tmp_path / "made"
    folder.mkdir()
    text = (toy.folder / "predictor.toml").read_text().partition("[locator]")[0]
    (folder / "predictor.toml").write_text(text.replace('"toy"', '"toy_locator"'))
    (folder / "model.safetensors").write_bytes(toy.weights.read_bytes())
    return folder


def test_a_locator_is_named_behind_what_the_facts_say_and_comments_stay(toy, made):
    facts = toy.folder / "predictor.toml"
    facts.write_text("# mine\n" + facts.read_text())
    before = facts.read_text()
    assert add_locator(toy, made) == toy.folder / "locator"
    assert facts.read_text().startswith(before.rstrip())
    assert read_spec(toy.folder).locator is not None
    assert not made.exists()


def test_a_locator_is_replaced_only_where_that_is_asked_for_and_kept_beside(located_toy, made):
    old = (located_toy.folder / "locator" / "predictor.toml").read_text()
    with pytest.raises(UsageError, match="is there already"):
        add_locator(located_toy, made)
    for count in (1, 2):
        copy = made.with_name(f"copy{count}")
        copy.mkdir()
        for path in made.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        add_locator(located_toy, copy, replace=True)
    assert (located_toy.folder / "locator.before" / "predictor.toml").read_text() == old
    assert (located_toy.folder / "locator.before-2").is_dir()
    assert read_spec(located_toy.folder).locator.spec.name == "toy_locator"


@pytest.mark.parametrize("fixture", ["toy", "located_toy"])
def test_a_locator_that_does_not_fit_leaves_everything_as_it_was(fixture, made, request):
    predictor = request.getfixturevalue(fixture)
    before = {path: path.read_bytes() for path in predictor.folder.rglob("*") if path.is_file()}
    facts = made / "predictor.toml"
    facts.write_text(facts.read_text().replace('name = "CT"', 'name = "CT"\nunknown = 1'))
    with pytest.raises(PredictorError):
        add_locator(predictor, made, replace=True)
    after = {path: path.read_bytes() for path in predictor.folder.rglob("*") if path.is_file()}
    assert after == before
    assert facts.is_file()


def test_a_folder_that_cannot_be_written_is_named(toy, made, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(locator.shutil, "move", refused)
    with pytest.raises(FlarekitError, match="cannot be written: Permission denied"):
        add_locator(toy, made)
    assert read_spec(toy.folder).locator is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing_mm_ZYX": ("fit", "fit", "fit")}, "sees a whole scan at once"),
        ({"order": "centre"}, "begins in the middle"),
    ],
)
def test_a_predictor_that_needs_no_locator_is_told(toy, change, message):
    grid = toy.spec.grid.model_copy(update=change)
    with pytest.raises(UsageError, match=message):
        refuse_what_needs_none(toy.spec.model_copy(update={"grid": grid}))


@pytest.mark.parametrize(
    ("extent_mm", "finest_mm", "spacing_mm", "tile"),
    [
        ((300, 380, 380), 1.5, 5.9, (56, 64, 72)),
        ((1000, 500, 500), 2.0, 8.0, (64, 64, 64)),
        ((1000, 500, 500), 6.0, 9.0, (64, 56, 56)),
        ((40, 48, 32), 2.0, 3.0, (16, 16, 16)),
    ],
)
def test_a_usual_scan_is_seen_in_a_tile_or_a_few(toy, extent_mm, finest_mm, spacing_mm, tile):
    grid = Grid(spacing_mm_ZYX=(2 * finest_mm, finest_mm, finest_mm), tile_ZYX=(16, 16, 16))
    spec = toy.spec.model_copy(update={"grid": grid})
    text = locator_recipe(spec, {"organ": 1}, extent_mm, ["a"])
    recipe = recipe_of(text, tomllib.loads(text), Path("x"))
    assert recipe.spec.grid.spacing_mm_ZYX == (spacing_mm,) * 3
    assert recipe.spec.grid.tile_ZYX == tile
    assert recipe.training.validation == ("a",)
    assert recipe.spec.channels == toy.spec.channels


@pytest.mark.parametrize(
    ("intensity", "crop"),
    [
        ({"kind": "window", "low_hu": -100, "high_hu": 200, "mean": 0, "std": 50}, "BodyCrop"),
        ({"kind": "z_score", "masked": True}, "NonzeroCrop"),
        ({"kind": "rescale"}, "NonzeroCrop"),
    ],
)
def test_an_imported_network_s_intensities_and_crop_are_the_locator_s(toy, intensity, crop):
    spec = toy.spec.model_copy(
        update={
            "channels": (Channel(name="scan", intensity=intensity),),
            "crop": NonzeroCrop(kind="nonzero"),
        }
    )
    text = locator_recipe(spec, {"organ": 1}, (300, 300, 300), [])
    recipe = recipe_of(text, tomllib.loads(text), Path("x"))
    assert recipe.spec.channels == spec.channels
    assert type(recipe.spec.crop).__name__ == crop
