"""Smaller tiles where a time budget leaves room for few of the usual."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from flarekit.core.budget import Budget
from flarekit.core.errors import PredictorError
from flarekit.core.spec import parse_spec, read_spec
from flarekit.engine import EngineFacts, Networks
from flarekit.segmentation.compiling import compile_predictor
from flarekit.segmentation.options import Options
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.small_tiles import SmallTiles, TileSeconds, small_tiles_of
from flarekit.segmentation.source import Source
from flarekit.segmentation.speeds import Speeds

pytestmark = pytest.mark.usefixtures("still")
TILE, SMALL = 32, 16
CENTRE, RADIUS = (32, 40, 40), 5


class Bright(torch.nn.Module):
    """Class 1 where the image is bright; a whole tile takes a second, a small one an eighth."""

    def __init__(self, sure=20.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(sure))

    def forward(self, image):
        time.sleep({TILE: 1.0, SMALL: 0.125}.get(image.shape[2], 0.0))
        logits = self.scale * (image[:, :1] - 0.5)
        return torch.cat([-logits, logits], dim=1)


def facts(tile, spacing, **more):
    window = {"kind": "window", "low_hu": -100, "high_hu": 100, "mean": -100, "std": 200}
    return {
        "channels": [{"name": "CT", "intensity": window}],
        "grid": {"spacing_mm_ZYX": [spacing] * 3, "tile_ZYX": tile, "decide": "scan"},
        "labels": {"organ": 1},
        "fast": {"step": 0.5},
        **more,
    }


@pytest.fixture
def segmenter(monkeypatch, tmp_path):
    monkeypatch.setenv("FLAREKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("flarekit.segmentation.speeds.Waiting", lambda: lambda: 1.0)
    named = {"sha256": "0" * 64, "margin_mm": 6.0, "small_tile_ZYX": [SMALL] * 3}
    whole = Source.of_module(Bright(), facts([TILE] * 3, 2.0, locator=named))
    locator = Source.of_module(Bright(sure=8.0), facts([24, 28, 28], 6.0))
    options = Options(engine="torch", device="cpu", precision="fp32", time_budget_s=600)
    return Segmenter(replace(whole, locator=locator), options)


@pytest.fixture
def truth():
    grid = np.ogrid[:64, :80, :80]
    return sum((a - c) ** 2 for a, c in zip(grid, CENTRE, strict=True)) < RADIUS**2


def segmented(segmenter, truth, budget_s):
    segmenter.budget = Budget(time_s=budget_s)
    scan = np.where(truth, 100, -100).astype(np.int16)
    return segmenter.segment(scan, spacing_mm=(2, 2, 2))


def dice(result, truth):
    found = result.labels.astype(bool)
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_where_no_whole_tile_is_in_time_smaller_ones_run(segmenter, truth):
    whole = segmented(segmenter, truth, 600)
    assert whole.traded == ()
    least = segmented(segmenter, truth, 0.01)
    few = segmented(segmenter, truth, 0.9)
    assert few.seconds <= 0.9
    assert dice(least, truth) < dice(few, truth) == dice(whole, truth) == 1
    (told,) = few.traded
    share = re.search(r"smaller tiles \(16 x 16 x 16\) instead of \d+: (\d+)% of the", told)
    assert int(share[1]) > 50
    assert segmenter.start().speeds.seconds("small tile") == pytest.approx(0.125, abs=0.01)


def test_whole_tiles_run_where_there_is_time_for_those_that_gain_as_much(segmenter, truth):
    usual = segmented(segmenter, truth, 600)
    segmented(segmenter, truth, 0.9)
    again = segmented(segmenter, truth, 600)
    np.testing.assert_array_equal(again.labels, usual.labels)
    assert again.traded == ()
    most = segmented(segmenter, truth, 3.0)
    assert not any("smaller" in told for told in most.traded)


def test_masks_of_smaller_tiles_are_the_same_in_every_run(segmenter, truth):
    segmented(segmenter, truth, 600)
    first, second = (segmented(segmenter, truth, 0.9).labels for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_what_is_not_known_of_smaller_tiles_is_taken_from_their_share_of_usual_ones():
    speeds = Speeds(None, waiting=lambda: 1.0)
    small = SmallTiles(tile_ZYX=(8, 8, 8), usual_ZYX=(16, 16, 16), load=lambda: None)
    speeds.learn("tile", 8.0)
    speeds.learn("start", 4.0)
    assert small.seconds(speeds) == TileSeconds(tile=1.2, start=pytest.approx(0.6), first=None)
    speeds.learn("first", 16.0)
    assert small.seconds(speeds).first > 2.4
    speeds.learn("small tile", 0.5)
    assert small.seconds(speeds) == TileSeconds(tile=0.5, start=0.0, first=None)


def test_loading_counts_until_it_is_done_and_is_remembered():
    class Engine:
        one_time_s = 0.25

    def load():
        time.sleep(1.0)
        return Engine()

    speeds = Speeds(None, waiting=lambda: 1.0)
    small = SmallTiles(tile_ZYX=(8, 8, 8), usual_ZYX=(16, 16, 16), load=load)
    assert small.loading_s(speeds) == 0.25
    assert small.one_time_s == 0
    assert small.engine(speeds) is small.engine(speeds)
    assert small.loading_s(speeds) == 0
    assert small.one_time_s == 0.25
    assert speeds.seconds("small load") == pytest.approx(0.75, abs=0.01)
    another = SmallTiles(tile_ZYX=(8, 8, 8), usual_ZYX=(16, 16, 16), load=load)
    assert another.loading_s(speeds) > 0.74


def named(small):
    content = facts([16, 16, 16], 2.0, locator={"sha256": "0" * 64, "small_tile_ZYX": small})
    more = {"name": "n", "title": "t", "convention": "flare", "architecture": {"name": "nnunet"}}
    return content | more | {"weights": {"sha256": "0" * 64, "parameters": 1}}


@pytest.mark.parametrize(
    ("small", "wrong"), [([16, 24, 16], "larger than grid.tile_ZYX"), ([1, 8, 8], "3D networks")]
)
def test_a_small_tile_that_is_none_is_refused(small, wrong):
    with pytest.raises(PredictorError, match=wrong):
        parse_spec(named(small), source="test")


@pytest.mark.parametrize("has_torch", [True, False])
def test_what_was_not_compiled_is_compiled_once_or_done_without(monkeypatch, has_torch):
    made = []

    class Engine:
        one_time_s = 2.0

    def load(spec):
        made.append(spec.grid.tile_ZYX)
        return Engine()

    monkeypatch.setattr("flarekit.engine.openvino.is_compiled", lambda *_: False)
    monkeypatch.setattr(
        "flarekit.segmentation.small_tiles.find_spec", lambda _: object() if has_torch else None
    )
    networks = Networks(build=list, channels=1, identity="a")
    computing = EngineFacts(engine="openvino", device="cpu", device_name="x", precision="fp32")
    spec = parse_spec(named([8, 8, 8]), source="test")
    found = small_tiles_of(networks, spec, computing, load, Speeds(None, waiting=lambda: 1.0))
    assert made == ([(8, 8, 8)] if has_torch else [])
    assert (found is not None) == has_torch


@pytest.mark.long
def test_on_another_processor_without_torch_all_but_small_tiles_is_compiled(
    toy, monkeypatch, tmp_path
):
    text = (toy.folder / "predictor.toml").read_text()
    locator = toy.folder / "locator"
    locator.mkdir()
    coarse = text.replace('name = "toy"', 'name = "toy_locator"').replace(
        "[8, 16, 16]", "[8, 8, 16]"
    )
    (locator / "predictor.toml").write_text(coarse)
    (locator / "model.safetensors").write_bytes(toy.weights.read_bytes())
    small = "small_tile_ZYX = [4, 8, 8]"
    named = f'{text}\n[locator]\nsha256 = "{toy.spec.weights.sha256}"\n{small}\n'
    (toy.folder / "predictor.toml").write_text(named)
    predictor = read_spec(toy.folder)
    monkeypatch.setenv("FLAREKIT_CACHE", str(tmp_path / "cache"))  # not what other tests compiled

    folder, made = compile_predictor(predictor, "fp32", beside=True)
    assert made == "all"
    assert len(list(folder.glob("*/*.blob"))) == 3
    assert len(list(folder.glob("*/*.xml"))) == 2
    assert compile_predictor(predictor, "fp32", beside=True) == (folder, "nothing")
    monkeypatch.setattr("flarekit.engine._compiled.cpu_capability", lambda: "another")
    monkeypatch.setattr("flarekit.segmentation.compiling.find_spec", lambda _: None)
    assert compile_predictor(predictor, "fp32", beside=True) == (folder, "blob")
    assert len(list(folder.glob("*/*.blob"))) == 5
