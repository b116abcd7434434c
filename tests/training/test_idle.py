"""Options of a recipe that change nothing are refused."""

from __future__ import annotations

import pytest

from flarekit.core.errors import PredictorError


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("objective]\ncross_entropy = 0\ndice = 0", "leaves no term of the loss"),
        ("objective]\nregions = [4, 4, 4]", r"objective\.regions is of region_tversky"),
        ("objective]\nregion_weights = [0.3, 0.7]", r"objective\.region_weights is of"),
        ("objective]\nregion_dice = 1\nregion_weights = [0.3, 0.7]", "region_weights is of"),
        ("objective]\nbalanced = true\ncross_entropy = 0", r"objective\.balanced is of cross_en"),
        ("schedule]\ndecay = 0.9", r"schedule\.decay is of kind = \"exponential\", .* 'cosine'"),
        ('schedule]\nkind = "exponential"', "loses a part per epoch: give epochs"),
        ("schedule]\nwarm_up = 10\nepochs = 10", "warm_up takes all of the 10 epochs"),
        ("schedule]\nplateau_factor = 0.1", "plateau_factor needs plateau_patience"),
        ("augmentation.organs]\nshift_mm = 8.0", "needs changed"),
        ("augmentation.organs.factor]\nliver = [0.8, 1.2]", "needs changed"),
        ("augmentation.organs]\nchanged = 0.5", r"organs\.changed needs factor or shift_mm"),
        ("augmentation.organs]\nlesions = 0.5", "lesion_labels, where"),
        ('augmentation.organs]\nlesion_labels = ["liver"]', "needs both lesions"),
        (
            'synthesis]\nkind = "ct_lesions"\nseeds = [5, 5]\nshare = 0.5',
            r"synthesis\.seeds are no",
        ),
        ('[datasets]]\nfolder = "a"\nshare = 1.0\nadded = 3', "a: known_Z and added are of layout"),
    ],
)
def test_an_option_that_changes_nothing_is_refused(make_recipe, table, message):
    changes = [("[provenance]", f"[training.{table}\n\n[provenance]")]
    if table.startswith("[datasets"):
        changes = [("[provenance]", f"[[training.{table[1:]}\n\n[provenance]")]
    if table.startswith("synthesis"):
        changes += [("spleen = 3\n", ""), ("num_classes = 3", "num_classes = 2")]
    with pytest.raises(PredictorError, match=message):
        make_recipe(*changes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('near = "liver"', "near is about labels that cases lack"),
        ('unlabelled = ["spleen"]\nnear_mm = 20', "near_mm needs near"),
        ("phantom_share = 0.5", "phantom_share needs phantom_seeds"),
    ],
)
def test_a_line_that_changes_nothing_is_refused(make_recipe, line, message):
    with pytest.raises(PredictorError, match=message):
        make_recipe(("batch = 1", f"batch = 1\n{line}"))


def test_options_that_change_something_are_taken(make_recipe):
    make_recipe(
        (
            "[provenance]",
            "[training.objective]\ncross_entropy = 0\nregion_dice = 1\nregions = [4, 4, 4]\n"
            '[training.schedule]\nkind = "exponential"\ndecay = 0.9\nepochs = 20\nwarm_up = 2\n'
            "[training.augmentation.organs]\nchanged = 0.5\nshift_mm = 5.0\n\n[provenance]",
        ),
        ("batch = 1", 'batch = 1\nunlabelled = ["spleen"]\nnear = "liver"\nnear_mm = 20'),
    )
