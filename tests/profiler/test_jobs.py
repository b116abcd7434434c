"""The loop over a platform's jobs, with a script in place of a container; and its run line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from flarekit import conventions
from flarekit.cli import profiling
from flarekit.cli.profile_requests import JOBS, kind_of, line_of
from flarekit.core.errors import InputError, UsageError
from flarekit.profiler.case_folders import find_jobs
from flarekit.profiler.command import CommandTarget
from flarekit.profiler.container import ContainerOptions
from flarekit.profiler.folder import ReportFolder
from flarekit.profiler.loop import WatchOptions, profile_scans
from tests.command import run
from tests.profiler.made import made_report

SEGMENT = """
import pathlib, shutil, sys
inputs, outputs = map(pathlib.Path, sys.argv[1:])
[scan] = inputs.glob("images/ct/*.mha")
mode = scan.stem
masks = outputs / "images" / "lesions"
masks.mkdir(parents=True)
if mode == "broken":
    (masks / "m.mha").write_bytes(b"no mask")
elif mode != "missing":
    shutil.copy(scan, masks / scan.name)
if mode == "changed":
    scan.write_bytes(b"other")
if mode == "removed":
    scan.unlink()
if mode == "left":
    (inputs / "x.npy").write_text("x")
(outputs / "flag.json").write_text("true")
"""


def write_job(folder, name):
    (folder / "images" / "ct").mkdir(parents=True)
    image = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    SimpleITK.WriteImage(image, str(folder / "images" / "ct" / f"{name}.mha"))
    (folder / "inputs.json").write_text("[]")


def profiled(tmp_path, *names):
    for name in names:
        write_job(tmp_path / "jobs" / name, name)
    (tmp_path / "segment.py").write_text(SEGMENT)
    folder = ReportFolder(tmp_path / "report", "team")
    folder.make()

    def make(work, _log):
        program = [sys.executable, str(tmp_path / "segment.py")]
        return CommandTarget([*program, str(work.inputs), str(work.outputs)])

    jobs = find_jobs(tmp_path / "jobs")
    options = WatchOptions(timeout_s=300, interval_s=0.05)
    report = profile_scans(
        jobs, make, tmp_path / "masks", folder, made_report(), options, lambda _: None
    )
    return {case.case_id: case for case in report.cases}


def test_every_job_is_run_by_itself_and_its_outputs_are_kept(tmp_path):
    cases = profiled(tmp_path, "good", "second")
    assert cases["good"].failures == cases["second"].failures == ()
    assert cases["good"].shape_XYZ == (6, 5, 4)
    kept = [path.relative_to(tmp_path / "masks") for path in (tmp_path / "masks").rglob("*.*")]
    assert sorted(map(str, kept)) == [
        "good/flag.json",
        "good/images/lesions/good.mha",
        "second/flag.json",
        "second/images/lesions/second.mha",
    ]


def test_what_is_wrong_with_a_job_is_named(tmp_path):
    cases = profiled(tmp_path, "broken", "changed", "left", "missing", "removed")
    failures = {name: " | ".join(case.failures) for name, case in cases.items()}
    assert "the mask outputs/images/lesions/m.mha cannot be read" in failures["broken"]
    assert failures["changed"] == "inputs/images/ct/changed.mha was changed"
    assert failures["left"] == "left in the inputs folder: inputs/x.npy"
    assert failures["missing"] == "no mask: outputs/images/*/*.mha is missing"
    assert failures["removed"] == "inputs/images/ct/removed.mha was removed"


def test_a_folder_that_is_a_job_is_the_only_one_and_one_without_is_named(tmp_path):
    write_job(tmp_path / "job", "a")
    assert [job.name for job in find_jobs(tmp_path / "job")] == ["job"]
    with pytest.raises(InputError, match="no job with images/SOCKET"):
        find_jobs(tmp_path / "job" / "images")


@pytest.mark.parametrize(
    "name", sorted({n for n in conventions.verifiable() if conventions.facts_of(n).limits})
)
def test_every_convention_with_presets_has_a_line_to_profile_by(name):
    facts = conventions.facts_of(name)
    line = line_of(name, kind_of(facts.run_line))
    options = ContainerOptions.of(line, "team", gpus="device=1")
    words = options.line("t", {Path("/in"): options.inputs, Path("/out"): options.outputs})
    locked = "" if facts.run_line.writable_inputs else ":ro"
    assert f"/in/:{facts.run_line.inputs}/{locked}" in words
    assert f"/out/:{facts.run_line.outputs}/" in words
    if facts.run_line.command is None:
        assert words[-1] == "team"  # the image's own command
        assert words[words.index("--network") + 1] == "none"
        memory_mib = facts.run_line.conditions.memory_mib
        assert [words[k + 1] for k, word in enumerate(words) if word == "-m"] == (
            [] if memory_mib is None else [f"{memory_mib}m"]
        )
    else:
        assert words[-1] == "sh predict.sh"


@pytest.mark.parametrize(
    ("convention", "kind", "words"),
    [
        ("flare", JOBS, "flare do not run on jobs"),
        ("flare_recist", ".nii.gz", "flare_recist do not run on scans X_0000.nii.gz"),
        ("flare", ".npz", "flare do not run on scans X.npz"),
        ("autopet", ".nii.gz", "autopet do not run on scans"),
        ("dicom", ".nii.gz", "dicom do not run on scans"),
    ],
)
def test_scans_and_jobs_are_not_taken_for_each_other(convention, kind, words):
    with pytest.raises(UsageError, match=words):
        line_of(convention, kind)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(JOBS, "grandchallenge"), (".nii.gz", "flare"), (".npz", "flare_recist")],
)
def test_the_inputs_tell_whose_line_it_is_where_none_is_named(kind, name):
    assert line_of(None, kind) == conventions.facts_of(name).run_line


@pytest.mark.parametrize(
    ("label", "preset", "waits_s", "memory"),
    [("autopet", "autopet4", 900.0, "30720m"), ("uls23", "uls23", 600.0, "15360m")],
)
def test_an_image_is_run_by_its_label_s_line_and_as_long_as_its_organiser_waits(
    tmp_path, monkeypatch, label, preset, waits_s, memory
):
    watched = []

    def watch(_jobs, _make, _masks, _folder, report, options, _on_case):
        watched.append((report.command, options.timeout_s))
        return report

    monkeypatch.setattr(profiling, "check_engine", lambda _image: {"convention": label})
    monkeypatch.setattr(profiling, "profile_scans", watch)
    write_job(tmp_path / "jobs" / "a", "a")
    folders = ["-i", tmp_path / "jobs", "-o", tmp_path / "masks", "--report", tmp_path / "report"]
    result = run("profile", "docker", "team", *folders, "--preset", preset)
    assert result.returncode == 0, result.stderr
    ((line, timeout_s),) = watched
    assert timeout_s == waits_s
    assert line[line.index("-m") + 1] == memory
    assert "$PWD/inputs/:/input/:ro" in line
    flare = run("profile", "docker", "team", *folders, "--convention", "flare")
    assert flare.returncode == 2
    assert "images of the convention flare do not run on jobs" in flare.stderr


@pytest.mark.parametrize(("name", "kind"), [("flare_recist", ".npz"), ("uls23", JOBS)])
def test_an_edition_s_memory_is_on_the_line_unless_another_is_named(name, kind):
    line = line_of(name, kind)
    words = ContainerOptions.of(line, "team", edition_mib=8192.0).line("t", {})
    assert words[words.index("-m") + 1] == "8192m"
    words = ContainerOptions.of(line, "team", memory="9g", edition_mib=8192.0).line("t", {})
    assert words[words.index("-m") + 1] == "9g"
    words = ContainerOptions.of(line, "team").line("t", {})
    assert ("-m" in words) == (kind is JOBS)
