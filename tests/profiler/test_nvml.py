"""The real pynvml call path: against a library of C that plays a curve, and on a real GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from flarekit.core.readings import Unsupported
from flarekit.profiler.probes.nvml import NvmlProbe

READ = """
import json, os, subprocess, sys
from flarekit.profiler.probes.nvml import NvmlProbe
from flarekit.core.readings import Unsupported
times, gpu, child = int(sys.argv[1]), sys.argv[2], None
if sys.argv[3] == "child":
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
probe = NvmlProbe(gpu, lambda: {child.pid} if child else set())
said = lambda r: {"not_supported": r.not_supported} if isinstance(r, Unsupported) else r
seen = [{k: said(v) for k, v in probe.read().items()} for _ in range(times)]
print(json.dumps({"seen": seen, "facts": probe.facts()}))
probe.close()
if child:
    child.communicate(b"\\n")
"""

UNTIL = """
import pathlib, sys, time
samples, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
while samples.read_bytes().count(b'"gpu_used_mib"') < count:  # however slowly they are taken
    time.sleep(0.02)
"""


def read(environment, times=1, gpu="0", child=""):
    result = subprocess.run(
        [sys.executable, "-c", READ, str(times), gpu, child],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(params=["stub", pytest.param("real", marks=pytest.mark.gpu)])
def library(request):
    """Return the environment of a library: ours, or the machine's own."""
    if request.param == "real":
        return {}
    return request.getfixturevalue("stub")("!processes half", 600, 1000, 1000, 1000)


def test_device_memory_is_what_is_not_free(library):
    answer = read(library, times=3)
    for readings in answer["seen"]:
        total = float(answer["facts"]["gpu_memory_mib"])
        assert 0 < readings["gpu_used_mib"] < total
        assert 0 <= readings["gpu_utilisation_percent"] <= 100
    assert "." in answer["facts"]["driver"]
    assert answer["facts"]["driver_cuda"].replace(".", "").isdecimal()


def test_a_gpu_that_is_not_there_is_not_supported(library):
    readings = read(library, gpu="9")["seen"][0]
    assert readings["gpu_used_mib"]["not_supported"].startswith("GPU 9: ")


def test_processes_that_are_not_ours_do_not_count(library):
    assert read(library)["seen"][0]["gpu_tree_mib"] == 0


@pytest.mark.gpu
def test_a_process_that_allocates_is_seen_on_device_and_tree(flarekit, tmp_path):
    code = (
        "import time, torch; time.sleep(1); kept = torch.zeros(1 << 28, device='cuda');"
        "torch.cuda.synchronize(); time.sleep(1)"
    )
    result = flarekit("run", "--output", tmp_path, "--name", "c", "--", sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    measured = json.loads((tmp_path / "efficiency.json").read_text())["cases"][0]["measured"]
    device = measured["gpu_used_mib"]
    assert device["maximum"] - device["first"] >= 1024
    assert measured["gpu_tree_mib"]["maximum"] == pytest.approx(
        device["maximum"] - device["first"], rel=0.2
    )


def test_the_stub_s_curve_is_read_value_by_value(stub):
    answer = read(stub(450, 2218, 4700, "error 10", 1000), times=5)
    values = [readings["gpu_used_mib"] for readings in answer["seen"]]
    assert values == [450, 2218, 4700, {"not_supported": "Timeout"}, 1000]
    assert answer["facts"]["gpu"] == "Stub GPU"
    assert answer["facts"]["driver_cuda"] == "12.8"


def test_a_device_may_be_named_by_its_uuid(stub):
    assert read(stub(77), gpu="GPU-stub")["seen"][0]["gpu_used_mib"] == 77
    gone = read(stub(77), gpu="GPU-other")["seen"][0]["gpu_used_mib"]
    assert gone == {"not_supported": "GPU GPU-other: Not Found"}


def test_a_lost_device_is_not_supported_in_every_column_from_there_on(stub):
    seen = read(stub(450, "lost"), times=3)["seen"]
    assert seen[0]["gpu_used_mib"] == 450
    for readings in seen[1:]:
        assert set(map(str, readings.values())) == {"{'not_supported': 'GPU is lost'}"}


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("lines", "column", "expected"),
    [
        (["!processes half"], "gpu_tree_mib", 300),
        (["!processes silent"], "gpu_tree_mib", "does not tell memory by process"),
        (["!processes foreign"], "gpu_tree_mib", "not in this PID namespace"),
        (["!processes shared"], "gpu_tree_mib", 300),
        (["!processes shared"], "gpu_charged_mib", 450),
        (["!processes half"], "gpu_charged_mib", 600),
        (["!processes silent"], "gpu_charged_mib", 600),
        (["!processes foreign"], "gpu_charged_mib", "not in this PID namespace"),
        (["!utilisation none"], "gpu_utilisation_percent", "Not Supported"),
        (["!init 9"], "gpu_used_mib", "Driver Not Loaded"),
    ],
)
def test_each_thing_a_driver_may_not_tell_is_said(stub, lines, column, expected):
    reading = read(stub(*lines, 600), child="child")["seen"][0][column]
    if isinstance(expected, str):
        assert expected in reading["not_supported"]
    else:
        assert reading == expected


