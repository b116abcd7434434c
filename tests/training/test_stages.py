"""Trainings of several parts, coarse before fine, in one run."""

from __future__ import annotations

import pytest
import torch

from flarekit.core.errors import InputError, PredictorError
from flarekit.training.compact import RunOptions, train
from flarekit.training.curve import Curve
from flarekit.training.export import export_predictor
from flarekit.training.muon import Muon
from flarekit.training.recipe_changes import changes_between
from flarekit.training.samples import Sampler
from flarekit.training.state import averaged_network, begin_stage, begun_state
from tests.training.test_compact import CPU, Clock, pools, rows_of, steps_of

COARSE = """
[[training.stages]]
minutes = 1
spacing_mm_ZYX = [16.0, 16.0, 16.0]
tile_ZYX = [8, 8, 8]
batch = 3
optimiser = "adamw"
learning_rate = 2e-3
"""
FINE = "\n[[training.stages]]\nminutes = 2\n"
ON_SCANS = ("batch = 1", 'batch = 1\ncase_grid = "scan"')


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    monkeypatch.setattr(Curve, "draw", lambda _curve: None)


@pytest.fixture
def make_staged(make_recipe):
    """Return a function that reads the tiny recipe with these stages."""
    return lambda *stages: make_recipe(
        ON_SCANS, ("[provenance]", "".join(stages) + "\n[provenance]")
    )


@pytest.fixture
def staged(make_staged):
    return make_staged(COARSE, FINE)


def test_what_a_stage_does_not_name_is_the_recipe_s(staged):
    coarse, fine = staged.stages
    assert coarse.spec.grid.spacing_mm_ZYX == (16.0, 16.0, 16.0)
    assert (coarse.training.tile_ZYX, coarse.training.batch) == ((8, 8, 8), 3)
    optimiser = coarse.regime.optimiser
    assert (optimiser.kind, optimiser.learning_rate) == ("adamw", 2e-3)
    assert coarse.training.held_out == staged.training.held_out
    assert fine.spec == staged.spec
    assert (fine.training.tile_ZYX, fine.training.batch) == ((16, 16, 16), 1)
    assert (fine.regime.optimiser.kind, fine.regime.optimiser.learning_rate) == ("muon", 1e-2)


def test_a_recipe_without_stages_is_its_only_one(recipe):
    assert recipe.stages == (recipe,)


@pytest.mark.long
def test_stages_share_the_time_each_with_its_samples_and_a_rate_that_falls(
    staged, tmp_path, monkeypatch
):
    drawn = []

    def noted(sampler, step, batch=Sampler.batch):
        drawn.append(tuple(batch(sampler, step).image.shape))
        return batch(sampler, step)

    monkeypatch.setattr(Sampler, "batch", noted)
    options = RunOptions(minutes=0.5, **{**CPU, "record_every": 1})
    train(staged, pools(), tmp_path / "run", options, clock=Clock())
    trained = drawn[: steps_of(staged, tmp_path / "run")]
    assert trained[:10] == [(3, 1, 8, 8, 8)] * 10
    assert trained[10:] == [(1, 1, 16, 16, 16)] * (len(trained) - 10)
    assert 18 < len(trained[10:]) <= 20
    rates = [float(row["learning_rate"]) for row in rows_of(tmp_path / "run")]
    assert max(rates[:10]) == pytest.approx(2e-3, rel=0.05)
    assert rates[9] < 1e-3
    assert max(rates[10:]) > 9e-3
    assert rates[-1] < 1e-3


