"""The organisers' loop, with a script in place of a container."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flarekit.containers import ProcessResult
from flarekit.core.errors import InputError, UsageError
from flarekit.profiler.case_folders import (
    find_scans,
    keep_mask,
    leftovers_of,
    locked_failures,
    mask_failures,
    prepare,
)
from flarekit.profiler.command import CommandTarget
from flarekit.profiler.folder import ReportFolder
from flarekit.profiler.load_report import load_report
from flarekit.profiler.loop import WatchOptions, profile_command, profile_scans
from tests.profiler.made import made_report

SEGMENT = """
import gzip, os, pathlib, struct, subprocess, sys
inputs, outputs, inside = map(pathlib.Path, sys.argv[1:])
[scan] = inputs.iterdir()
case = scan.name.removesuffix("_0000.nii.gz")
mode = case.split(".")[0]
if mode == "hang":
    subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"])
if mode == "crash":
    print("first line"); print("the reason", file=sys.stderr); print(); sys.exit(3)
if mode == "signal":
    os.kill(os.getpid(), 9)
if mode == "removed":
    scan.unlink()
if mode == "changed":
    scan.chmod(0o644); scan.write_bytes(b"other")
if mode == "leftovers":
    (inputs / "nnUNet_raw" / "deep").mkdir(parents=True)
    (inputs / "nnUNet_raw" / "deep" / "x.npy").write_text("x")
    (outputs / "plans.json").write_text("{}")
shape = (4, 5, 6) if mode != "shape" else (4, 5, 7)
if mode == "broken":
    (outputs / f"{case}.nii.gz").write_bytes(b"")
elif mode != "missing":
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\\0"
    voxels = bytes(shape[0] * shape[1] * shape[2])
    (outputs / f"{case}.nii.gz").write_bytes(gzip.compress(bytes(header) + voxels))
if mode == "good":
    (inside / "run.json").write_text(
        '{"seconds": {"load": 0.1}, "wall_s": 0.2, "engine": "toy"}'
    )
    (inside / "ledger.jsonl").write_text(
        '{"case_id": "good", "seconds": {"tiles": 0.05}, "wall_s": 0.2}\\n'
    )
