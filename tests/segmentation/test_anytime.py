"""A whole mask at any moment: the locator's map first, then the tiles that add most."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from flarekit.core.budget import Budget
from flarekit.engine.torch import TorchEngine
from flarekit.segmentation.folder import Options, run_folder
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source

ORGANS = ((10, 30, 30), (30, 12, 50), (40, 50, 14))  # centres, in voxels of the scan
RADIUS = 7
TILE = 16


class Bright(torch.nn.Module):
    """Class 1 where the image is bright; a tile of the larger network may take a while."""

    tile_s = 0.0

    def __init__(self, sure=20.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(sure))

    def forward(self, image):
        time.sleep(Bright.tile_s if image.shape[2] == TILE else 0)
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


def segmenter_of(budget_s=None, mode="fast", locator_of=None, **options):
    """Return a segmenter of two networks that agree, the locator on a grid three times coarser."""
    whole = Source.of_module(
        Bright(), facts([TILE] * 3, 2.0, locator={"sha256": "0" * 64, "margin_mm": 6.0})
    )
    locator = locator_of or Source.of_module(Bright(sure=8.0), facts([24, 24, 24], 6.0))
    options = Options(
        engine="torch", device="cpu", precision="fp32", mode=mode, time_budget_s=budget_s, **options
    )
    return Segmenter(replace(whole, locator=locator), options)


def balls(shape=(48, 64, 64)):
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    inside = np.zeros(shape, bool)
    for centre in ORGANS:
        inside |= sum((a - c) ** 2 for a, c in zip(grid, centre, strict=True)) < RADIUS**2
    return inside


@pytest.fixture
def truth():
    return balls()


@pytest.fixture
def scan(truth):
    return np.where(truth, 100, -100).astype(np.int16)


def dice(labels, truth):
    return 2 * (labels.astype(bool) & truth).sum() / (labels.astype(bool).sum() + truth.sum())


def segmented(segmenter, scan, budget_s=None, **how):
    if budget_s is not None:
        segmenter.budget = Budget(time_s=budget_s)
    return segmenter.segment(scan, spacing_mm=(2, 2, 2), **how)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FLAREKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Bright, "tile_s", 0.0)
    # tiles take as long as they are told to, whatever else this machine does
    monkeypatch.setattr("flarekit.segmentation.speeds.Waiting", lambda: lambda: 1.0)


def test_with_a_locator_the_mask_is_the_same_and_tiles_without_labels_are_not_run(scan, truth):
    everywhere = segmented(segmenter_of(locator=False), scan)
    located = segmented(segmenter_of(), scan)
    np.testing.assert_array_equal(located.labels, everywhere.labels)
    assert dice(located.labels, truth) == 1
    assert located.traded == ()


def test_tiles_that_can_hold_no_label_are_left_out(tmp_path, scan, write_scan):
    (tmp_path / "in").mkdir()
    write_scan(tmp_path / "in" / "a_0000.nii.gz", scan)
    counts = []
    for locator in (True, False):
        record = run_folder(segmenter_of(locator=locator), tmp_path / "in", tmp_path / "out")
        (case,) = record.cases
        assert case.error is None
        counts.append(case.tiles.done)
        assert case.tiles.done + case.tiles.empty <= 245
    assert counts[0] < counts[1] / 2


def test_without_time_for_a_single_tile_the_mask_is_the_locator_s(scan, truth):
    segmenter = segmenter_of(budget_s=60)
    segmented(segmenter, scan)  # learns how long a tile takes
    result = segmented(segmenter, scan, budget_s=0.01)
    assert 0.75 < dice(result.labels, truth) < 1
    assert result.traded[0].startswith("0 tiles of ")


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("mode", ["fast", pytest.param("exact", marks=pytest.mark.long)])
def test_the_more_time_there_is_the_more_is_the_network_s(mode, scan, truth):
    segmenter = segmenter_of(budget_s=60, mode=mode)
    whole = segmented(segmenter, scan)
    assert whole.traded == ()
    Bright.tile_s = 0.05
    segmented(segmenter, scan, budget_s=1.5)
    scores = [dice(segmented(segmenter, scan, budget_s=s).labels, truth) for s in (0.01, 2.5)]
    assert 0.75 < scores[0] < scores[1] <= dice(whole.labels, truth)


@pytest.mark.long
@pytest.mark.usefixtures("still")
def test_a_network_that_turns_out_slower_than_it_is_remembered_still_keeps_the_time(scan, truth):
    segmenter = segmenter_of(budget_s=60)
    segmented(segmenter, scan)
    Bright.tile_s = 0.1
    result = segmented(segmenter, scan, budget_s=1.5)
    assert result.seconds < 1.7
    assert result.traded
    assert dice(result.labels, truth) > 0.75


def test_the_record_has_the_curve(tmp_path, scan, write_scan):
    (tmp_path / "in").mkdir()
    write_scan(tmp_path / "in" / "a_0000.nii.gz", scan)
    record = run_folder(segmenter_of(), tmp_path / "in", tmp_path / "out")
    (case,) = record.cases
    seconds, shares = zip(*case.curve, strict=True)
    assert list(seconds) == sorted(seconds)
    assert list(shares) == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] > 0.9
    assert seconds[-1] <= case.wall_s
    assert json.dumps(case.as_dict()["curve"])


def test_a_locator_that_finds_nothing_leaves_the_network_to_look_everywhere():
    blind = Source.of_module(Bright(sure=-20.0), facts([24, 24, 24], 6.0))
    segmenter = segmenter_of(locator_of=blind)
    result = segmented(segmenter, np.full((32, 32, 32), 100, np.int16))
    assert result.labels.all()


def test_masks_are_identical_from_run_to_run(scan):
    first, second = (segmented(segmenter_of(), scan).labels for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_speeds_that_cannot_be_kept_are_no_matter(scan, truth, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FLAREKIT_CACHE", str(tmp_path / "file"))
    result = segmented(segmenter_of(budget_s=60), scan)
    assert dice(result.labels, truth) == 1


@pytest.mark.long
def test_probabilities_come_with_a_locator_too(scan, truth):
    result = segmented(segmenter_of(), scan, probabilities=True)
    assert ((result.probabilities[1] > 0.5) == truth).mean() > 0.999
    none = segmented(segmenter_of(budget_s=0.001), scan, probabilities=True)
    assert none.probabilities.shape == result.probabilities.shape


@pytest.mark.parametrize(("ram_mib", "warmed"), [(None, 0), (1e6, 0), (2000.0, 2)])
def test_network_and_locator_take_their_memory_before_the_plan_only_where_memory_is_short(
    ram_mib, warmed, monkeypatch
):
    seen = []
    warm_up = TorchEngine.warm_up
    monkeypatch.setattr(TorchEngine, "warm_up", lambda *a: seen.append(1) or warm_up(*a))
    monkeypatch.setattr("flarekit.segmentation.memory.resident_mib", lambda: 500.0)
    segmenter_of(ram_budget_mib=ram_mib).start()
    assert len(seen) == warmed


@pytest.mark.long
def test_without_a_locator_one_tile_is_run_even_if_its_time_is_up_and_that_is_said(scan, truth):
    segmenter = segmenter_of(budget_s=60, locator=False)
    segmented(segmenter, scan)
    Bright.tile_s = 0.02
    result = segmented(segmenter, scan, budget_s=0.001)
    assert 0 < dice(result.labels, truth) <= 1
    assert "one tile although its time was up" in result.traded
    assert any("the rest is background" in note for note in result.traded)


def test_a_scan_of_a_single_tile_keeps_it_without_a_locator_in_no_time_and_on_its_own_grid():
    whole = np.full((12, 14, 14), 100, np.int16)
    segmenter = segmenter_of(locator=False)
    expected = segmented(segmenter, whole).labels
    result = segmented(segmenter, whole, budget_s=0.001)
    np.testing.assert_array_equal(result.labels, expected)
    assert expected.all()


@pytest.mark.long
def test_without_a_locator_enough_time_gives_the_mask_without_a_limit(scan):
    segmenter = segmenter_of(locator=False)
    expected = segmented(segmenter, scan)
    result = segmented(segmenter, scan, budget_s=60)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert result.traded == ()


@pytest.mark.parametrize("locator", [True, False])
def test_a_scan_of_nothing_but_air_has_an_empty_mask_in_any_time(locator):
    air = np.full((20, 24, 24), -1000, np.int16)
    segmenter = segmenter_of(locator=locator)
    for budget_s in (0.001, 60):
        assert not segmented(segmenter, air, budget_s=budget_s).labels.any()


@pytest.mark.long
@pytest.mark.usefixtures("still")
def test_without_a_map_no_time_is_spared_for_tiles_that_are_left(scan, monkeypatch, tmp_path):
    Bright.tile_s = 0.1
    whole_s = segmented(segmenter_of(locator=False), scan).seconds
    monkeypatch.setenv("FLAREKIT_CACHE", str(tmp_path / "other"))
    Bright.tile_s = 0.0
    segmenter = segmenter_of(budget_s=1000, locator=False)
    segmented(segmenter, scan)
    Bright.tile_s = 0.1
    result = segmented(segmenter, scan, budget_s=whole_s - 0.15)
    assert result.seconds < whole_s - 0.05
    assert "of the body was looked at" in result.traded[0]
