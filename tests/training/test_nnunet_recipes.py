"""What nnU-Net's trainers take from a recipe, and how they end; nnU-Net itself is a small fake."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from flarekit.core.errors import InputError, PredictorError, UsageError
from flarekit.training.losses import MAYBE
from flarekit.training.nnunet import TRAINERS, from_recipe, trainers
from flarekit.training.nnunet.from_recipe import into_plans, regime_of, taken_from
from flarekit.training.nnunet.planning import check_splits
from flarekit.training.nnunet.running import (
    TrainOptions,
    check_effort,
    check_fold,
    check_plans,
)
from flarekit.training.nnunet.targets import region_levels, region_target
from flarekit.training.recipe import paper_recipes, read_recipe
from flarekit.training.regimes import REGIMES, Objective

CASES = [f"case_{index}" for index in range(10)]
CHANGED = """[training.objective]
region_tversky = 0
region_dice = 1.0
dice = 0

[training.schedule]
early_stopping = 2
plateau_patience = 1
"""


def changed_recipe(folder, *changes, name="mamba_clinix/brats"):
    text = paper_recipes()[name].read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


def with_validation(folder):
    return changed_recipe(
        folder,
        (
            "held_out = []",
            'held_out = ["case_9"]\nvalidation = ["case_[01]"]\nlearning_rate = 2e-4',
        ),
        ("[training.schedule]\n", CHANGED),
    )


@pytest.mark.parametrize("name", sorted(set(paper_recipes()) - {"attention_unet/flare23"}))
def test_a_paper_s_recipe_is_planned_as_its_paper_trains(name):
    recipe = read_recipe(paper_recipes()[name])
    taken = taken_from(recipe)
    assert taken.architecture == name.split("/")[0]
    assert not set(taken.arguments) & {"input_channels", "num_classes", "strides", "n_stages"}
    plans = json.loads(json.dumps(into_plans(taken, CASES)))
    assert regime_of(plans, taken.architecture) == recipe.regime


def test_scans_that_are_labelled_in_part_are_not_nnunet_s():
    recipe = read_recipe(paper_recipes()["attention_unet/flare23"])
    with pytest.raises(UsageError, match=r"training\.labelled: nnU-Net draws its samples"):
        taken_from(recipe)


def test_loss_rate_schedule_and_folds_of_a_recipe_stand_in_the_plans(tmp_path):
    taken = taken_from(with_validation(tmp_path))
    plans = json.loads(json.dumps(into_plans(taken, CASES)))
    regime = regime_of(plans, "mamba_clinix")
    assert (regime.objective.region_dice, regime.objective.region_tversky) == (1, 0)
    assert (regime.schedule.early_stopping, regime.schedule.epochs) == (2, 500)
    assert regime.optimiser.learning_rate == 2e-4
    assert plans[from_recipe.KEY]["apart"] == ["case_0", "case_1", "case_9"]
    assert taken.splits(CASES) == [{"train": CASES[2:9], "val": ["case_0", "case_1"]}]
    assert "foreground" in taken.left


def test_plans_without_a_recipe_have_the_paper_s_regime():
    assert into_plans(None, CASES) == {}
    assert regime_of({}, "mpu_net") == REGIMES["mpu_net"]


def test_plans_that_hold_no_regime_are_refused():
    with pytest.raises(PredictorError, match=r"flarekit\.regime: .*no regime 'fast'"):
        regime_of({"flarekit": {"regime": {"regime": "fast"}}}, "umamba")


def test_held_out_cases_are_in_no_fold(tmp_path):
    taken = taken_from(changed_recipe(tmp_path, ("held_out = []", 'held_out = ["case_[89]"]')))
    splits = taken.splits(CASES)
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split["val"]) == CASES[:8]
    for split in splits:
        assert sorted(split["train"] + split["val"]) == CASES[:8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("held_out = []", 'held_out = ["patient_1"]'), "the dataset has no case patient_1"),
        (("held_out = []", 'held_out = ["case_*"]'), "leave no cases"),
    ],
)
def test_cases_that_are_not_there_are_refused(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        taken_from(changed_recipe(tmp_path, change)).splits(CASES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("foreground = 0.33", "phantom_share = 0.5\nphantom_seeds = [0, 4]"), "phantom_share"),
        (("foreground = 0.33", 'labelled = { "a*" = ["edema"] }'), "training.labelled"),
        (("[provenance]", "[training.negatives]\nshare = 0.5\n[provenance]"), "training.negatives"),
        (('regime = "mamba_clinix"', 'regime = "compact"'), "limits gradients to another norm"),
    ],
)
def test_what_nnunet_cannot_train_is_refused(tmp_path, change, message):
    recipe = changed_recipe(tmp_path, change, ("[training.schedule]\nepochs = 500\n", ""))
    with pytest.raises(UsageError, match=message):
        taken_from(recipe)


def test_other_folds_in_the_work_folder_are_refused(tmp_path):
    path, splits = tmp_path / "splits_final.json", [{"train": ["a"], "val": ["b"]}]
    check_splits(path, splits)
    path.write_text(json.dumps(splits))
    check_splits(path, splits)
    check_splits(path, [])
    with pytest.raises(InputError, match="holds other folds"):
        check_splits(path, [{"train": ["b"], "val": ["a"]}])
    path.write_text("[")
    with pytest.raises(InputError, match="is not JSON"):
        check_splits(path, splits)


def test_a_fold_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "splits_final.json"
    check_fold("4", path, {})
    with pytest.raises(UsageError, match="give 0 to 4"):
        check_fold("5", path, {})
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    with pytest.raises(UsageError, match="give 0"):
        check_fold("1", path, {})
    check_fold("all", path, {})
    with pytest.raises(UsageError, match="would train on case_9"):
        check_fold("all", path, {"flarekit": {"apart": ["case_9"]}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": "first"}, "--fold first: is not a fold"),
        ({"epochs": 0}, "--epochs 0: trains nothing"),
        ({"iterations": -1}, "--iterations -1: trains nothing"),
    ],
)
def test_a_training_without_a_step_or_a_fold_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        check_effort(TrainOptions(**options))


def test_a_training_does_not_go_on_with_other_plans(tmp_path):
    plans = {"dataset_name": "Dataset901_Tiny", "configurations": {"2d": {"patch_size": [8, 8]}}}
    check_plans(tmp_path, plans)
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    check_plans(tmp_path, plans)
    with pytest.raises(InputError, match=r"begun with other plans .flarekit differ"):
        check_plans(tmp_path, {**plans, "flarekit": {"regime": {}}})


def test_a_region_costs_what_its_own_sigmoid_does():
    logits = torch.tensor([[[[2.0, -1.0, 0.5]], [[0.0, 3.0, -2.0]]]])  # one sample, two regions
    target = torch.tensor([[[[1, 0, 1]], [[0, 1, 0]], [[0, 0, 1]]]])  # and what is ignored
    (levels,) = region_levels([logits], 1)
    known = region_target(target, 1, ignored=True)
    assert known.classes.flatten().tolist() == [0, 1, MAYBE]
    loss = Objective()(levels, known, logits, architecture="umamba")
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[:, 1, :, :2], target[:, 1, :, :2].float()
    )
    assert loss == pytest.approx(float(expected), abs=1e-6)
    assert region_levels(logits, 0)[0].softmax(dim=1)[:, 1] == pytest.approx(logits[:, 0].sigmoid())


class Logger:
    def __init__(self):
        self.dice = []

    def get_value(self, key, step):
        assert (key, step) == ("mean_fg_dice", None)
        return self.dice


class FakeTrainer:
    """nnU-Net's loop, and what it calls; Dice is a list."""

    def __init__(self, plans, *_):
        self.plans_manager = type("Plans", (), {"plans": plans})()
        self.logger, self.current_epoch, self.ends = Logger(), 0, 0
        self.network, self.is_ddp = torch.nn.Linear(1, 1), False
        self.rates = []

    def run_training(self):
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        for _ in range(self.current_epoch, self.num_epochs):
            self.on_train_epoch_start()
            self.logger.dice.append(self.coming.pop(0))
            self.on_epoch_end()
        self.on_train_end()

    def on_train_epoch_start(self):
        self.lr_scheduler.step(self.current_epoch)
        self.rates.append(self.optimizer.param_groups[0]["lr"])

    def on_epoch_end(self):
        self.current_epoch += 1

    def on_train_end(self):
        self.ends += 1

    def print_to_log_file(self, *words):
        pass


