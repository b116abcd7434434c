from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from flarekit.core.readings import Unsupported
from flarekit.profiler.records import write_report_json
from tests.command import run
from tests.profiler.made import COMMAND, made_case, made_report


@pytest.fixture
def reported(tmp_path):
    """Return a folder with a report of three cases: one too slow, one failed."""
    report = made_report(
        made_case(),
        made_case("b_0000", time_s=20.0),
        made_case("c_0000", failures=("exit code 3; last line: out of luck",)),
    )
    write_report_json(report, tmp_path / "efficiency.json")
    return tmp_path


def test_check_names_each_case_and_limit_and_exits_one(reported, flarekit):
    result = flarekit("check", reported)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: case b_0000: time 20.00 s, limit 15 s",
        "error: case c_0000: exit code 3; last line: out of luck",
        "error: 2 of 3 cases break a limit",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--max-time", "30"], 1, "1 of 3 cases break a limit"),
        (["--max-ram-mib", "100", "--max-time", "30"], 1, "memory 520.00 MiB, limit 100 MiB"),
        (["--preset", "flare22"], 1, "GPU memory 3000 MiB, limit 2048 MiB"),
        (["--preset", "flare99"], 2, "no preset 'flare99'"),
        (["--max-time", "soon"], 2, "--max-time"),
    ],
)
def test_check_has_limits_and_exit_codes(reported, flarekit, arguments, code, words):
    result = flarekit("check", reported, *arguments)
    assert result.returncode == code
    assert words in result.stderr


def test_check_of_what_keeps_to_the_limits_exits_zero(tmp_path, flarekit):
    write_report_json(made_report(made_case()), tmp_path / "efficiency.json")
    result = flarekit("check", tmp_path)
    assert (result.returncode, result.stderr) == (0, "1 of 1 cases keep to the limits\n")


def test_a_preset_s_gpu_limit_fails_where_no_gpu_was_measured_unless_none_is_meant(
    tmp_path, flarekit
):
    gone = Unsupported(not_supported="no driver")
    write_report_json(made_report(made_case(gpu=(gone, gone))), tmp_path / "efficiency.json")
    result = flarekit("check", tmp_path, "--preset", "flare23")
    assert result.returncode == 1
    assert "GPU memory not measured: no driver; measure where the GPU is seen" in result.stderr
    assert flarekit("check", tmp_path, "--preset", "flare23", "--cpu").returncode == 0
    assert flarekit("check", tmp_path).returncode == 0
    both = flarekit("check", tmp_path, "--cpu", "--max-gpu-mib", "9")
    assert both.returncode == 2
    assert "contradict" in both.stderr


@pytest.mark.slow
def test_what_was_not_measured_has_no_unit(tmp_path, flarekit):
    result = flarekit("run", "--output", tmp_path, "--", sys.executable, "-c", "")
    assert "GPU not measured, memory" in result.stderr
    assert "not measured MiB" not in result.stderr
    assert "not supported MiB" not in result.stderr


@pytest.mark.slow
def test_a_command_s_memory_between_two_samples_is_the_kernel_s_own_peak(tmp_path, flarekit):
    code = "import time; time.sleep(.3); x = bytearray(b'x') * (200 << 20); del x; time.sleep(.2)"
    result = flarekit("run", "--output", tmp_path, "--name", "c", "--", sys.executable, "-c", code)
    assert "at the kernel's own peak (of the largest process)" in result.stderr
    case = json.loads((tmp_path / "efficiency.json").read_text())["cases"][0]
    assert 200 < case["measured"]["tree_peak_mib"]["maximum"] < 320


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", ["..", ".", "a/b", "-x", "", "a\nb"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    result = run("profile", "run", "--output", tmp_path / "r", f"--name={name}", "--", "true")
    assert result.returncode == 2 or not name
    assert "Traceback" not in result.stderr


def test_check_of_nothing_measured_does_not_pass(tmp_path, flarekit):
    write_report_json(made_report(), tmp_path / "efficiency.json")
    assert flarekit("check", tmp_path).returncode == 1


def test_check_of_no_report_is_exit_code_three(tmp_path, flarekit):
    result = flarekit("check", tmp_path)
    assert result.returncode == 3
    assert result.stderr.startswith("error: ")


