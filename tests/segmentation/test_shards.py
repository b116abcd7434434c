from __future__ import annotations

import json
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekit import conventions
from flarekit.conventions import Case
from flarekit.core.errors import UsageError
from flarekit.segmentation.shards import Shard, cases_of
from tests.command import run

FLARE = conventions.get("flare")


def cases_with(folder, sizes):
    cases = []
    for index, size in enumerate(sizes):
        path = folder / f"{index:03d}_0000.nii.gz"
        with path.open("wb") as stream:
            stream.truncate(size)
        cases.append(Case(case_id=f"{index:03d}", channels=(path,), mask=path.with_suffix("")))
    return cases


@pytest.mark.parametrize("text", ["1/1", "3/8", " 8/8 "])
def test_a_shard_is_written_as_its_number_and_their_count(text):
    assert str(Shard.of(text)) == text.strip()


@pytest.mark.parametrize("text", ["", "3", "0/8", "9/8", "-1/8", "1/0", "a/b", "1/2/3", "1.5/2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match="is not a shard"):
        Shard.of(text)


@pytest.mark.long
@given(count=st.integers(1, 9), sizes=st.lists(st.integers(0, 10**6), max_size=12), data=st.data())
def test_every_case_is_in_one_shard_in_whatever_order_they_are_found(
    count, sizes, data, tmp_path_factory
):
    cases = cases_with(tmp_path_factory.mktemp("scans"), sizes)
    shuffled = data.draw(st.permutations(cases))
    dealt = Counter()
    for number in range(1, count + 1):
        mine = {case.case_id for case in cases_of(Shard(number, count), cases, FLARE)}
        assert mine == {case.case_id for case in cases_of(Shard(number, count), shuffled, FLARE)}
        dealt.update(mine)
    assert dealt == Counter(case.case_id for case in cases)


def test_shards_are_balanced_by_size(tmp_path):
    sizes = np.random.default_rng(4).lognormal(13, 1, 80).astype(int)
    cases = cases_with(tmp_path, sizes.tolist())
    loads = [
        sum(case.channels[0].stat().st_size for case in cases_of(Shard(number, 8), cases, FLARE))
        for number in range(1, 9)
    ]
    assert max(loads) < 1.1 * np.mean(loads)


def test_the_cases_of_a_shard_keep_the_order_in_which_they_were_found(tmp_path):
    cases = cases_with(tmp_path, [5, 900, 70, 3000, 200, 1])
    mine = [case.case_id for case in cases_of(Shard(1, 2), cases, FLARE)]
    assert mine == sorted(mine)


@pytest.fixture
def inputs(tmp_path, write_scan):
    folder = tmp_path / "inputs"
    folder.mkdir()
    for name in "abcde":
        write_scan(folder / f"{name}_0000.nii.gz")
    return folder


def test_shards_together_make_every_mask_once_and_each_has_its_own_ledger(toy, inputs, tmp_path):
    command = ["predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    command += ["--report", tmp_path / "report", "--no-pictures"]
    for number in (1, 2, 3):
        assert run(*command, "--shard", f"{number}/3").returncode == 0
    assert len(os.listdir(tmp_path / "out")) == 5
    ledgers = sorted((tmp_path / "report").glob("ledger*.jsonl"))
    assert [path.name for path in ledgers] == [f"ledger-{n}-of-3.jsonl" for n in (1, 2, 3)]
    ids = [
        json.loads(line)["case_id"] for path in ledgers for line in path.read_text().splitlines()
    ]
    assert sorted(ids) == list("abcde")
    again = run(*command, "--resume")
    assert again.stderr.splitlines()[-1] == "5 of 5 cases segmented (5 in an earlier run)"
    other = run(*command, "--resume", "--shard", "2/2")
    assert "(2 in an earlier run)" in other.stderr


def test_a_shard_without_cases_is_no_failure(toy, inputs, tmp_path):
    command = ["predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    last = run(*command, "--shard", "9/9")
    assert (last.returncode, last.stderr.splitlines()[-1]) == (0, "0 of 0 cases segmented")
    assert run(*command, "--shard", "9").returncode == 2
