"""The recipes of the papers: what they say, and that each of them trains on data of its kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flarekit import models
from flarekit.core.errors import InputError
from flarekit.training.compact import RunOptions, train
from flarekit.training.fitting import check_fit
from flarekit.training.recipe import paper_recipes, read_recipe
from flarekit.training.sources import training_pools
from tests.training.generated import steps, write_dataset

RECIPES = paper_recipes()
# of Table 3 of Att-UMamba and Table 2 of MambaClinix; of the text where there is no table
PATCHES = {
    "att_umamba/abdomen_ct": (40, 224, 192), "att_umamba/abdomen_mr": (48, 160, 224),
    "att_umamba/glioblastoma": (128, 160, 112), "att_umamba/psma": (112, 192, 112),
    "mamba_clinix/pcd": (80, 192, 160), "mamba_clinix/lung_tumor": (96, 160, 160),
    "mamba_clinix/liver_tumor": (64, 192, 192), "mamba_clinix/abdomen_ct": (40, 224, 192),
    "mamba_clinix/brats": (128, 128, 128), "mpu_net/lits": (48, 256, 256),
    "attention_unet/flare23": (1, 512, 512), "mamba_ahnet/deeplesion3d": (1, 256, 256),
    "mamba_ahnet/bone": (1, 256, 256), "mamba_ahnet/pancreas": (1, 256, 256),
}  # fmt: skip
EPOCHS = {
    "att_umamba": 200, "mamba_clinix/pcd": 300, "mamba_clinix/lung_tumor": 1000,
    "mamba_clinix/liver_tumor": 1000, "mamba_clinix/abdomen_ct": 500, "mamba_clinix/brats": 500,
    "mpu_net": 600, "attention_unet": 5,
}  # fmt: skip
PARAMETERS = {
    "att_umamba/abdomen_ct": 42_329_653, "att_umamba/psma": 42_505_785,
    "att_umamba/glioblastoma": 42_509_187, "mamba_clinix/abdomen_ct": 48_726_169,
    "mamba_clinix/liver_tumor": 48_874_189, "mamba_clinix/brats": 48_878_391,
    "mpu_net/lits": 22_557_009, "attention_unet/flare23": 24_496_331 - 2 * 64 * 9,
}  # fmt: skip


def test_every_task_of_the_papers_has_a_recipe():
    assert set(RECIPES) == set(PATCHES)


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_together_and_has_the_paper_s_patch_network_and_epochs(name):
    recipe = read_recipe(RECIPES[name])
    assert recipe.spec.architecture.name == name.split("/")[0] == recipe.training.regime
    assert recipe.spec.grid.tile_ZYX == recipe.training.tile_ZYX == PATCHES[name]
    epochs = EPOCHS.get(name, EPOCHS.get(name.split("/")[0]))
    assert epochs is None or recipe.regime.schedule.epochs == epochs
    with torch.device("meta"):
        network = models.create(recipe.spec.architecture.name, **recipe.spec.architecture.arguments)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == PARAMETERS.get(name, count)


def test_a_recipe_is_read_by_its_name():
    assert read_recipe(Path("mamba_clinix/brats")).text == RECIPES["mamba_clinix/brats"].read_text()
    with pytest.raises(InputError, match="flarekit train recipes"):
        read_recipe(Path("mamba_clinix/bratz"))


def test_tumours_are_trained_and_only_organs_keep_their_largest_component():
    spec = read_recipe(RECIPES["attention_unet/flare23"]).spec
    assert spec.labels["tumor"] == 14
    (rule,) = spec.rules
    assert set(spec.labels) - set(rule.labels) == {"tumor"}


def small(recipe):
    """Return a recipe with a narrow network on a coarse grid of small tiles."""
    spec, arguments = recipe.spec, dict(recipe.spec.architecture.arguments)
    if "features_per_stage" in arguments:
        arguments["features_per_stage"] = [16, 16, 32, 32, 32, 32]
        tile = (64, 32, 32)
    else:
        arguments["width"] = 0.125
        tile = (1, 64, 64) if recipe.flat else (16, 32, 32)
    spacing = [mm if isinstance(mm, str) else 4 * mm for mm in spec.grid.spacing_mm_ZYX]
    grid = spec.grid.model_copy(update={"spacing_mm_ZYX": tuple(spacing), "tile_ZYX": tile})
    network = spec.architecture.model_copy(update={"arguments": arguments})
    facts = {"tile_ZYX": tile, "batch": min(2, recipe.training.batch)}
    return replace(
        recipe,
        spec=spec.model_copy(update={"grid": grid, "architecture": network}),
        training=recipe.training.model_copy(update=facts),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_for_three_steps_on_cases_of_its_kind(name, tmp_path):
    recipe = small(read_recipe(RECIPES[name]))
    dataset = write_dataset(tmp_path / "data", name, len(recipe.spec.labels))
    check_fit(recipe, dataset)
    clock, losses = steps(3), []
    train(
        recipe,
        training_pools(recipe, dataset),
        tmp_path / "run",
        RunOptions(minutes=1, device="cpu", precision="fp32"),
        progress=lambda _step, _minutes, loss: losses.append(loss),
        clock=lambda: next(clock),
    )
    assert len(losses) >= 3
    assert all(0 < loss < 100 for loss in losses)
