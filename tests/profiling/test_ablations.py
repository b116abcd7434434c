from __future__ import annotations

import json

import ablations
import pytest

from flarekit.training.recipe import paper_recipes, read_recipe
from tests.training.generated import write_dataset


def row(name, *dice):
    return {"row": name, **ablations.summary([{"dice": each} for each in dice])}


def test_a_difference_within_the_spread_of_the_seeds_is_undecided():
    rows = [row("a", 0.50, 0.52), row("b", 0.53, 0.51), row("c", 0.70, 0.71), row("d", 0.40, 0.41)]
    assert [each.split(": ")[1].split()[0] for each in ablations.verdicts(rows)] == [
        "undecided", "better", "worse",
    ]  # fmt: skip


def test_rows_are_compared_within_the_time_of_the_quickest_run():
    def run_of(*points):
        curve = [{"cpu_minutes": minutes, "dice": dice} for minutes, dice in points]
        return {**curve[-1], "curve": curve}

    quick = {"row": "a", "runs": [run_of((1, 0.2), (2, 0.4)), run_of((1, 0.1), (2.1, 0.3))]}
    slow = {"row": "b", "runs": [run_of((2, 0.3), (4, 0.8)), run_of((3, 0.5), (6, 0.9))]}
    ablations.at_equal_minutes([quick, slow])
    assert quick["at_equal_minutes"]["mean"] == pytest.approx((0.4 + 0.1) / 2)
    assert slow["at_equal_minutes"]["mean"] == pytest.approx((0.3 + 0.0) / 2)
    assert slow["at_equal_minutes"]["cpu_minutes"] == 2


@pytest.mark.parametrize("paper", ablations.ABLATIONS)
def test_every_row_is_an_arrangement_of_the_paper_s_network(paper):
    ablation = ablations.ABLATIONS[paper]
    recipe = read_recipe(paper_recipes()[ablation.recipe])
    assert len(ablation.rows) == 3
    for arguments, _ in ablation.rows.values():
        changed = ablations.narrowed(recipe, arguments, 0.25, None, ["case"])
        assert arguments.items() <= changed.spec.architecture.arguments.items()
        assert changed.training.validation == ("case",)


@pytest.mark.slow
def test_an_ablation_runs_trains_every_row_and_says_what_came_of_it(tmp_path):
    data = write_dataset(tmp_path / "Dataset001_Lesions", "mamba_ahnet/bone", 1)
    line = ["mamba_ahnet", data, "--work", tmp_path / "work", "--output", tmp_path / "out"]
    line += ["--quick", "--width", 0.125, "--tile", 1, 64, 64, "--held-out", 2, "--device", "cpu"]
    ablations.main(list(map(str, line)))
    result = json.loads((tmp_path / "out" / "ablation_mamba_ahnet_steps.json").read_text())
    assert [each["row"] for each in result["rows"]] == ["HUNet", "AHNet", "Mamba-AHNet"]
    assert {each["runs"][0]["step"] for each in result["rows"]} == {2}
    assert result["validation"] == ["case_0"]
    assert len(result["verdicts"]) == 2
    ablations.main(list(map(str, line)))  # of complete runs
    assert json.loads((tmp_path / "out" / "ablation_mamba_ahnet_steps.json").read_text()) | {
        "machine": None
    } == result | {"machine": None}
    line[line.index(0.125)] = 0.25
    with pytest.raises(SystemExit, match="is a run of other settings"):
        ablations.main(list(map(str, line)))