"""


@pytest.fixture
def loop(tmp_path, write_scan):
    """Return a function: names of cases -> the report of a loop over them."""

    def run(*names, timeout_s=300.0):
        inputs = tmp_path / "scans"
        inputs.mkdir()
        for name in names:
            write_scan(inputs / f"{name}_0000.nii.gz", np.zeros((6, 5, 4)))
        script = tmp_path / "segment.py"
        script.write_text(SEGMENT)
        folder = ReportFolder(tmp_path / "report", "team")
        folder.make()
        seen = []
        report = profile_scans(
            find_scans(inputs),
            lambda folders, log: CommandTarget(
                [
                    sys.executable,
                    script,
                    folders.inputs,
                    folders.outputs,
                    folders.record,
                ],
                log,
            ),
            tmp_path / "masks",
            folder,
            made_report(),
            WatchOptions(timeout_s=timeout_s, interval_s=0.05),
            seen.append,
        )
        assert tuple(seen) == report.cases
        return report

    return run


def test_a_good_case_leaves_its_mask_and_all_of_the_report_and_no_work_folder(loop, tmp_path):
    report = loop("good")
    [case] = report.cases
    assert (case.name, case.case_id, case.shape_XYZ) == ("good_0000", "good", (4, 5, 6))
    assert (case.failures, case.leftovers, case.exit_code) == ((), (), 0)
    assert case.stages.keys() == {"start", "load", "tiles", "exit"}
    assert case.traits == {"engine": "toy"}
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["good.nii.gz"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "curves",
        "efficiency.json",
        "logs",
        "samples",
        "team",
        "team_Efficiency.csv",
    ]
    record = json.loads((tmp_path / "report" / "team" / "good_0000.json").read_text())
    assert list(record) == ["gpu_memory", "cpu_list", "RAM_list", "time"]
    assert record["time"] >= case.wall_s


@pytest.mark.long
def test_every_broken_rule_is_named_and_the_other_cases_go_on(loop, tmp_path):
    names = ("broken", "changed", "crash", "good", "leftovers", "missing", "removed", "shape")
    report = loop(*names, "signal")
    failures = {case.case_id: case.failures for case in report.cases}
    assert failures["broken"] == (
        "the mask outputs/broken.nii.gz cannot be read: is empty (0 bytes)",
    )
    assert failures["changed"] == ("inputs/changed_0000.nii.gz was changed",)
    assert failures["crash"] == (
        "exit code 3; last line: the reason",
        "no mask: outputs/crash.nii.gz is missing",
    )
    assert failures["good"] == ()
    assert failures["leftovers"] == (
        "left in the inputs folder: inputs/nnUNet_raw/deep/x.npy",
        "left in the outputs folder besides the mask: outputs/plans.json",
    )
    assert failures["missing"] == ("no mask: outputs/missing.nii.gz is missing",)
    assert failures["removed"] == ("inputs/removed_0000.nii.gz was removed",)
    assert failures["shape"] == ("the mask is (4, 5, 7) voxels, the scan (4, 5, 6)",)
    assert failures["signal"][0] == "exit code 137"
    found, _ = load_report(tmp_path / "report")
    assert found == report


@pytest.mark.long
def test_a_run_that_hangs_is_ended_with_all_its_children(loop):
    [case] = loop("hang", timeout_s=0.6).cases
    assert case.failures[0] == "still running after 0.6 s: ended"
    assert case.exit_code is None
    assert 0.6 <= case.wall_s < 120  # its child sleeps for 600 s


def test_odd_names_keep_to_flare_s(loop, tmp_path):
    report = loop("good.with dots", "good_0000_x")
    assert [case.case_id for case in report.cases] == ["good.with dots", "good_0000_x"]
    assert not any("no mask" in failure for case in report.cases for failure in case.failures)
    rows = (tmp_path / "report" / "team_Efficiency.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["good.nii.gz", "good_0000_x_0000.nii.gz"]


def test_a_scan_whose_header_cannot_be_read_is_run_all_the_same(tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "good_0000.nii.gz").write_bytes(b"no scan")
    [scan] = find_scans(tmp_path / "scans")
    assert (scan.case_id, scan.shape_XYZ) == ("good", None)


def test_a_folder_without_scans_is_named(tmp_path):
    with pytest.raises(InputError, match="no \\*.nii.gz"):
        find_scans(tmp_path)


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="no_such_program: cannot be started"):
        CommandTarget(["no_such_program"]).run(None)


@pytest.mark.parametrize("writes", [True, False])
def test_the_steps_of_a_command_are_read_from_what_it_has_written_not_from_an_older_run(
    tmp_path, writes
):
    record = tmp_path / "run.json"
    record.write_text('{"seconds": {"load": 1.0}, "wall_s": 1.0, "engine": "older"}')
    record.with_name("ledger.jsonl").write_text("")
    newer = '{"seconds": {"load": 22.0}, "wall_s": 22.0, "engine": "newer"}'
    code = f"open({str(record)!r}, 'w').write({newer!r})" if writes else ""
    folder = ReportFolder(tmp_path / "report", "team")
    folder.make()
    report = profile_command(
        CommandTarget([sys.executable, "-c", code]),
        folder,
        made_report(),
        WatchOptions(),
        record,
    )
    assert report.cases[0].traits == ({"engine": "newer"} if writes else {})


def test_a_work_folder_that_cannot_be_removed_is_opened_and_removed_again(
    tmp_path, write_scan, monkeypatch
):
    opened, removed = [], []
    monkeypatch.setattr(CommandTarget, "open_up", lambda _, folder: not opened.append(folder))
    monkeypatch.setattr(
        "flarekit.profiler.loop.remove", lambda folders: bool(removed) or removed.append(folders)
    )
    (tmp_path / "scans").mkdir()
    write_scan(tmp_path / "scans" / "a_0000.nii.gz", np.zeros((6, 5, 4)))
    folder = ReportFolder(tmp_path / "report", "team")
    folder.make()
    profile_scans(
        find_scans(tmp_path / "scans"),
        lambda _folders, log: CommandTarget([sys.executable, "-c", ""], log),
        tmp_path / "masks",
        folder,
        made_report(),
        WatchOptions(),
        lambda _case: None,
    )
    assert len(removed) == 1
    assert opened == [folder.root / "work" / "a_0000"]


def leftover(tmp_path, write_scan, make):
    """Return the failures and leftovers of a run that leaves what `make` makes."""
    scans = tmp_path / "scans"
    scans.mkdir()
    write_scan(scans / "a_0000.nii.gz", np.zeros((6, 5, 4)))
    [scan] = find_scans(scans)
    folders = prepare(scan, tmp_path / "work")
    (folders.outputs / "a.nii.gz").write_bytes(scan.path.read_bytes())
    make(folders)
    return scan, folders


def test_links_and_pipes_are_leftovers_and_a_link_is_no_mask(tmp_path, write_scan):
    (tmp_path / "secret").write_bytes(b"not to be copied")

    def make(folders):
        (folders.outputs / "b").symlink_to(tmp_path / "secret")
        os.mkfifo(folders.outputs / "pipe")
        (folders.outputs / "a.nii.gz").unlink()
        (folders.outputs / "a.nii.gz").symlink_to(tmp_path / "secret")

    scan, folders = leftover(tmp_path, write_scan, make)
    assert leftovers_of(scan, folders) == ("outputs/b", "outputs/pipe")
    (failure,) = mask_failures(scan, folders)
    assert "a.nii.gz is a symbolic link to" in failure
    keep_mask(scan, folders, tmp_path)
    assert not (tmp_path / "a.nii.gz").exists()


def test_what_this_user_cannot_read_is_named_and_takes_no_case_along(
    tmp_path, write_scan, monkeypatch
):
    def make(folders):
        (folders.outputs / "tmpabc").mkdir(mode=0o700)
        (folders.outputs / "a.nii.gz").chmod(0o600)

    scan, folders = leftover(tmp_path, write_scan, make)
    private = {folders.outputs / "tmpabc", folders.outputs / "a.nii.gz"}
    monkeypatch.setattr(os, "access", lambda path, _: path not in private)
    assert [words.partition(" (")[0] for words in locked_failures(folders)] == [
        "outputs/a.nii.gz",
        "outputs/tmpabc/",
    ]
    real = Path.read_bytes

    def refuse(path):
        if path in private:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    keep_mask(scan, folders, tmp_path)
    assert not (tmp_path / "a.nii.gz").exists()


def test_names_that_are_no_utf_8_are_printed_and_reported(tmp_path, write_scan):
    def make(folders):
        (folders.outputs / os.fsdecode(b"\xb7\xd6")).write_text("x")

    scan, folders = leftover(tmp_path, write_scan, make)
    (left,) = leftovers_of(scan, folders)
    assert left == r"outputs/\xb7\xd6"
    odd = tmp_path / "odd"
    odd.mkdir()
    write_scan(odd / os.fsdecode(b"\xb7\xd6_0000.nii.gz"), np.zeros((6, 5, 4)))
    [scan] = find_scans(odd)
    assert (scan.name, scan.case_id) == (r"\xb7\xd6_0000", r"\xb7\xd6")
    folders = prepare(scan, tmp_path / "odd_work")
    (folders.outputs / os.fsdecode(b"\xb7\xd6.nii.gz")).write_bytes(scan.path.read_bytes())
    assert mask_failures(scan, folders) == []
    assert leftovers_of(scan, folders) == ()


def test_a_container_that_never_started_is_told_in_docker_s_first_line(tmp_path):
    ending = ProcessResult(exit_code=125, stderr="See --help\n", not_started="no such user")
    never = SimpleNamespace(probes=lambda _: [], run=lambda _: ending)
    folder = ReportFolder(tmp_path / "report", "team")
    folder.make()
    report = profile_command(never, folder, made_report(), WatchOptions())
    assert report.cases[-1].failures == ("the container did not start: no such user",)