def test_without_a_driver_it_says_so_and_asks_once():
    class NVMLError(Exception):
        pass

    library = ModuleType("pynvml")
    calls = []

    def init():
        calls.append(1)
        raise NVMLError("NVML Shared Library Not Found")

    library.NVMLError, library.nvmlInit = NVMLError, init
    probe = NvmlProbe("0", frozenset, library)
    expected = Unsupported(not_supported="NVML Shared Library Not Found")
    for _ in range(3):
        assert probe.read() == dict.fromkeys(probe.columns, expected)
    probe.close()
    assert calls == [1]


def test_nothing_is_opened_before_the_first_reading():
    NvmlProbe("0", frozenset, SimpleNamespace()).close()


@pytest.mark.long
def test_a_profile_keeps_the_stub_s_curve_and_check_names_the_limit(stub, flarekit, tmp_path):
    curve = [450, 460, 2218, 4700, 4700, 1000]
    environment = stub("!processes half", *curve)
    command = [sys.executable, "-c", UNTIL, str(tmp_path / "samples" / "toy.jsonl"), "12"]
    result = flarekit(
        "run", "--output", tmp_path, "--name", "toy", "--", *command, environment=environment
    )
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "toy" / "toy.json").read_text())
    length = len(record["gpu_memory"])
    assert length >= 9
    assert record["gpu_memory"] == (curve + [1000.0] * length)[:length]
    row = (tmp_path / "toy_Efficiency.csv").read_text().splitlines()[1].split(",")
    assert float(row[2]) == 4700
    assert float(row[3]) == pytest.approx(sum(record["gpu_memory"]) * 0.1, abs=0.5)
    content = json.loads((tmp_path / "efficiency.json").read_text())
    excess = content["cases"][0]["excess"]
    assert excess["gpu_max_mib"] == 4700 - 4096
    assert excess["gpu_area_mib_s"] == pytest.approx(2 * (4700 - 4096) * 0.1)
    checked = flarekit("check", tmp_path)
    assert checked.returncode == 1
    assert "case toy: GPU memory 4700 MiB, limit 4096 MiB" in checked.stderr


@pytest.mark.slow
def test_a_gpu_lost_on_the_way_cannot_pass_a_limit_asked_for(stub, flarekit, tmp_path):
    environment = stub(450, 460, 470, "lost")
    command = [sys.executable, "-c", UNTIL, str(tmp_path / "samples" / "toy.jsonl"), "7"]
    flarekit("run", "--output", tmp_path, "--name", "toy", "--", *command, environment=environment)
    lenient = flarekit("check", tmp_path)
    assert "GPU memory not measured: only in part: GPU is lost" in lenient.stderr
    strict = flarekit("check", tmp_path, "--max-gpu-mib", 4096)
    assert (lenient.returncode, strict.returncode) == (0, 1)


def library_with(processes):
    """Return a library whose device runs what a function returns."""
    return SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda _: 1,
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(total=9 << 20, free=5 << 20),
        nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=1),
        nvmlDeviceGetComputeRunningProcesses=lambda _: processes(),
        nvmlDeviceGetGraphicsRunningProcesses=lambda _: [],
    )


def test_a_process_that_ended_after_the_driver_named_it_is_no_other_namespace_s(monkeypatch):
    own, other = (SimpleNamespace(pid=pid, usedGpuMemory=1 << 20) for pid in (os.getpid(), 999_999))
    listed = iter([[own, other], [own]])
    monkeypatch.setattr("psutil.pid_exists", lambda pid: pid == own.pid)
    read = NvmlProbe("0", lambda: {own.pid}, library_with(lambda: next(listed))).read()
    assert (read["gpu_charged_mib"], read["gpu_tree_mib"]) == (4, 1)
    stays = NvmlProbe("0", lambda: {own.pid}, library_with(lambda: [own, other])).read()
    assert "not in this PID namespace" in stays["gpu_tree_mib"].not_supported


def test_where_the_watched_processes_are_not_known_nothing_is_charged_to_them():
    process = SimpleNamespace(pid=os.getpid(), usedGpuMemory=1 << 20)
    library = library_with(lambda: [process])
    unknown = NvmlProbe("0", lambda: None, library).read()
    assert unknown["gpu_used_mib"] == 4
    assert isinstance(unknown["gpu_charged_mib"], Unsupported)
    assert isinstance(unknown["gpu_tree_mib"], Unsupported)
    own = NvmlProbe("0", lambda: {os.getpid()}, library).read()
    assert (own["gpu_charged_mib"], own["gpu_tree_mib"]) == (4, 1)
    other = NvmlProbe("0", frozenset, library).read()
    assert (other["gpu_charged_mib"], other["gpu_tree_mib"]) == (3, 0)
