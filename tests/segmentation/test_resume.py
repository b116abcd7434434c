from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from flarekit.core.errors import OutputError, UsageError
from flarekit.report.ledger import Ledger
from flarekit.segmentation.folder import Options, Report, Resuming, Silent, segment_folder
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.state import state_folder
from tests.command import run
from tests.processor import WITH_AVX512

OPTIONS = Options(device="cpu", precision="fp32")
AGAIN = Resuming(resume=True)
RETRY = Resuming(retry_failed=True)


class Counting(Silent):
    """Keeps the ids of the cases that were run."""

    def __init__(self):
        self.ids = []

    def start_case(self, case_id, index, total):  # noqa: ARG002 - progress's form
        self.ids.append(case_id)


@pytest.fixture
def inputs(tmp_path, write_scan):
    folder = tmp_path / "inputs"
    folder.mkdir()
    for index, name in enumerate("abc"):
        voxels = np.random.default_rng(index).integers(-200, 300, (9, 20, 14))
        write_scan(folder / f"{name}_0000.nii.gz", voxels)
    return folder


@pytest.fixture
def segment(toy, inputs, tmp_path):
    """Return a function that runs the folder and says which cases were computed."""

    def run_it(resuming=None, options=OPTIONS, predictor=toy):
        counting = Counting()
        report = Report(tmp_path / "report", pictures=False, resuming=resuming)
        record = segment_folder(predictor, inputs, tmp_path / "out", options, counting, report)
        return counting.ids, record

    return run_it


def lines_of(folder):
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def test_a_line_tells_input_predictor_settings_and_mask(segment, tmp_path):
    segment()
    line = lines_of(tmp_path / "report")[0]
    for name in ("input_sha256", "predictor_sha256", "mask_sha256"):
        assert len(line[name]) == 64
    assert line["settings"]["precision"] == "fp32"
    assert line["ended"].startswith("20")


def test_what_is_done_and_whole_is_skipped_and_that_is_said(segment, tmp_path, caplog):
    caplog.set_level("INFO")
    segment()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    ids, record = segment(AGAIN)
    assert ids == []
    assert record.done_before == ("a", "b", "c")
    assert "3 of 3 cases are done and whole, and are skipped" in caplog.text
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


@pytest.mark.long
def test_statistics_of_resumed_runs_have_every_case_once(segment, tmp_path):
    segment()
    table = (tmp_path / "report" / "statistics.csv").read_text()
    (tmp_path / "out" / "b.nii.gz").unlink()
    segment(AGAIN)
    again = (tmp_path / "report" / "statistics.csv").read_text()
    assert sorted(again.splitlines()) == sorted(table.splitlines())
    segment()
    assert (tmp_path / "report" / "statistics.csv").read_text() == table


@pytest.mark.long
def test_without_resume_everything_runs_again(segment):
    segment()
    assert segment()[0] == ["a", "b", "c"]


@pytest.mark.quick(2)
@pytest.mark.parametrize("harm", ["missing", "changed", "cut short", "empty"])
def test_a_mask_that_is_not_the_one_that_was_written_is_made_again(segment, tmp_path, harm):
    segment()
    mask = tmp_path / "out" / "b.nii.gz"
    whole = mask.read_bytes()
    if harm == "missing":
        mask.unlink()
    else:
        mask.write_bytes({"changed": whole + b"x", "cut short": whole[:40], "empty": b""}[harm])
    assert segment(AGAIN)[0] == ["b"]
    assert mask.read_bytes() == whole


def test_a_changed_input_of_the_same_name_and_size_is_run_again(segment, inputs):
    segment()
    path = inputs / "b_0000.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), path)
    assert segment(AGAIN)[0] == ["b"]


def test_an_input_that_only_moved_or_was_touched_is_not_run_again(segment, inputs):
    segment()
    for path in inputs.iterdir():
        os.utime(path, (1, 1))
    assert segment(AGAIN)[0] == []


