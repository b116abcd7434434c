from __future__ import annotations

import json

import bench_recipes
import numpy as np
import pytest

from flarekit.core.errors import UsageError


@pytest.mark.long
def test_a_quick_run_has_a_row_for_every_recipe_and_one_of_our_own_for_each(
    located, make_dataset, tmp_path
):
    options = ["--dataset", str(make_dataset()), "--quick", "--output", str(tmp_path)]
    path = bench_recipes.main([str(located.folder), *options])
    result = json.loads(path.read_text())
    (scan,) = result["scans"]
    rows = scan["rows"]
    assert [row["recipe"] for row in rows[::2]] == [
        "all tiles",
        *["ours"] * 5,
    ]
    assert rows[-1]["recipe"] == "locator alone"
    assert rows[-1]["tiles"] == 0
    tiles = {row["recipe"]: row["tiles"] for row in rows if row["recipe"] != "ours"}
    assert tiles["top_k, k = 1"] == 1
    assert tiles["region, step 1"] <= tiles["region, step 0.5"]
    for before, ours in zip(rows[1:-1:2], rows[2:-1:2], strict=True):
        assert ours["budget_s"] == before["taken_s"]
    assert [row["recipe"] for row in result["summary"]] == [row["recipe"] for row in rows]


def test_a_predictor_without_a_locator_has_no_recipes(make_predictor, tmp_path):
    with pytest.raises(UsageError, match="has no locator"):
        bench_recipes.main([str(make_predictor().folder), "--quick", "--output", str(tmp_path)])


def test_the_region_is_the_box_around_all_labels_with_its_margin():
    class Placement:
        spacing_mm_ZYX = (10.0, 10.0, 10.0)  # noqa: N815 - as of a placement

    class Found:
        placement = Placement()
        label_map_ZYX = np.zeros((12, 12, 12), np.uint8)  # noqa: N815

    found = Found()
    assert bench_recipes.box_around(found).all()
    found.label_map_ZYX[5, 6, 1] = found.label_map_ZYX[7, 6, 3] = 2
    inside = bench_recipes.box_around(found)
    assert inside[3:10, 4:9, 0:6].all()
    assert inside.sum() == 7 * 5 * 6
