"""A locator is part of its predictor's folder: checked, hashed, compiled and copied with it."""

from __future__ import annotations

import shutil
import tarfile

import numpy as np
import pytest
from typer.testing import CliRunner

import flarekit
from flarekit.cli.main import app
from flarekit.core.errors import PredictorError
from flarekit.core.files import sha256_of
from flarekit.core.spec import read_spec
from flarekit.engine.openvino import OpenvinoEngine
from flarekit.segmentation.case import compute_case
from flarekit.segmentation.job import predictor_of_job
from flarekit.segmentation.locator import values_of
from flarekit.segmentation.predictors import find_predictor, hash_state, networks_of

CHANNEL = """
[[channels]]
name = "PET"
intensity = { kind = "window", low_hu = 0, high_hu = 20, mean = 2, std = 3 }

[[channels]]
"""


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def weights_command(*arguments):
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


@pytest.fixture
def folder(located_toy):
    return located_toy.folder


def test_a_predictor_names_its_locator(folder):
    predictor = find_predictor(str(folder))
    assert predictor.locator.spec.name == "toy_locator"
    assert predictor.locator.folder == folder / "locator"
    assert len(predictor.members) == 1
    assert len(predictor.all_members) == 2


@pytest.mark.long
def test_a_scan_is_segmented_with_it(folder):
    scan = np.random.default_rng(0).integers(-200, 300, (20, 40, 40)).astype(np.int16)
    with flarekit.load(folder, device="cpu", precision="fp32") as segmenter:
        result = segmenter.segment(scan, spacing_mm=(2, 2, 2))
    assert result.labels.shape == scan.shape
    assert "locator" in result.stage_seconds
    with flarekit.load(folder, device="cpu", precision="fp32", locator=False) as segmenter:
        assert "locator" not in segmenter.segment(scan, spacing_mm=(2, 2, 2)).stage_seconds


@pytest.fixture
def loaded(monkeypatch):
    """Return a list that fills with the tile of each network that is loaded."""
    seen, load = [], OpenvinoEngine.load

    def noted(engine):
        if not engine._models:
            seen.append(engine.grid.spacing_mm_ZYX[0])
        load(engine)

    monkeypatch.setattr(OpenvinoEngine, "load", noted)
    return seen


@pytest.mark.long
@pytest.mark.usefixtures("openvino_by_default")
def test_a_network_whose_tiles_have_no_time_is_not_loaded(folder, tmp_path, write_scan, loaded):
    scan = np.random.default_rng(0).integers(-200, 300, (20, 40, 40)).astype(np.int16)
    (tmp_path / "in").mkdir()
    write_scan(tmp_path / "in" / "a_0000.nii.gz", scan)

    def records(**limits):
        loaded.clear()
        how = {"device": "cpu", "precision": "fp32", "pictures": False}
        return flarekit.predict(tmp_path / "in", tmp_path / "out", folder, **how, **limits).cases

    records()  # compiles both
    assert records()[0].tiles.done > 0
    assert loaded == [4.0, 2.0]  # the locator, the network
    in_no_time = records(time_budget_s=1e-6)
    assert in_no_time[0].tiles.done == 0
    assert loaded == [4.0]
    assert records(time_budget_s=1000.0)[0].tiles.done > 0
    assert loaded == [4.0, 2.0]


@pytest.mark.long
@pytest.mark.usefixtures("openvino_by_default")
def test_a_network_that_was_left_unloaded_computes_the_same_where_there_is_time_after_all(
    folder, tmp_path, write_scan, loaded, monkeypatch
):
    scan = np.random.default_rng(0).integers(-200, 300, (20, 40, 40)).astype(np.int16)
    (tmp_path / "in").mkdir()
    write_scan(tmp_path / "in" / "a_0000.nii.gz", scan)

    def mask(name, **limits):
        how = {"device": "cpu", "precision": "fp32", "pictures": False}
        flarekit.predict(tmp_path / "in", tmp_path / name, folder, **how, **limits)
        return (tmp_path / name / "a.nii.gz").read_bytes()

    whole = mask("whole")  # compiles both
    monkeypatch.setattr("flarekit.segmentation.speeds.Speeds.with_one_tile_s", lambda _: np.inf)
    started = []
    monkeypatch.setattr(
        "flarekit.segmentation.case_loop.compute_case",
        lambda *a, **k: started.append(list(loaded)) or compute_case(*a, **k),
    )
    loaded.clear()
    assert mask("later", time_budget_s=1000.0) == whole
    assert started == [[4.0]]  # the locator alone, until the tiles
    assert loaded == [4.0, 2.0]


@pytest.mark.long
def test_exact_without_a_limit_does_not_ask_it(folder):
    scan = np.random.default_rng(0).integers(-200, 300, (20, 40, 40)).astype(np.int16)
    with flarekit.load(folder, device="cpu", mode="exact", precision="fp32") as segmenter:
        assert "locator" not in segmenter.segment(scan, spacing_mm=(2, 2, 2)).stage_seconds


