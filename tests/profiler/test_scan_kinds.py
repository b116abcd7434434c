"""FLARE25's files as cases to measure, with a script in place of a container."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from flarekit.core.errors import InputError
from flarekit.profiler.case_folders import find_scans
from flarekit.profiler.command import CommandTarget
from flarekit.profiler.folder import ReportFolder
from flarekit.profiler.loop import WatchOptions, profile_scans
from tests.profiler.made import made_report

SEGMENT = """
import pathlib, sys
import numpy as np
inputs, outputs = map(pathlib.Path, sys.argv[1:])
[scan] = inputs.iterdir()
mode, imgs = scan.stem, np.load(scan)["imgs"]
if mode == "changed":
    scan.write_bytes(b"other")
if mode == "shape":
    imgs = imgs[1:]
if mode == "broken":
    (outputs / scan.name).write_bytes(b"no archive")
elif mode == "pickled":
    np.savez(outputs / scan.name, segs=np.array([object()], dtype=object))
elif mode == "other_array":
    np.savez(outputs / scan.name, masks=imgs)
elif mode != "missing":
    np.savez(outputs / scan.name, segs=imgs)
if mode == "left":
    np.savez(outputs / "more.npz", segs=imgs)
"""


def write_scan(folder, name):
    folder.mkdir(exist_ok=True)
    imgs = np.zeros((4, 5, 6), np.uint8)
    np.savez_compressed(folder / f"{name}.npz", imgs=imgs, recist=imgs, spacing=np.ones(3))


def profiled(tmp_path, *names):
    for name in names:
        write_scan(tmp_path / "scans", name)
    (tmp_path / "segment.py").write_text(SEGMENT)
    folder = ReportFolder(tmp_path / "report", "team")
    folder.make()

    def make(work, log):
        program = [sys.executable, str(tmp_path / "segment.py")]
        return CommandTarget([*program, str(work.inputs), str(work.outputs)], log)

    report = profile_scans(
        find_scans(tmp_path / "scans"),
        make,
        tmp_path / "masks",
        folder,
        made_report(),
        WatchOptions(timeout_s=300, interval_s=0.05),
        lambda _: None,
    )
    return {case.case_id: case for case in report.cases}


def test_a_file_with_lines_leaves_a_mask_of_its_own_name(tmp_path):
    (case,) = profiled(tmp_path, "good").values()
    assert (case.name, case.case_id, case.shape_XYZ) == ("good", "good", (6, 5, 4))
    assert (case.failures, case.leftovers, case.exit_code) == ((), (), 0)
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["good.npz"]


@pytest.mark.slow
def test_what_is_wrong_with_such_a_mask_is_named_and_nothing_is_unpickled(tmp_path):
    names = ("broken", "changed", "left", "missing", "other_array", "pickled", "shape")
    cases = profiled(tmp_path, *names)
    failures = {name: " | ".join(case.failures) for name, case in cases.items()}
    assert (
        "the mask outputs/broken.npz cannot be read: is not a whole .npz file" in failures["broken"]
    )
    assert failures["changed"] == "inputs/changed.npz was changed"
    assert failures["left"] == "left in the outputs folder besides the mask: outputs/more.npz"
    assert failures["missing"] == "no mask: outputs/missing.npz is missing"
    assert "has no array 'segs' of a volume" in failures["other_array"]
    assert "is not a whole .npz file" in failures["pickled"]
    assert failures["shape"] == "the mask is (6, 5, 3) voxels, the scan (6, 5, 4)"


def test_a_damaged_scan_is_a_case_whose_size_is_not_known(tmp_path, caplog):
    (tmp_path / "a.npz").write_bytes(b"PK")
    (scan,) = find_scans(tmp_path)
    assert scan.shape_XYZ is None
    assert "size unknown" in caplog.text


def test_a_folder_with_two_kinds_of_scans_is_refused_and_an_empty_one_told_both(tmp_path):
    with pytest.raises(InputError, match=r"no \*\.nii\.gz or \*\.npz in it"):
        find_scans(tmp_path)
    write_scan(tmp_path, "a")
    (tmp_path / "b_0000.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"two kinds, \*\.nii\.gz and \*\.npz"):
        find_scans(tmp_path)
