from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

import flarekit
from tests.command import COMMAND, run, run_process


@pytest.fixture
def inputs(tmp_path, write_scan):
    folder = tmp_path / "inputs"
    folder.mkdir()
    write_scan(folder / "a_0000.nii.gz")
    return folder


def test_version_is_the_package_s():
    assert run("--version").stdout == f"flarekit {flarekit.__version__}\n"


def processor_s(command):
    """Return the processor time of a process, whatever else this machine does, and its output."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = subprocess.run(command, check=True, capture_output=True).stdout
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime, text


@pytest.mark.long
def test_help_costs_little_more_than_the_library_that_draws_it():
    library = [sys.executable, "-c", "import typer"]
    pairs = [(processor_s(library), processor_s([*COMMAND, "--help"])) for _ in range(5)]
    (library_s, _), (help_s, text) = (min(column) for column in zip(*pairs, strict=True))
    assert b"Exit codes" in text
    assert help_s < 4 * library_s  # 2.5 measured; with numpy imported 4.4, with torch 20


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from flarekit.cli.main import app; "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'nibabel') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], text=True, capture_output=True, check=True
        ).stdout
        == "[]\n"
    )


@pytest.mark.long
def test_predict_writes_masks_and_exits_zero(toy, inputs, tmp_path):
    result = run_process(
        "predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder, "--device", "cpu"
    )
    assert result.returncode == 0, result.stderr
    assert os.listdir(tmp_path / "out") == ["a.nii.gz"]
    assert "on cpu" in result.stderr
    assert result.stderr.splitlines()[-2:] == [
        f"masks are in {tmp_path / 'out'}",
        "1 of 1 cases segmented",
    ]
    assert "s (import " in result.stderr


@pytest.mark.slow
def test_quiet_says_nothing(toy, inputs, tmp_path):
    result = run_process("predict", "-q", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_failed_case_gives_exit_code_one_and_a_last_line_that_names_it(toy, inputs, tmp_path):
    (inputs / "b_0000.nii.gz").write_bytes(b"")
    result = run("predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert "1 of 2 cases failed: b" in last
    assert "b_0000.nii.gz: is empty (0 bytes)" in last
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz", "b.nii.gz"]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-p", "no_such"], 2, "no predictor 'no_such'"),
        (["--device", "gpu"], 5, "no device 'gpu'"),
        (["--precision", "fp16", "--device", "cpu"], 5, "fp16"),
        (["--precision", "fp8"], 2, "fp8"),
        (["--convention", "flair"], 2, "did you mean 'flare'"),
        (["--on-error", "panic"], 2, "panic"),
        (["--engine", "abacus"], 2, "no engine 'abacus'; known: auto, openvino, torch"),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_one_line(
    toy, inputs, tmp_path, arguments, code, words
):
    result = run("predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder, *arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.long
def test_an_empty_input_folder_is_exit_code_three(toy, tmp_path):
    (tmp_path / "in").mkdir()
    result = run_process("predict", "-i", tmp_path / "in", "-o", tmp_path / "out", "-p", toy.folder)
    assert result.returncode == 3
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.long
def test_a_report_has_stage_times_and_a_picture(toy, inputs, tmp_path):
    result = run(
        "predict",
        "-i",
        inputs,
        "-o",
        tmp_path / "out",
        "-p",
        toy.folder,
        "--report",
        tmp_path / "report",
    )
    assert result.returncode == 0, result.stderr
    run_record = json.loads((tmp_path / "report" / "run.json").read_text())
    assert (run_record["cases"], run_record["failed"], run_record["mode"]) == (1, [], "fast")
    (line,) = (tmp_path / "report" / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["case_id"] == "a"
    assert json.loads(line)["seconds"]["tiles"] > 0
    assert (tmp_path / "report" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path / "out") == ["a.nii.gz"]


@pytest.mark.long
def test_quiet_still_says_what_was_given_up_for_a_budget(toy, inputs, tmp_path, write_scan):
    import numpy as np

    write_scan(inputs / "b_0000.nii.gz", np.zeros((24, 120, 120)))
    command = ["predict", "-q", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    for how in (["--time-budget", "0.01"], []):
        limit = {} if how else {"FLAREKIT_TIME_BUDGET": "0.01"}
        result = run(*command, *how, **limit)
        assert result.returncode == 0
        (*_, last) = result.stderr.strip().splitlines()
        assert last.startswith("2 of 2 cases segmented; given up in 2 cases to keep a budget: ")
        assert "one tile although its time was up (2)" in last
    spared = run(*command, "--time-budget", "0", FLAREKIT_TIME_BUDGET="0.01")
    assert (spared.returncode, spared.stderr) == (0, "")


def test_the_organiser_s_tolerance_is_a_budget_by_name(toy, inputs, tmp_path):
    command = ["predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    report = ["--report", tmp_path / "report", "--no-pictures"]
    run(*command, *report, FLAREKIT_TIME_BUDGET="convention", FLAREKIT_RAM_BUDGET="")
    record = json.loads((tmp_path / "report" / "run.json").read_text())
    assert record["budget"] == {"time_s": 15.0, "gpu_memory_mib": None, "ram_mib": None}
    run(*command, *report)
    record = json.loads((tmp_path / "report" / "run.json").read_text())
    assert record["budget"] == {"time_s": None, "gpu_memory_mib": None, "ram_mib": None}
    assert run(*command, "--time-budget", "soon").returncode == 2
    assert run(*command, "--ram-budget", "-1").returncode == 2


def test_mode_replaces_profile_whose_name_still_works_with_a_note(toy, inputs, tmp_path):
    command = ["predict", "-q", "-i", inputs, "-p", toy.folder, "--precision", "fp32"]
    old = run(*command, "-o", tmp_path / "old", "--profile", "exact")
    new = run(*command, "-o", tmp_path / "new", "--mode", "exact")
    assert (old.returncode, new.returncode, new.stderr) == (0, 0, "")
    assert old.stderr.startswith("note: --profile is called --mode now")
    masks = [(tmp_path / name / "a.nii.gz").read_bytes() for name in ("old", "new")]
    assert masks[0] == masks[1]
    assert "--profile" not in run("predict", "--help").stdout


def test_predictors_lists_what_is_there_and_what_is_wrong_with_it(toy):
    (toy.folder.parent / "broken").mkdir()
    (toy.folder.parent / "broken" / "predictor.toml").write_text("name = ")
    result = run("predictors", "--json", FLAREKIT_WEIGHTS=str(toy.folder.parent))
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["toy"]["weights"] == "ok"
    assert rows["toy"]["labels"] == {"organ": 1, "lesion": 4}
    assert "is not TOML" in rows["broken"]["error"]
    table = run("predictors", FLAREKIT_WEIGHTS=str(toy.folder.parent), COLUMNS="40")
    assert "toy" in table.stdout
    (broken,) = (line for line in table.stdout.splitlines() if "broken: " in line)
    assert "is not TOML" in broken  # in one line, whose path can be copied


ENDLESS = """
import sys, time
from flarekit.cli import main
from flarekit.segmentation import case_loop
compute = case_loop.compute_case
case_loop.compute_case = lambda *how: (compute(*how), time.sleep(600))
sys.argv = ["flarekit", *sys.argv[1:]]
main.main()
"""


@pytest.mark.long
def test_sigterm_ends_a_run_within_seconds_and_leaves_no_half_file(
    toy, inputs, tmp_path, write_scan
):
    import numpy as np

    write_scan(inputs / "a_0000.nii.gz", np.zeros((60, 100, 100)))
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", ENDLESS),
            "predict",
            "-i",
            str(inputs),
            "-o",
            str(tmp_path / "out"),
            "-p",
            str(toy.folder),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[1/1]"):
            break
    process.send_signal(signal.SIGTERM)
    process.stderr.close()
    assert process.wait(timeout=60) == 143  # it would take ten minutes
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.long
def test_weights_import_makes_a_predictor_and_never_replaces_one_unasked(tmp_path):
    import torch

    from flarekit import models

    network = models.create("attention_unet", num_classes=5)
    own, keys = models.own_tensors(network), models.official_keys_of("attention_unet", network)
    torch.save({key: own[ours] for ours, all_ in keys.items() for key in all_}, tmp_path / "x.pth")
    arguments = ["weights", "import", tmp_path / "x.pth", "--name", "x", "--output", tmp_path]
    first, second = run(*arguments), run(*arguments)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "x" / "CARD.md").is_file()
    assert second.returncode == 6
    assert "--force" in second.stderr
    assert run(*arguments, "--force").returncode == 0


@pytest.mark.slow
def test_the_command_that_an_import_ends_with_works_as_printed(tmp_path, monkeypatch):
    import torch

    from flarekit import models

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLAREKIT_WEIGHTS", raising=False)
    network = models.create("attention_unet", num_classes=5)
    own, keys = models.own_tensors(network), models.official_keys_of("attention_unet", network)
    torch.save({key: own[ours] for ours, all_ in keys.items() for key in all_}, "x.pth")
    made = run("weights", "import", "x.pth", "--name", "mini")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "weights" / "mini" / "predictor.toml").is_file()
    (line,) = [line for line in made.stderr.splitlines() if line.startswith("next: flarekit ")]
    assert line == "next: flarekit predict -p mini -i SCANS -o MASKS"
    listed = run("predictors")
    assert "mini" in listed.stdout
    assert run("weights", "verify", "mini").returncode == 0


@pytest.mark.parametrize(
    "wrong", [("--convention", "flair"), ("--name", "a/b"), ("--checkpoint", "x", "--folds", "7")]
)
def test_an_import_with_a_wrong_option_leaves_nothing(tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result").mkdir()
    arguments = ["result", "--name", "mini", *wrong]
    assert run("weights", "import", *arguments).returncode != 0
    assert os.listdir(tmp_path) == ["result"]
    assert os.listdir(tmp_path / "result") == []


def test_weights_verify_tells_which_predictor_is_not_whole(toy):
    assert run("weights", "verify", toy.folder).returncode == 0
    toy.weights.write_bytes(b"something else")
    result = run("weights", "verify", toy.folder)
    assert result.returncode == 4
    assert "SHA-256" in result.stderr


@pytest.mark.slow
def test_sigterm_ends_a_run_that_is_deep_in_one_long_call():
    script = (
        "import hashlib; from flarekit.cli.terminating import end_on_sigterm; end_on_sigterm(); "
        "print('ready', flush=True); hashlib.pbkdf2_hmac('sha256', b'a', b'b', 1_000_000_000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        computing = psutil.Process(process.pid)
        until_s = computing.cpu_times().user + 0.5
        while computing.cpu_times().user < until_s:  # until it is in that call
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1].startswith("error: terminated")