def test_a_stage_begins_with_the_averaged_weights_and_an_optimiser_of_its_own(staged, tmp_path):
    state = begun_state(staged, tmp_path, None, torch.device("cpu"), torch.float32)
    assert isinstance(state.optimiser, torch.optim.AdamW)
    with torch.no_grad():
        for value in state.average.parameters():
            value += 1
    begin_stage(state, staged, 1)
    assert isinstance(state.optimiser, Muon)
    pairs = zip(state.network.parameters(), state.average.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    trained = {id(each) for group in state.optimiser.param_groups for each in group["params"]}
    assert trained == {id(each) for each in state.network.parameters()}


@pytest.mark.long
@pytest.mark.parametrize(  # in the first, between both, in the second
    "steps", [pytest.param(4, marks=pytest.mark.slow), 10, pytest.param(17, marks=pytest.mark.slow)]
)
def test_a_run_that_is_killed_goes_on_in_its_stage(staged, tmp_path, steps):
    options = RunOptions(minutes=0.5, **CPU)
    whole = train(staged, pools(), tmp_path / "whole", options, clock=Clock())

    def killed(step, *_):
        if step == steps:
            raise KeyboardInterrupt

    cut = RunOptions(minutes=0.5, checkpoint_every_s=0.0, **CPU)
    with pytest.raises(KeyboardInterrupt):
        train(staged, pools(), tmp_path / "cut", cut, progress=killed, clock=Clock())
    again = train(staged, pools(), tmp_path / "cut", cut, clock=Clock())
    assert steps_of(staged, tmp_path / "cut") == steps_of(staged, tmp_path / "whole")
    pairs = zip(whole.parameters(), again.parameters(), strict=True)
    assert all(torch.allclose(*pair, atol=1e-3) for pair in pairs)


@pytest.mark.long
def test_a_card_tells_the_stages(staged, tmp_path):
    train(staged, pools(), tmp_path / "run", RunOptions(minutes=0.3, **CPU), clock=Clock())
    export_predictor(tmp_path / "run", tmp_path / "made")
    card = (tmp_path / "made" / "CARD.md").read_text()
    assert (
        "- **Stages**: 33% of the minutes on a grid of 16.0 x 16.0 x 16.0 mm, steps of "
        "3 x 8 x 8 x 8 voxels, adamw from 0.002; 67% of the minutes on a grid of "
        "8.0 x 8.0 x 8.0 mm, steps of 1 x 16 x 16 x 16 voxels, muon from 0.01\n"
    ) in card


def test_another_stage_s_tile_is_tried_before_the_first_step(make_staged, tmp_path):
    recipe = make_staged(COARSE, FINE, "tile_ZYX = [15, 16, 16]\n")
    with pytest.raises(PredictorError, match="15 x 16 x 16"):
        train(recipe, pools(), tmp_path / "run", RunOptions(minutes=1, **CPU))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.long
def test_a_checkpoint_of_a_stage_that_a_recipe_has_not_is_refused(staged, make_staged, tmp_path):
    run = tmp_path / "run"
    train(staged, pools(), run, RunOptions(minutes=0.2, **CPU), clock=Clock())
    shorter = make_staged(COARSE)
    assert any("training.stages" in change for change in changes_between(staged, shorter))
    with pytest.raises(InputError, match="is not this recipe's checkpoint: training.stages was"):
        averaged_network(shorter, run / "checkpoint.pt")
    (run / "recipe.toml").unlink()
    with pytest.raises(InputError, match="is in stage 2, which this recipe has not"):
        averaged_network(shorter, run / "checkpoint.pt")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (FINE + 'optimiser = "adamw"\n', "name the learning_rate of adamw beside it"),
        (FINE + 'spacing_mm_ZYX = [8.0, 8.0, "fit"]\n', '"fit" stands where'),
        (FINE + "tile_ZYX = [1, 16, 16]\n", "must both have Z = 1"),
        (FINE.replace("2", "0"), "minutes"),
        (FINE + "epochs = 3\n", "epochs"),
    ],
)
def test_a_stage_that_cannot_be_trained_is_refused(make_staged, stages, message):
    with pytest.raises(PredictorError, match=message):
        make_staged(stages)


def test_another_spacing_needs_cases_on_the_scan_s_grid(make_recipe):
    with pytest.raises(PredictorError, match='another spacing needs case_grid = "scan"'):
        make_recipe(("[provenance]", COARSE + "\n[provenance]"))
