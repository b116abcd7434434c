"""The organisers' loop over real containers that break one rule each. Needs a Docker engine."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest

from tests.docker.built_images import HOST, docker, need_engine, remove

pytestmark = pytest.mark.docker

IMAGE = f"flarekit-profiler-test:{os.getpid()}"  # tests of several processes share the engine
DOCKERFILE = """
FROM python:3.11-slim-bookworm
WORKDIR /workspace
COPY work.py predict.sh ./
"""
WORK = """
import gzip, pathlib, struct, sys, time
[scan] = pathlib.Path("inputs").iterdir()
mode = scan.name.removesuffix("_0000.nii.gz")
kept = bytearray(b"x") * (60 << 20)
if mode == "fat":
    kept = bytearray(b"x") * (400 << 20)
if mode == "spike":
    time.sleep(0.25)
    for _ in range(2):
        block = bytearray(b"x") * (200 << 20)
        del block
if mode == "hang":
    time.sleep(120)
if mode == "crash":
    sys.exit("out of luck")
if mode == "leftovers":
    pathlib.Path("inputs/nnUNet_raw").mkdir()
    pathlib.Path("inputs/nnUNet_raw/x.npy").write_text("x")
    pathlib.Path("outputs/plans.json").write_text("{}")
time.sleep(3 if mode == "slow" else 1)
if mode != "missing":
    raw = gzip.decompress(scan.read_bytes())
    x, y, z = struct.unpack_from("<3h", raw, 42)
    header = bytearray(raw[:352])
    struct.pack_into("<2h", header, 70, 2, 8)
    mask = gzip.compress(bytes(header) + bytes(x * y * z))
    pathlib.Path("outputs", mode + ".nii.gz").write_bytes(mask)
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    need_engine()
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "work.py").write_text(WORK)
    (folder / "predict.sh").write_text("exec python3 work.py\n")
    docker("build", *HOST, "-t", IMAGE, folder)
    yield IMAGE
    remove(IMAGE)


@pytest.fixture
def profile(image, tmp_path, write_scan, flarekit):
    """Return a function: names of cases -> the command's result and the report's cases."""

    def run(*names, arguments=()):
        (tmp_path / "in").mkdir()
        for name in names:
            write_scan(tmp_path / "in" / f"{name}_0000.nii.gz", np.zeros((6, 5, 4)))
        folders = ["-i", tmp_path / "in", "-o", tmp_path / "out", "--report", tmp_path / "report"]
        result = flarekit("docker", image, *folders, *arguments)
        content = json.loads((tmp_path / "report" / "efficiency.json").read_text())
        return result, {case["case_id"]: case for case in content["cases"]}

    return run


def test_a_container_that_keeps_every_rule_passes(profile, flarekit, tmp_path):
    result, cases = profile("good", arguments=["--memory", "1g", "--shm-size", "64m"])
    assert result.returncode == 0, result.stderr
    good = cases["good"]
    assert good["failures"] == []
    assert 1.0 < good["wall_s"] < good["official"]["time_s"] + 0.01
    assert 60 < good["measured"]["cgroup_working_mib"]["maximum"] < 200
    assert 60 < good["measured"]["tree_rss_mib"]["maximum"] < 200
    assert (tmp_path / "out" / "good.nii.gz").is_file()
    assert (tmp_path / "report" / "flarekit-profiler-test_Efficiency.csv").is_file()
    environment = json.loads((tmp_path / "report" / "efficiency.json").read_text())["environment"]
    assert environment["image_id"].startswith("sha256:")
    assert not (tmp_path / "report" / "work").exists()
    assert flarekit("check", tmp_path / "report").returncode == 0


def test_every_broken_rule_is_caught_and_named(profile, flarekit, tmp_path):
    names = ("crash", "fat", "good", "hang", "leftovers", "missing", "slow")
    result, cases = profile(*names, arguments=["--timeout", 8, "--memory", "256m"])
    assert result.returncode == 1
    failures = {name: " | ".join(case["failures"]) for name, case in cases.items()}
    assert failures["good"] == failures["slow"] == ""
    assert "exit code 1; last line: out of luck" in failures["crash"]
    assert "killed for memory (exit code 137)" in failures["fat"]
    assert "still running after 8 s: ended" in failures["hang"]
    assert "left in the inputs folder: inputs/nnUNet_raw/x.npy" in failures["leftovers"]
    assert (
        "left in the outputs folder besides the mask: outputs/plans.json" in (failures["leftovers"])
    )
    assert failures["missing"] == "no mask: outputs/missing.nii.gz is missing"
    assert 8 < cases["hang"]["wall_s"] < 20
    checked = flarekit("check", tmp_path / "report", "--max-time", 3, "--max-ram-mib", 50)
    assert checked.returncode == 1
    for name in ("crash", "fat", "hang", "leftovers", "missing"):
        assert f"case {name}_0000: {cases[name]['failures'][0]}" in checked.stderr
    slow_s = re.search(r"case slow_0000: time ([\d.]+) s, limit 3 s", checked.stderr)
    assert slow_s is not None, checked.stderr
    assert float(slow_s[1]) == pytest.approx(cases["slow"]["official"]["time_s"], abs=0.1)
    assert "case good_0000: memory " in checked.stderr
    left = docker("ps", "-a", "--format", "{{.Image}}").stdout.split()
    assert IMAGE not in left


def test_an_image_that_is_not_there_is_named(image, tmp_path, write_scan, flarekit):  # noqa: ARG001
    write_scan(tmp_path / "a_0000.nii.gz")
    folders = ["-i", tmp_path, "-o", tmp_path / "o", "--report", tmp_path / "r"]
    result = flarekit("docker", "no/such:image", *folders)
    assert result.returncode == 3
    assert "image no/such:image" in result.stderr


def test_the_kernel_s_own_peak_is_seen_to_the_end_of_the_run(profile):
    result, cases = profile("spike")
    assert result.returncode == 0, result.stderr
    measured = cases["spike"]["measured"]
    assert measured["cgroup_peak_mib"]["maximum"] > 250
    assert measured["cgroup_peak_mib"]["fault"] is None
    assert measured["cgroup_working_mib"]["fault"] is None
    assert "at the kernel's own peak (page cache included)" in result.stderr


def test_options_that_docker_cannot_follow_are_told_in_its_own_words(profile):
    result, cases = profile("good", arguments=["--memory", "lots"])
    assert result.returncode == 1
    (first, *_) = cases["good"]["failures"]
    assert first.startswith("the container did not start: invalid argument")
    assert "Run 'docker" not in result.stderr