def test_an_input_that_took_another_s_name_is_run_again(segment, inputs):
    segment()
    (inputs / "a_0000.nii.gz").replace(inputs / "c_0000.nii.gz")
    assert segment(AGAIN)[0] == ["c"]


def test_a_new_case_is_run_beside_those_that_are_done(segment, inputs, write_scan):
    segment()
    write_scan(inputs / "d_0000.nii.gz")
    ids, record = segment(AGAIN)
    assert ids == ["d"]
    assert record.done_before == ("a", "b", "c")


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "change", [{"mode": "exact"}, {"precision": "bf16"}, {"time_budget_s": 900.0}]
)
def test_a_changed_setting_runs_everything_again(segment, caplog, change, monkeypatch):
    monkeypatch.setattr("flarekit.engine._cpu._cpu_info", lambda: WITH_AVX512)
    caplog.set_level("INFO")
    segment()
    assert segment(AGAIN, replace(OPTIONS, **change))[0] == ["a", "b", "c"]
    assert f"ran with other settings ({next(iter(change))})" in caplog.text


def test_a_changed_predictor_runs_everything_again_and_a_new_title_does_not(segment, toy, caplog):
    caplog.set_level("INFO")
    segment()
    path = toy.folder / "predictor.toml"
    facts = path.read_text()
    path.write_text(facts.replace("random weights", "weights of chance"))
    assert segment(AGAIN, predictor=find_predictor(str(toy.folder)))[0] == []
    path.write_text(facts.replace("step = 0.5", "step = 0.4"))
    assert segment(AGAIN, predictor=find_predictor(str(toy.folder)))[0] == ["a", "b", "c"]
    assert "3 ran with another predictor" in caplog.text


def test_failures_stay_until_they_are_to_be_retried(segment, inputs, write_scan):
    write_scan(inputs / "b_0000.nii.gz").write_bytes(b"torn")
    assert len(segment()[1].failed) == 1
    ids, record = segment(AGAIN)
    assert (ids, record.failed_before) == ([], ("b",))
    assert segment(RETRY)[0] == ["b"]
    write_scan(inputs / "b_0000.nii.gz")
    ids, record = segment(AGAIN)  # another input: no need to ask for it
    assert (ids, record.failed, record.failed_before) == (["b"], (), ())


def test_a_channel_that_was_missing_and_came_is_another_input(make_toy, tmp_path, write_scan):
    toy = make_toy(channels=2)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    write_scan(inputs / "a_0000.nii.gz")
    for resuming, failed in ((None, 1), (AGAIN, 0)):
        report = Report(tmp_path / "report", pictures=False, resuming=resuming)
        record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS, report=report)
        assert len(record.failed) == failed
        write_scan(inputs / "a_0001.nii.gz")


@pytest.mark.quick(2)
@pytest.mark.parametrize("torn", [b'{"case_id": "c", "mask', b"\x00" * 20, b'["c"]\n', b"null"])
def test_a_torn_last_line_is_read_over_and_the_next_one_is_whole(segment, tmp_path, torn, caplog):
    segment()
    path = tmp_path / "report" / "ledger.jsonl"
    *kept, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept) + torn)
    assert segment(AGAIN)[0] == ["c"]
    assert "1 torn line is skipped" in caplog.text
    assert segment(AGAIN)[0] == []


def test_a_ledger_of_an_older_version_is_read_and_its_cases_are_run(segment, tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "ledger.jsonl").write_text('{"case_id": "a", "mask": "out/a.nii.gz"}\n')
    assert segment(AGAIN)[0] == ["a", "b", "c"]