@pytest.mark.long
def test_nor_does_a_predictor_that_looks_everywhere(folder):
    file = folder / "predictor.toml"
    edit(file, "[locator]\n", "[locator]\neverywhere = true\n")
    scan = np.random.default_rng(0).integers(-200, 300, (20, 40, 40)).astype(np.int16)
    with flarekit.load(folder, device="cpu", precision="fp32") as segmenter:
        assert "locator" not in segmenter.segment(scan, spacing_mm=(2, 2, 2)).stage_seconds
    with flarekit.load(folder, device="cpu", precision="fp32", time_budget_s=1000) as segmenter:
        result = segmenter.segment(scan, spacing_mm=(2, 2, 2))
        assert "locator" in result.stage_seconds
    with flarekit.load(folder, device="cpu", precision="fp32", locator=False) as segmenter:
        assert (segmenter.segment(scan, spacing_mm=(2, 2, 2)).labels == result.labels).all()


def test_weights_that_are_missing_or_wrong_are_told(folder):
    weights = folder / "locator" / "model.safetensors"
    verified = weights_command("verify", folder)
    assert verified.exit_code == 0
    assert "whole (2 file(s))" in verified.stdout
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert hash_state(find_predictor(str(folder))) == "wrong"
    assert weights_command("verify", folder).exit_code != 0
    weights.unlink()
    assert hash_state(find_predictor(str(folder))) == "missing"
    with pytest.raises(PredictorError, match="locator"):
        flarekit.load(folder, device="cpu")


def test_another_locator_than_the_named_one_is_refused(folder):
    edit(folder / "predictor.toml", '[locator]\nsha256 = "', '[locator]\nsha256 = "0')
    text = (folder / "predictor.toml").read_text()
    start = text.index("[locator]\nsha256 = ") + len('[locator]\nsha256 = "')
    (folder / "predictor.toml").write_text(text[: start + 64] + text[start + 65 :])
    with pytest.raises(PredictorError, match="another locator"):
        read_spec(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[labels]", '[locator]\nsha256 = "' + "0" * 64 + '"\n\n[labels]', "cannot be read"),
        ('name = "CT"', 'name = "CT"\nname = "MR"', "is not TOML"),
        ("[[channels]]", CHANNEL, "takes 2 channels, toy 1"),
    ],
)
def test_a_locator_that_does_not_hold_together_is_named(folder, old, new, message):
    edit(folder / "locator" / "predictor.toml", old, new)
    with pytest.raises(PredictorError, match=f"locator.*{message}"):
        read_spec(folder)


def test_a_locator_that_is_not_there_is_named(folder):
    shutil.rmtree(folder / "locator")
    with pytest.raises(PredictorError, match="locator/predictor.toml: cannot be read"):
        find_predictor(str(folder))


def test_its_labels_are_mapped_by_name_or_as_the_facts_say(folder):
    locator = folder / "locator" / "predictor.toml"
    edit(locator, "organ = 1\nlesion = 4", "liver = 2\nlesion = 3")
    edit(locator, 'labels = ["organ"]', 'labels = ["liver"]')
    own = read_spec(folder)
    assert values_of(own.locator.spec, own.spec).tolist() == [0, 0, 4]
    (folder / "predictor.toml").write_text(
        (folder / "predictor.toml").read_text() + '\n[locator.labels]\nliver = "organ"\n'
    )
    mapped = read_spec(folder)
    assert values_of(mapped.locator.spec, mapped.spec).tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [('organ = "bone"', "no labels"), ('bone = "organ"', "has no labels bone")],
)
def test_a_mapping_of_labels_that_are_not_there_is_refused(folder, mapping, message):
    file = folder / "predictor.toml"
    file.write_text(file.read_text() + f"\n[locator.labels]\n{mapping}\n")
    with pytest.raises(PredictorError, match=message):
        read_spec(folder)


def test_a_first_pass_and_a_locator_are_one_too_many(folder):
    file = folder / "predictor.toml"
    file.write_text(file.read_text() + '\n[coarse]\npredictor = "toy"\n')
    with pytest.raises(PredictorError, match="do not go together"):
        read_spec(folder)


def test_it_is_packed_and_found_again_where_a_platform_unpacks_it(folder, tmp_path):
    archive = tmp_path / "model.tar.gz"
    assert weights_command("pack", folder, "-o", archive).exit_code == 0
    model = tmp_path / "model"
    with tarfile.open(archive) as tar:
        tar.extractall(model, filter="data")
    predictor = predictor_of_job("none", model)
    assert predictor.folder == model
    assert hash_state(predictor) == "ok"
    assert predictor.locator is not None


def test_what_is_compiled_lies_with_the_predictor_s_own(folder):
    predictor = find_predictor(str(folder))
    networks = networks_of(predictor.locator, within=predictor)
    assert networks.folders[0] == folder / "compiled"
    assert networks.identity.count(sha256_of(predictor.locator.weights)) == 1