@pytest.fixture
def classes(monkeypatch):
    """Return the module with our trainer classes, over the fake."""
    for name, content in (
        ("nnunetv2", {}),
        ("nnunetv2.training", {}),
        ("nnunetv2.training.nnUNetTrainer", {}),
        ("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", {"nnUNetTrainer": FakeTrainer}),
        ("nnunetv2.utilities", {}),
        ("nnunetv2.utilities.get_network_from_plans", {"get_network_from_plans": None}),
    ):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(Path(trainers.__file__).parent))
    monkeypatch.delitem(sys.modules, "flarekit_trainers", raising=False)
    module = importlib.import_module("flarekit_trainers")
    monkeypatch.delitem(sys.modules, "flarekit_trainers")
    return module


@pytest.fixture
def trainer(classes, tmp_path):
    """Return our MambaClinix trainer over the fake, with a recipe's plans."""
    plans = into_plans(taken_from(with_validation(tmp_path)), CASES)
    made = classes.FlarekitMambaClinix(plans, "3d_fullres", 0, {}, torch.device("cpu"))
    made.num_epochs = 10
    return made


def test_every_architecture_has_a_trainer_class(classes):
    for name, trainer in TRAINERS.items():
        assert getattr(classes, trainer).__name__ == trainer
        assert getattr(classes, trainer).architecture == name


@pytest.mark.long
def test_nnunet_s_loop_ends_and_slows_down_as_the_recipe_s_schedule_says(trainer):
    assert trainer.initial_lr == 2e-4
    trainer.coming = [0.1, 0.2, 0.15, 0.18, 0.9]
    trainer.run_training()
    assert (trainer.current_epoch, trainer.ends) == (4, 1)
    poly = [(1 - epoch / 10) ** 0.9 for epoch in range(4)]
    assert trainer.rates == pytest.approx([2e-4 * each for each in (*poly[:3], poly[3] / 2)])


@pytest.mark.long
def test_a_training_that_ended_by_itself_does_not_go_on_when_it_is_called_again(trainer):
    trainer.logger.dice, trainer.current_epoch = [0.3, 0.2, 0.1], 3
    trainer.coming = []
    trainer.run_training()
    assert (trainer.rates, trainer.ends) == ([], 1)