@pytest.mark.long
def test_the_parts_of_a_stack_are_run_together_or_not_at_all(toy, tmp_path):
    inputs = tmp_path / "stack"
    folder = inputs / "images" / "stacked-3d-ct-lesion-volumes"
    folder.mkdir(parents=True)
    voxels = np.full((256, 256, 256), -1000, np.int16)
    voxels[40:90, 60:200, 100:180] = voxels[150:230, 90:160, 60:200] = 40
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(folder / "s.mha"), True)
    spacings = inputs / "stacked-3d-volumetric-spacings.json"
    spacings.write_text(json.dumps([[1, 1, 1], [1, 1, 2]]))
    facts = toy.folder / "predictor.toml"
    facts.write_text(facts.read_text().replace("[2.0, 2.0, 2.0]", "[8.0, 8.0, 8.0]"))
    predictor = find_predictor(str(toy.folder))
    options = replace(OPTIONS, convention="uls23")

    def run_it(resuming=None):
        counting = Counting()
        report = Report(tmp_path / "report", pictures=False, resuming=resuming)
        segment_folder(predictor, inputs, tmp_path / "out", options, counting, report)
        return counting.ids

    run_it()
    assert run_it(AGAIN) == []
    (ledger,) = (tmp_path / "report").glob("ledger.jsonl")
    first, second = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(second)
    assert run_it(AGAIN) == ["s-0000", "s-0001"]
    spacings.write_text(json.dumps([[1, 1, 1], [1, 1, 3]]))
    assert run_it(AGAIN) == ["s-0000", "s-0001"]
    assert first != second


