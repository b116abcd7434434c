from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flarekit.cli.main import app
from flarekit.profiler.case_folders import CaseFolders
from flarekit.profiler.container import INSIDE, ContainerOptions
from flarekit.profiler.step_times import read_step_times


def test_the_run_line_is_the_organisers():
    options = ContainerOptions(image="team:latest", gpus="device=1", shm_size="28gb", memory="28G")
    volumes = {Path("/here/inputs"): "/workspace/inputs", Path("/here/out"): "/workspace/outputs"}
    assert options.line("team", volumes) == [
        *("docker", "container", "run", "--gpus", "device=1", "--shm-size", "28gb", "-m", "28G"),
        *("--name", "team", "--rm", "-v", "/here/inputs/:/workspace/inputs/"),
        *("-v", "/here/out/:/workspace/outputs/", "team:latest"),
        *("/bin/bash", "-c", "sh predict.sh"),
    ]


@pytest.mark.parametrize(
    ("image", "team"),
    [("team:latest", "team"), ("host:5000/a/team", "team"), ("team@sha256:ab", "team")],
)
def test_the_team_is_named_as_its_image(image, team):
    assert ContainerOptions(image=image).team == team


@pytest.mark.parametrize(
    ("gpus", "watched", "quoted"),
    [
        (None, "0", []),
        ("all", "0", ["--gpus", "all"]),
        ("device=1", "1", ["--gpus", "device=1"]),
        ("device=2,3", "2", ["--gpus", '"device=2,3"']),
        ('"device=2,3"', "2", ["--gpus", '"device=2,3"']),
        ("all,capabilities=utility", "0", ["--gpus", "all,capabilities=utility"]),
        ("device=GPU-ab", "GPU-ab", ["--gpus", "device=GPU-ab"]),
    ],
)
def test_the_gpu_that_is_given_is_the_one_that_is_watched(gpus, watched, quoted):
    options = ContainerOptions(image="team", gpus=gpus)
    assert options.watched_gpu == watched
    line = options.line("team", {})
    assert line[3 : line.index("--name")] == quoted


def test_a_profiled_run_leaves_its_step_times_in_a_folder_of_ours(tmp_path):
    folders = CaseFolders(
        inputs=tmp_path / "inputs", outputs=tmp_path / "outputs", record=tmp_path / "inside"
    )
    line = ContainerOptions(image="team").line(
        "team", folders.volumes("/workspace/inputs", "/workspace/outputs", INSIDE)
    )
    assert line[line.index("-e") + 1] == f"FLAREKIT_STATE={INSIDE}"
    assert f"{tmp_path / 'inside'}/:{INSIDE}/" in line
    assert line[-3:] == ["/bin/bash", "-c", "sh predict.sh"]


@pytest.mark.long
def test_the_ledger_that_predict_leaves_there_tells_the_step_times(
    toy, tmp_path, write_scan, monkeypatch
):
    (tmp_path / "in").mkdir()
    write_scan(tmp_path / "in" / "a_0000.nii.gz")
    monkeypatch.setenv("FLAREKIT_STATE", str(tmp_path / "inside"))
    command = ["predict", "-p", toy.folder, "-i", tmp_path / "in", "-o", tmp_path / "out"]
    assert CliRunner().invoke(app, list(map(str, command))).exit_code == 0
    (record,) = (tmp_path / "inside").rglob("run.json")
    times = read_step_times(record)
    assert {"read", "tiles", "write"} <= set(times.cases[0].seconds)
