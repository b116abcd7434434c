"""What Linux alone has is not needed where it is missing, as on macOS and Windows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import flarekit
from flarekit.cli.terminating import end_on_sigterm
from flarekit.core.cores import usable_cores

ELSEWHERE = """
import os, signal, sys
for name in ("sched_getaffinity", "O_TMPFILE"):
    if hasattr(os, name):
        delattr(os, name)
del signal.SIGKILL
sys.modules["fcntl"] = sys.modules["resource"] = None
from flarekit.cli.main import main
sys.argv = ["flarekit", *sys.argv[1:]]
main()
"""


def test_without_affinity_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()


def test_labels_are_decided_without_affinity(monkeypatch, toy):
    monkeypatch.delattr(os, "sched_getaffinity")
    with flarekit.load(toy, mode="exact", engine="torch", device="cpu") as segmenter:
        voxels = np.zeros((9, 20, 14), np.float32)
        assert segmenter.segment(voxels, spacing_mm=(2, 2, 2)).labels.shape == (9, 20, 14)


@pytest.mark.long
def test_the_command_segments_without_what_linux_alone_has(toy, write_scan, tmp_path):
    """This is not a test of those systems: only of the names that are missing there."""
    (tmp_path / "in").mkdir()
    write_scan(tmp_path / "in" / "p_0000.nii.gz")
    words = ["predict", "-p", toy.folder, "-i", tmp_path / "in", "-o", tmp_path / "out"]
    words += ["--engine", "torch", "--device", "cpu"]
    line = [sys.executable, "-c", ELSEWHERE, *map(str, words)]
    said = subprocess.run(line, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "out" / "p.nii.gz").is_file()


def test_where_there_is_no_sigterm_nothing_is_set_up_for_it(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    before = signal.getsignal(signal.SIGTERM)
    end_on_sigterm()
    assert signal.getsignal(signal.SIGTERM) is before
