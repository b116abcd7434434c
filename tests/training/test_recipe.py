from __future__ import annotations

from pathlib import Path

import pytest

from flarekit.core.errors import FlarekitError, InputError, PredictorError
from flarekit.training.recipe import read_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("weights/**/recipe.toml"), *ROOT.glob("weights/*/next.toml")])


def test_a_recipe_without_a_regime_is_the_compact_one(recipe):
    assert recipe.training.regime == "compact"
    assert recipe.regime.optimiser.kind == "muon"
    assert not recipe.flat


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title", "titel", "titel"),
        ("batch = 1", "batch = 0", "training.batch"),
        ("batch = 1", "batch = true", "training.batch"),
        ("batch = 1", "batch = 100000", "training.batch"),
        ("tile_ZYX = [16, 16, 16]\nbatch", "tile_ZYX = [0, 16, 16]\nbatch", "training.tile_ZYX.0"),
        ("tile_ZYX = [16, 16, 16]\nbatch", "tile_ZYX = [9e9, 1, 1]\nbatch", "training.tile_ZYX.0"),
        ("learning_rate = 1e-2", "learning_rate = 1e30", "training.learning_rate"),
        ("[provenance]", "[provenances]\n[provenance]", r"besides its tables \[provenances\]"),
        ("[provenance]", "[provenance]\ndataset = [1]", "provenance.dataset"),
        ("[provenance]", "provenance = 5\n[provenances]", r"provenance"),
        ("batch = 1", 'regime = "mamba_clinic"', "did you mean 'mamba_clinix'"),
        ("batch = 1", 'unlabelled = ["duodenum"]', "unknown labels duodenum"),
        ("batch = 1", "phantom_share = 1.5", "phantom_share"),
        ('convention = "flare"', 'convention = "flare"\nauxiliary = ["liver"]', "named twice"),
        ("tile_ZYX = [16, 16, 16]\nbatch", "tile_ZYX = [1, 16, 16]\nbatch", "Z = 1"),
        (
            "batch = 1",
            'synthesis = { kind = "ct_lesions", seeds = [0, 2], share = 0.5 }',
            "one label",
        ),
        (
            "batch = 1",
            'hard_negatives = { channel = "PET", above = 3.5, share = 0.3 }',
            "not a channel with a window",
        ),
        (
            "batch = 1",
            'hard_negatives = { channel = "CT", above = 100, share = 0.5 }',
            "more than 1 together",
        ),
        ('convention = "flare"', 'convention = "flair"', "convention: none is called 'flair'"),
        (
            "[training]",
            '[[predictor.rules]]\nname = "x"\nlabels = ["liver"]\n[training]',
            "no rule",
        ),
        (
            "[training]",
            '[[predictor.rules]]\nname = "shared_uptake"\nlabels = ["liver"]\n[training]',
            "shared_uptake",
        ),
        ("batch = 1", "augmentation = { hidden = { PET = 0.1 } }", "no channel PET"),
        (
            'kind = "window", low_hu = -125, high_hu = 275, mean = 50, std = 80 }',
            'kind = "scale", divisor = 100 }\n[training.augmentation]\noral_contrast = 0.2',
            "window in HU",
        ),
        ("[provenance]", "[origin]", r"\[provenance\]"),
        ("num_classes = 3", "num_classes = 4", "num_classes is 4, .*background, liver, spleen"),
        ("input_channels = 1", "input_channels = 2", "input_channels is 2, .*1 channel"),
    ],
)
def test_facts_that_do_not_hold_together_are_refused(make_recipe, old, new, message):
    with pytest.raises(PredictorError, match=message):
        make_recipe((old, new))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("spleen = 3", "spleen = 255")], "no values to auxiliary"),
        ([('name = "nnunet"', 'name = "mpu_net"')], "gives logits"),
        (
            [
                ("spleen = 3\n", ""),
                (
                    "batch = 1",
                    'synthesis = { kind = "wholebody_petct", seeds = [0, 2], share = 0.5 }',
                ),
            ],
            "no organ map has lint",
        ),
    ],
)
def test_auxiliary_classes_that_cannot_be_are_refused(make_recipe, changes, message):
    auxiliary = ('convention = "flare"', 'convention = "flare"\nauxiliary = ["lint"]')
    with pytest.raises(PredictorError, match=message):
        make_recipe(auxiliary, *changes)


def test_auxiliary_classes_come_after_the_labels(make_recipe):
    recipe = make_recipe(
        ("num_classes = 3", "num_classes = 5"),
        ('convention = "flare"', 'convention = "flare"\nauxiliary = ["heart", "brain"]'),
        ("batch = 1", 'unlabelled = ["spleen"]\nbatch = 1'),
    )
    assert recipe.class_names == ("background", "liver", "spleen", "heart", "brain")
    assert recipe.label_values == (0, 1, 3, 255, 254)
    assert recipe.spec.class_values == (0, 1, 3)
    assert recipe.auxiliary_classes == (3, 4)
    assert recipe.unlabelled_classes == (2, 3, 4)


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(FlarekitError, match=r"bad\.toml"):
        read_recipe(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    "path", RECIPES, ids=lambda path: path.relative_to(ROOT / "weights").as_posix()
)
def test_every_recipe_in_the_checkout_can_be_read(path):
    recipe = read_recipe(path)
    folders = path.parent.relative_to(ROOT / "weights").parts
    assert recipe.spec.name == "_".join(folders)  # a locator lies in its predictor's folder
    assert "flarekit train compact" in recipe.provenance["command"]
