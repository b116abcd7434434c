from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from flarekit.core.errors import InputError
from flarekit.training.cases import LazyCases, real_cases
from flarekit.training.kept import make_kept, read_kept
from flarekit.training.sources import make_all, training_pools
from tests.training.conftest import make_case
from tests.training.test_cases import write_dataset


@dataclass(frozen=True)
class Maker:
    """A case whose image is all of one value; the class remembers which were made."""

    seed: int
    log: ClassVar[list[int]] = []

    def __call__(self):
        self.log.append(self.seed)
        return make_case(np.full((1, 24, 24, 24), float(self.seed)))


def the_same(a, b):
    assert a.case_id == b.case_id
    assert np.array_equal(a.image_CZYX, b.image_CZYX)
    assert a.image_CZYX.dtype == b.image_CZYX.dtype
    assert np.array_equal(a.classes_ZYX, b.classes_ZYX)
    assert np.array_equal(a.possible_K, b.possible_K)
    assert a.possible_K.dtype == b.possible_K.dtype == np.bool_
    assert a.centres.keys() == b.centres.keys()
    assert all(np.array_equal(a.centres[k], b.centres[k]) for k in a.centres)
    assert len(a.hard_negatives) == len(b.hard_negatives)
    assert a.spacing_mm_ZYX == b.spacing_mm_ZYX


def test_a_kept_case_is_the_case(tmp_path, recipe):
    dataset = write_dataset(tmp_path / "d", ["case_a"])
    made, kept = real_cases(dataset, recipe), real_cases(dataset, recipe)
    kept.make_all(tmp_path / "cases", processes=1)
    the_same(made[0], kept[0])


def test_hard_negatives_are_kept_part_by_part(tmp_path):
    parts = [np.arange(6, dtype=np.int32).reshape(2, 3), np.ones((1, 3), np.int32)]
    case = make_case()
    case = type(case)(**{**vars(case), "hard_negatives": parts})
    (path,) = make_kept([lambda: case], tmp_path, 1)
    again = read_kept(path)
    assert [part.tolist() for part in again.hard_negatives] == [part.tolist() for part in parts]


def test_what_is_kept_is_not_made_again(tmp_path):
    Maker.log.clear()
    for _ in range(2):
        cases = LazyCases([Maker(1), Maker(2)])
        cases.make_all(tmp_path, processes=1)
        assert [float(case.image_CZYX.max()) for case in cases] == [1, 2]
    assert Maker.log == [1, 2]


def test_another_seed_file_or_fact_is_another_case(tmp_path, make_recipe):
    dataset = write_dataset(tmp_path / "d", ["case_a"])
    folder = tmp_path / "cases"
    count = lambda: len(list(folder.glob("*.safetensors")))  # noqa: E731
    for expected, change in ((1, ()), (2, (("[8.0, 8.0, 8.0]", "[6.0, 8.0, 8.0]"),))):
        real_cases(dataset, make_recipe(*change)).make_all(folder, 1)
        assert count() == expected
    # what samples are made of them does not matter
    real_cases(dataset, make_recipe(("batch = 1", "batch = 3"))).make_all(folder, 1)
    assert count() == 2
    write_dataset(tmp_path / "d", ["case_a"], shape=(22, 24, 16))
    real_cases(dataset, make_recipe()).make_all(folder, 1)
    assert count() == 3


@pytest.mark.slow
def test_cases_are_made_in_processes_of_their_own(tmp_path, recipe):
    dataset = write_dataset(tmp_path / "d", ["case_a", "case_c"])
    made, kept = real_cases(dataset, recipe), real_cases(dataset, recipe)
    kept.make_all(tmp_path / "cases", processes=2)
    for one, other in zip(made, kept, strict=True):
        the_same(one, other)


def test_a_damaged_file_is_named(tmp_path):
    (path,) = make_kept([Maker(3)], tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=path.name):
        read_kept(path)


def test_negatives_hold_nothing_but_what_may_be_in_them(tmp_path, make_recipe):
    table = '[training.negatives]\nshare = 0.5\npossible = { chest = ["spleen"] }\n\n[provenance]'
    recipe = make_recipe(("[provenance]", table))
    write_dataset(tmp_path / "d", ["case_a"])
    write_dataset(tmp_path / "n", ["chest_1", "leg_1"])
    pools = training_pools(recipe, tmp_path / "d", negatives=[tmp_path / "n"])
    make_all(pools, tmp_path / "cases", 1)
    assert [pool.share for pool in pools] == [0.5, 0.5]
    chest, leg = pools[0].cases
    assert chest.possible_K.tolist() == [True, False, True]
    assert set(np.unique(chest.classes_ZYX)) == {255}
    assert not leg.possible_K.any()
    assert set(np.unique(leg.classes_ZYX)) == {0}


def test_a_recipe_with_negatives_needs_their_folder(tmp_path, make_recipe):
    recipe = make_recipe(("[provenance]", "[training.negatives]\nshare = 0.5\n\n[provenance]"))
    write_dataset(tmp_path / "d", ["case_a"])
    with pytest.raises(InputError, match="--negatives"):
        training_pools(recipe, tmp_path / "d")


def test_other_code_makes_other_cases(tmp_path, monkeypatch):
    list(make_kept([Maker(7)], tmp_path, 1))
    monkeypatch.setattr("flarekit.training.kept._code", lambda: "changed")
    list(make_kept([Maker(7)], tmp_path, 1))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