@pytest.mark.long
def test_a_run_that_is_killed_loses_the_case_it_was_at_and_no_other(toy, inputs, tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from flarekit.segmentation import case_loop
from flarekit.segmentation.folder import Options, Report, segment_folder
from flarekit.segmentation.predictors import find_predictor
genuine, count = case_loop.compute_case, []
def compute(*arguments):
    count.append(1)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return genuine(*arguments)
case_loop.compute_case = compute
segment_folder(find_predictor({str(toy.folder)!r}), Path({str(inputs)!r}),
    Path({str(tmp_path / "out")!r}), Options(device="cpu", precision="fp32"),
    report=Report(Path({str(tmp_path / "report")!r}), pictures=False))
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    counting = Counting()
    report = Report(tmp_path / "report", pictures=False, resuming=AGAIN)
    segment_folder(toy, inputs, tmp_path / "out", OPTIONS, counting, report)
    assert counting.ids == ["c"]


def test_what_a_full_disk_kept_out_of_the_ledger_is_run_again(
    segment, tmp_path, monkeypatch, caplog
):
    genuine = Ledger.add

    def full(self, record):
        if record.case_id == "b":
            raise OSError(28, "No space left on device")
        genuine(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "add", full)
        assert not segment()[1].failed
    assert "b is not in the record" in caplog.text
    assert segment(AGAIN)[0] == ["b"]
    rows = (tmp_path / "report" / "statistics.csv").read_text().splitlines()
    assert len(rows) == len(set(rows)) == 1 + 3 * 2


def test_a_second_run_on_one_ledger_is_refused_while_the_first_goes_on(segment, tmp_path):
    ledger = Ledger(tmp_path / "report")
    for resuming in (None, AGAIN):
        with pytest.raises(UsageError, match="another run is writing to it"):
            segment(resuming)
    ledger.end()
    assert segment()[0] == ["a", "b", "c"]


@pytest.mark.parametrize("place", ["out", "out/report"])
def test_no_report_lies_among_the_masks(toy, inputs, tmp_path, place):
    with pytest.raises(UsageError, match="holds masks and nothing else"):
        segment_folder(toy, inputs, tmp_path / "out", OPTIONS, report=Report(tmp_path / place))


def test_a_ledger_that_cannot_be_read_is_named(segment, tmp_path):
    segment()
    (tmp_path / "report" / "ledger-1-of-2.jsonl").mkdir()
    with pytest.raises(OutputError, match="ledger-1-of-2.jsonl: cannot be read"):
        segment(AGAIN)


def test_a_run_without_a_report_is_resumed_by_its_folders(toy, inputs, tmp_path):
    command = ["predict", "-i", inputs, "-p", toy.folder, "--device", "cpu", "-o"]
    state = {"FLAREKIT_STATE": str(tmp_path / "state")}
    assert run(*command, tmp_path / "out", **state).returncode == 0
    again = run(*command, tmp_path / "out", "--resume", **state)
    assert again.stderr.splitlines()[-1] == "3 of 3 cases segmented (3 in an earlier run)"
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    other = run(*command, tmp_path / "other", "--resume", **state)
    assert other.stderr.splitlines()[-1] == "3 of 3 cases segmented"


def test_a_failure_of_an_earlier_run_is_in_the_last_lines_and_the_exit_code(toy, inputs, tmp_path):
    (inputs / "b_0000.nii.gz").write_bytes(b"")
    command = ["predict", "-i", inputs, "-p", toy.folder, "-o", tmp_path / "out"]
    run(*command)
    again = run(*command, "--resume")
    assert again.returncode == 1
    assert "1 of 3 cases failed in an earlier run: b; run them again with --retry-failed" in (
        again.stderr
    )
    assert again.stderr.splitlines()[-1] == "2 of 3 cases segmented (2 in an earlier run)"


def test_where_no_ledger_can_be_kept_runs_go_on_and_resuming_is_refused(toy, inputs, tmp_path):
    command = ["predict", "-i", inputs, "-p", toy.folder, "-o", tmp_path / "out"]
    (tmp_path / "file").write_text("")
    for state in ("", str(tmp_path / "file" / "state")):
        assert run(*command, FLAREKIT_STATE=state).returncode == 0
        refused = run(*command, "--resume", FLAREKIT_STATE=state)
        assert refused.returncode == 2
        assert "--report" in refused.stderr


ENDLESS = """
import sys, time
from flarekit.cli import main
from flarekit.segmentation import case_loop
compute = case_loop.compute_case
def last_never_ends(ready, *how):
    if next(left) == 0:
        time.sleep(600)
    return compute(ready, *how)
left = iter((3, 2, 1, 0))
case_loop.compute_case = last_never_ends
sys.argv = ["flarekit", *sys.argv[1:]]
main.main()
"""


@pytest.mark.slow
def test_sigterm_says_how_far_the_run_is_and_how_it_goes_on(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "d_0000.nii.gz")
    command = [sys.executable, "-c", ENDLESS, "predict", "--device", "cpu"]
    command += ["-i", str(inputs), "-o", str(tmp_path / "out"), "-p", str(toy.folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("[4/4]"):
                break
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 143
    assert said.splitlines()[-1] == "error: terminated; 3 of 4 done; run again with --resume"


def test_probabilities_that_are_not_where_they_are_wanted_are_made(segment, tmp_path):
    """In a folder that one run made and the next one names another, or that lost a file."""
    options = replace(OPTIONS, probabilities=tmp_path / "q")
    segment(options=options)
    assert segment(AGAIN, options)[0] == []
    (tmp_path / "q" / "b.npz").unlink()
    assert segment(AGAIN, options)[0] == ["b"]
    elsewhere = replace(OPTIONS, probabilities=tmp_path / "elsewhere")
    assert segment(AGAIN, elsewhere)[0] == ["a", "b", "c"]
    assert len(list((tmp_path / "elsewhere").glob("*.npz"))) == 3


def test_a_case_that_failed_is_not_run_again_for_probabilities(segment, inputs, tmp_path):
    (inputs / "b_0000.nii.gz").write_bytes(b"torn")
    options = replace(OPTIONS, probabilities=tmp_path / "q")
    segment(options=options)
    ids, record = segment(AGAIN, options)
    assert (ids, record.failed_before) == ([], ("b",))


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, "/home/me/.local/state/flarekit"),
        ({"XDG_STATE_HOME": "/var/state"}, "/var/state/flarekit"),
        ({"XDG_STATE_HOME": "/var/state", "FLAREKIT_STATE": "/runs"}, "/runs"),
    ],
)
def test_ledgers_lie_where_a_variable_or_the_system_says(monkeypatch, variables, place):
    for name in ("XDG_STATE_HOME", "FLAREKIT_STATE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert state_folder() == Path(place)
