"""Facts of a predictor: what holds is typed, what does not is named with its field and file."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest
from pydantic import ValidationError

from flarekit.core.channels import Window
from flarekit.core.errors import PredictorError
from flarekit.core.schema import SCHEMA
from flarekit.core.spec import PredictorSpec, parse_spec, read_spec, write_spec

FACTS: dict[str, Any] = {
    "name": "n",
    "title": "two organs",
    "convention": "flare",
    "architecture": {"name": "nnunet", "arguments": {"num_classes": 3}},
    "channels": [
        {
            "name": "CT",
            "intensity": {"kind": "window", "low_hu": -100, "high_hu": 200, "mean": 0, "std": 50},
        }
    ],
    "crop": {"threshold": -110},
    "grid": {"spacing_mm_ZYX": [3, 2.0, 2.0], "tile_ZYX": [8, 16, 16]},
    "labels": {"spleen": 7, "liver": 2},
    "rules": [{"name": "largest_component", "labels": ["liver"]}],
    "weights": {"sha256": "0" * 64, "parameters": 5},
}
NNUNET = {**FACTS, "crop": {"kind": "nonzero"}, "nnunet": {"transpose": [1, 0, 2]}}

# where, wrong value, a word that the message must hold
WRONG = [
    ("name", 3, "name"),
    ("name", "", "name"),
    ("name", "a\x1b[31m", "cannot be printed"),
    ("title", "one\ntwo", "cannot be printed"),
    ("surprise", 1, "surprise"),
    ("channels", [], "channels"),
    ("channels.0.intensity.kind", "windowed", "windowed"),
    ("channels.0.intensity.low_hu", 500, "low_hu must be below high_hu"),
    ("channels.0.intensity.std", 0, "std"),
    ("channels.0.intensity.mean", float("nan"), "mean"),
    ("channels.0.intensity.mean", "0", "mean"),
    ("channels.0.intensity.mean", 1e308, "mean"),
    ("channels.0.intensity.std", 1e-300, "std"),
    ("channels.0.intensity.std", 1e300, "std"),
    ("channels.0.name", "C\0T", "channels.0.name"),
    ("crop.threshold", float("-inf"), "threshold"),
    ("crop.margin_mm", -1, "margin_mm"),
    ("grid.spacing_mm_ZYX", [3, 2], "grid.spacing_mm_ZYX"),
    ("grid.spacing_mm_ZYX", [3, 2, 0], "grid.spacing_mm_ZYX.2"),
    ("grid.spacing_mm_ZYX", [3, 2, float("inf")], "grid.spacing_mm_ZYX.2"),
    ("grid.spacing_mm_ZYX", [3, 2, "own"], "grid.spacing_mm_ZYX.2"),
    ("grid.spacing_mm_ZYX", [3, 2, 1e-300], "grid.spacing_mm_ZYX.2"),
    ("grid.spacing_mm_ZYX", [3, 2, 1e300], "grid.spacing_mm_ZYX.2"),
    ("grid.tile_ZYX", [8, 16, 0], "grid.tile_ZYX.2"),
    ("grid.tile_ZYX", [8, 16, 2**62], "grid.tile_ZYX.2"),
    ("grid.tile_ZYX", [2000, 2000, 2000], "8,000,000,000 voxels"),
    ("grid.tile_ZYX", [8, 16, 16.0], "grid.tile_ZYX.2"),
    ("grid.step", 0, "grid.step"),
    ("grid.step", 1.5, "grid.step"),
    ("grid.step", 1e-12, "grid.step"),
    ("fast", {"step": 1e-12}, "fast.step"),
    ("labels", {"": 1, "liver": 2}, "labels"),
    ("labels", {"background": 1, "liver": 2}, "background is 0"),
    ("labels", {"a\nb": 1, "liver": 2}, "cannot be printed"),
    ("labels", {"a" * 1000: 1, "liver": 2}, "labels"),
    ("grid.axes", "SPI", "three different axes"),
    ("labels", {}, "labels"),
    ("labels.liver", 0, "labels.liver"),
    ("labels.liver", 256, "labels.liver"),
    ("labels.liver", True, "labels.liver"),
    ("labels.liver", 7, "two labels share one value"),
    ("rules.0.labels", ["kidney"], "kidney"),
    ("weights.sha256", "0" * 63, "weights.sha256"),
    ("weights.sha256", "F" * 64, "weights.sha256"),
    ("weights.parameters", 0, "weights.parameters"),
    ("weights.file", "../elsewhere.safetensors", "weights.file"),
]
REQUIRED = ("name", "title", "convention", "architecture", "channels", "grid", "labels", "weights")


def changed(where: str, value: object) -> dict[str, Any]:
    """Return the facts with one value replaced or added."""
    facts = copy.deepcopy(FACTS)
    at: Any = facts
    *parents, last = where.split(".")
    for part in parents:
        at = at[int(part) if part.isdigit() else part]
    at[last] = value
    return facts


def test_facts_are_typed_and_defaults_filled_in():
    spec = parse_spec(FACTS, source="test")
    assert spec.grid.spacing_mm_ZYX == (3.0, 2.0, 2.0)
    assert spec.grid.tile_ZYX == (8, 16, 16)
    assert spec.grid.step == 0.5
    assert spec.crop is not None
    assert isinstance(spec.channels[0].intensity, Window)
    assert spec.weights.file == "model.safetensors"


def test_network_classes_are_the_labels_in_order_of_value():
    assert parse_spec(FACTS, source="test").class_values == (0, 2, 7)


def test_networks_of_regions_have_no_background_class():
    facts = {**NNUNET, "nnunet": {"region_values": [2, 7]}}
    assert parse_spec(facts, source="test").class_values == (2, 7)


@pytest.mark.parametrize(("where", "value", "word"), WRONG)
def test_a_wrong_fact_is_named_with_its_file_and_what_to_do(where, value, word):
    with pytest.raises(PredictorError) as caught:
        parse_spec(changed(where, value), source="weights/n/predictor.toml")
    assert caught.value.message.startswith("weights/n/predictor.toml: ")
    assert word in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_fact_is_named(field):
    facts = {key: value for key, value in FACTS.items() if key != field}
    with pytest.raises(PredictorError, match=f"{field} is missing"):
        parse_spec(facts, source="test")


def test_percentiles_of_a_slice_have_to_be_in_order():
    intensity = {"kind": "slice_z_score", "low_percentile": 99.5, "high_percentile": 0.5}
    with pytest.raises(PredictorError, match="low_percentile must be below high_percentile"):
        parse_spec(changed("channels.0.intensity", intensity), source="test")


def test_axes_are_transposed_to_a_permutation():
    with pytest.raises(PredictorError, match="transpose must hold 0, 1 and 2 once each"):
        parse_spec({**NNUNET, "nnunet": {"transpose": [0, 0, 2]}}, source="test")


def test_facts_cannot_be_changed_afterwards():
    spec = parse_spec(FACTS, source="test")
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"


@pytest.mark.parametrize("facts", [FACTS, NNUNET])
def test_facts_written_to_a_folder_read_back_the_same(facts, tmp_path):
    write_spec(tmp_path, facts, head="by hand")
    predictor = read_spec(tmp_path)
    assert predictor.spec == PredictorSpec.model_validate(facts)
    assert predictor.folder == tmp_path
    assert predictor.weights == tmp_path / "model.safetensors"
    assert predictor.card == tmp_path / "CARD.md"
    assert (tmp_path / "predictor.toml").read_text().startswith("# by hand\n")


def test_wrong_facts_are_not_written(tmp_path):
    with pytest.raises(PredictorError, match="labels"):
        write_spec(tmp_path, changed("labels", {}), head="by hand")
    assert list(tmp_path.iterdir()) == []


def test_every_member_of_an_ensemble_is_listed(tmp_path):
    other = {"file": "second.safetensors", "sha256": "1" * 64, "parameters": 5}
    write_spec(tmp_path, {**FACTS, "ensemble": [other]}, head="by hand")
    members = read_spec(tmp_path).members
    assert {path.name: weights.sha256[0] for path, weights in members.items()} == {
        "model.safetensors": "0",
        "second.safetensors": "1",
    }


def test_a_folder_without_facts_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(PredictorError, match=r"predictor\.toml: cannot be read.*name a folder"):
            read_spec(folder)


@pytest.mark.parametrize("content", [b"name = \n", b"<html>"])
def test_facts_that_are_not_toml_are_refused(content, tmp_path):
    (tmp_path / "predictor.toml").write_bytes(content)
    with pytest.raises(PredictorError, match="is not TOML.*correct that line"):
        read_spec(tmp_path)


def test_a_fact_that_does_not_hold_names_the_file_it_stands_in(tmp_path):
    (tmp_path / "predictor.toml").write_text("name = 'n'\n")
    with pytest.raises(PredictorError) as caught:
        read_spec(tmp_path)
    assert caught.value.message.startswith(str(tmp_path / "predictor.toml"))


def test_a_schema_is_written_older_ones_are_read_and_newer_ones_refused(toy):
    path = toy.folder / "predictor.toml"
    text = path.read_text()
    assert "schema" not in text.splitlines()[0]
    write_spec(toy.folder, tomllib.loads(text), head="again")
    assert f"schema = {SCHEMA}" in path.read_text()
    assert read_spec(toy.folder).spec == toy.spec
    plain = "\n".join(line for line in path.read_text().splitlines() if "schema" not in line)
    for stated, message in [
        ("", None),
        ("schema = 1", None),
        (f"schema = {SCHEMA + 1}", f"has schema {SCHEMA + 1}, and this flarekit reads .* {SCHEMA}"),
        ('schema = "2"', "should be a whole number"),
        ("schema = 0", "should be a whole number"),
        ("schema = true", "should be a whole number"),
    ]:
        path.write_text(f"{stated}\n{plain}")
        if message is None:
            assert read_spec(toy.folder).spec == toy.spec
        else:
            with pytest.raises(PredictorError, match=message):
                read_spec(toy.folder)
