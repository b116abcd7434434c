from __future__ import annotations

import csv
import json

import pytest

from flarekit.cohort.merge import merge, statistics_beside
from flarekit.core.errors import InputError, UsageError
from flarekit.report.ledger import Ledger
from tests.command import run


@pytest.fixture
def shards(toy, tmp_path, write_scan):
    """Run a cohort of five in three shards; one case of it is damaged."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name in "abcde":
        write_scan(inputs / f"{name}_0000.nii.gz")
    (inputs / "c_0000.nii.gz").write_bytes(b"torn")
    command = ["predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    command += ["--report", tmp_path / "report", "--no-pictures"]
    for number in (1, 2, 3):
        run(*command, "--shard", f"{number}/3")
    return command


def cases_in(folder):
    ledger = (folder / "ledger.jsonl").read_text().splitlines()
    with (folder / "statistics.csv").open() as stream:
        rows = [(row["case"], row["label"]) for row in csv.DictReader(stream)]
    return [json.loads(line)["case_id"] for line in ledger], rows


@pytest.mark.usefixtures("shards")
def test_shards_become_one_ledger_and_one_table_with_every_case_once(tmp_path):
    merged = run("cohort", "merge", tmp_path / "report", "-o", tmp_path / "whole")
    assert merged.returncode == 1
    assert "4 of 5 cases done, 1 failed" in merged.stderr
    assert "failed: c: " in merged.stderr
    rows = [(case_id, label) for case_id in "abde" for label in ("organ", "lesion")]
    assert cases_in(tmp_path / "whole") == (list("abcde"), rows)
    run("cohort", "merge", tmp_path / "report")
    run("cohort", "merge", tmp_path / "report")  # the merged ledger is one of them now
    assert cases_in(tmp_path / "report") == (list("abcde"), rows)


@pytest.mark.long
def test_a_shard_that_is_not_there_or_did_not_end_is_named(shards, tmp_path, write_scan):
    write_scan(tmp_path / "inputs" / "c_0000.nii.gz")
    for number in (1, 2, 3):
        assert run(*shards, "--resume", "--shard", f"{number}/3").returncode == 0
    report = tmp_path / "report"
    assert run("cohort", "merge", report).returncode == 0
    (report / "run-2-of-3.json").unlink()  # as a run that is killed leaves it
    unfinished = run("cohort", "merge", report)
    assert unfinished.returncode == 1
    assert "ledger-2-of-3.jsonl: has no run-2-of-3.json beside it" in unfinished.stderr
    (report / "ledger-2-of-3.jsonl").unlink()
    absent = run("cohort", "merge", report)
    assert absent.returncode == 1
    assert "ledger-2-of-3.jsonl is not there" in absent.stderr
    assert "ledger-2-of-3.jsonl is not there" in run("cohort", "report", report).stderr
    for number in (1, 2):  # dealt out anew, in two
        run(*shards, "--resume", "--shard", f"{number}/2")
    assert run("cohort", "merge", report).returncode == 0


@pytest.mark.long
def test_merging_leaves_the_record_of_a_run_where_it_is(shards, tmp_path):
    run(*shards)
    before = (tmp_path / "report" / "run.json").read_bytes()
    run("cohort", "merge", tmp_path / "report")
    assert (tmp_path / "report" / "run.json").read_bytes() == before


@pytest.mark.long
def test_the_line_that_was_written_last_counts(shards, tmp_path, write_scan):
    run("cohort", "merge", tmp_path / "report")
    write_scan(tmp_path / "inputs" / "c_0000.nii.gz")
    assert run(*shards, "--resume").returncode == 0
    assert run("cohort", "merge", tmp_path / "report").returncode == 0
    ids, rows = cases_in(tmp_path / "report")
    assert ids == list("abcde")
    assert len(rows) == 10


def test_a_place_without_a_ledger_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(InputError, match="has no ledger"):
            merge([place], tmp_path)


@pytest.mark.usefixtures("shards")
def test_a_ledger_that_a_run_writes_to_is_not_replaced(tmp_path):
    running = Ledger(tmp_path / "report", keep=True)
    with pytest.raises(UsageError, match="another run"):
        merge([tmp_path / "report"], tmp_path / "report")
    running.end()


def test_a_table_lies_beside_its_ledger(tmp_path):
    assert statistics_beside(tmp_path / "ledger.jsonl").name == "statistics.csv"
    part = statistics_beside(tmp_path / "ledger-3-of-8.jsonl")
    assert part.name == "statistics-3-of-8.csv"
