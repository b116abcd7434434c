"""The figures in the repository belong to the weights in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from accuracy_table import SPLITS, read_results, table_text

from flarekit.core.spec import read_spec

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights"
PREDICTORS = sorted(path.parent for path in WEIGHTS.glob("*/predictor.toml"))
NETWORKS = sorted(path.parent for path in WEIGHTS.glob("**/predictor.toml"))  # locators, too


@pytest.fixture(scope="module")
def results():
    return read_results(ROOT / "profiling")


@pytest.mark.parametrize("folder", PREDICTORS, ids=lambda folder: folder.name)
def test_every_shipped_predictor_is_measured_on_every_split_with_its_weights(folder, results):
    spec = read_spec(folder).spec
    measured = results[spec.name]
    assert set(SPLITS[spec.convention]) <= set(measured)
    assert {result["sha256"] for result in measured.values()} == {spec.weights.sha256}


@pytest.mark.parametrize("folder", NETWORKS, ids=lambda folder: str(folder.relative_to(WEIGHTS)))
def test_every_network_holds_in_the_half_precisions_that_its_facts_allow(folder):
    """Of these weights: `profiling/half_precision.py NAME --data FOLDER` measures them again."""
    spec = read_spec(folder).spec
    rows = json.loads((ROOT / "profiling" / "half_precision_cpu.json").read_text())["networks"]
    row = rows[str(folder.relative_to(WEIGHTS))]
    assert row["sha256"] == spec.weights.sha256
    for half in spec.half_precisions:
        assert row[half]["finite_tiles"] == 1
        assert row[half]["equal_voxels"] >= 0.995


@pytest.mark.parametrize("folder", PREDICTORS, ids=lambda folder: folder.name)
def test_every_card_names_the_weights_beside_it(folder):
    assert read_spec(folder).spec.weights.sha256 in (folder / "CARD.md").read_text()


def test_the_table_says_what_the_results_say(results):
    assert (ROOT / "profiling" / "accuracy.md").read_text() == table_text(results)


def test_every_picture_of_a_worst_case_is_there_and_small(results):
    cases = [result for measured in results.values() for result in measured.values()]
    pictures = [each["worst"]["picture"] for each in cases if "worst" in each]
    assert pictures
    for picture in pictures:
        assert 1000 < (ROOT / "profiling" / picture).stat().st_size < 300_000