def test_compare_prints_ratios(tmp_path, flarekit):
    for name, time_s in (("a", 10.0), ("b", 5.0)):
        (tmp_path / name).mkdir()
        report = made_report(made_case(time_s=time_s))
        write_report_json(report, tmp_path / name / "efficiency.json")
    result = flarekit("compare", tmp_path / "a", tmp_path / "b")
    assert result.returncode == 0
    row = next(line for line in result.stdout.splitlines() if "time (s)" in line)
    assert row.split()[-4:] == ["10.00", "5.00", "x", "0.50"]


@pytest.mark.long
def test_run_leaves_a_report_and_the_command_s_own_exit_code(tmp_path, flarekit):
    code = "import sys; print('said'); sys.exit(7)"
    result = flarekit(
        "run", "--output", tmp_path, "--name", "toy", "--", sys.executable, "-c", code
    )
    assert result.returncode == 7
    assert "said" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "efficiency.json",
        "efficiency.html",
        "toy_Efficiency.csv",
        "toy",
        "samples",
        "logs",
        "curves",
    }
    assert (tmp_path / "curves" / "toy.png").read_bytes().startswith(b"\x89PNG")
    case = json.loads((tmp_path / "efficiency.json").read_text())["cases"][0]
    assert case["failures"] == ["exit code 7"]
    again = flarekit("report", tmp_path)
    assert again.returncode == 0, again.stderr


def test_a_name_that_would_leave_the_folder_is_refused(tmp_path):
    result = run("profile", "run", "-o", tmp_path, "--name", "../x", "--", "true")
    assert result.returncode == 2
    assert "'../x' is not a file name" in result.stderr


@pytest.mark.slow
def test_a_command_that_hangs_is_ended_with_exit_code_124(tmp_path, flarekit):
    code = "import time; time.sleep(600)"
    result = flarekit("run", "-o", tmp_path, "--timeout", 1, "--", sys.executable, "-c", code)
    assert result.returncode == 124


@pytest.mark.slow
def test_stage_times_that_the_command_reports_into_the_folder_are_kept(tmp_path, flarekit):
    code = (
        "import json, sys; json.dump({'seconds': {'load': 1.5}, 'wall_s': 2, 'cases': []},"
        " open(sys.argv[1], 'w'))"
    )
    target = tmp_path / "efficiency.json"
    flarekit("run", "-o", tmp_path, "--", sys.executable, "-c", code, target)
    case = json.loads(target.read_text())["cases"][0]
    assert case["stages"]["load"] == 1.5


@pytest.mark.slow
def test_predict_adds_its_stage_times(tmp_path, flarekit, toy, write_scan):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    write_scan(inputs / "a_0000.nii.gz")
    predict = [*COMMAND, "predict", "-i", inputs, "-o", tmp_path / "out", "-p", toy.folder]
    report = tmp_path / "report"
    result = flarekit("run", "-o", report, "--", *predict, "--device", "cpu", "--report", report)
    assert result.returncode == 0, result.stderr
    case = json.loads((report / "efficiency.json").read_text())["cases"][0]
    assert {"start", "load", "read", "prepare", "tiles", "write", "exit"} <= case["stages"].keys()
    assert case["inside"][0]["case_id"] == "a"


@pytest.mark.slow
def test_an_interrupted_profile_ends_its_command_and_its_samples_remain(tmp_path, flarekit):
    code = "import os, time; open(os.environ['PID'], 'w').write(str(os.getpid())); time.sleep(600)"
    pid_file = tmp_path / "pid"
    process = subprocess.Popen(
        [*COMMAND, "profile", "run", "-o", tmp_path / "r", "--", sys.executable, "-c", code],
        env={**os.environ, "PID": str(pid_file)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    checked = flarekit("check", tmp_path / "r")
    assert checked.returncode == 1
    assert "the profile was interrupted" in checked.stderr


def test_docker_of_an_image_or_an_engine_that_is_not_there_is_one_line(tmp_path, write_scan):
    write_scan(tmp_path / "a_0000.nii.gz")
    result = run(
        "profile",
        "docker",
        "no/such:image",
        "-i",
        tmp_path,
        "-o",
        tmp_path / "o",
        "--report",
        tmp_path / "r",
    )
    assert result.returncode in (3, 5)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
