"""A memory budget is kept by a process of its own, or the case is refused with a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from isal import igzip

from flarekit.segmentation.memory import Memory, computing_mib, reading_mib, still_to_come_mib

CHILD = """
import json, re, sys
sys.argv = ["flarekit", *sys.argv[1:]]
from flarekit.cli.main import app
code = app(standalone_mode=False)
status = open("/proc/self/status").read()
print(json.dumps({"code": code, "peak_mib": int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024}))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")


def write_large(path, shape_ZYX, dtype, slope=None):
    """Write a scan whose voxels compress well: a body of soft tissue in air."""
    voxels = np.full(shape_ZYX, -1000, dtype)
    z, y, x = shape_ZYX
    voxels[z // 8 : -z // 8, y // 6 : -y // 6, x // 6 : -x // 6] = 40
    image = nibabel.Nifti1Image(voxels.T, np.diag([-1.0, -1.0, 1.0, 1.0]))
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    opened = partial(igzip.open, compresslevel=0) if path.suffix == ".gz" else open
    with opened(path, "wb") as stream:
        stream.write(image.to_bytes())


@pytest.fixture
def predict(toy, tmp_path):
    """Return a function: a scan and a budget -> exit code, peak in MiB, what was said."""
    path = toy.folder / "predictor.toml"

    def run(shape, dtype, budget_mib, mm=8.0):
        path.write_text(path.read_text().replace("[2.0, 2.0, 2.0]", f"[{mm}, {mm}, {mm}]"))
        (tmp_path / "in").mkdir()
        write_large(tmp_path / "in" / "a_0000.nii.gz", shape, dtype)
        command = ["predict", "-i", tmp_path / "in", "-o", tmp_path / "out", "-p", toy.folder]
        command += ["--device", "cpu", "--precision", "fp32", "--ram-budget", budget_mib]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *map(str, command)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        told = json.loads(done.stdout.splitlines()[-1])
        return told["code"], told["peak_mib"], done.stderr, tmp_path / "out" / "a.nii.gz"

    return run


@pytest.mark.long(1)
@pytest.mark.parametrize(
    ("shape", "dtype", "budget_mib", "code"),
    [
        ((120, 400, 400), np.int16, 700, 0),
        ((120, 400, 400), np.float64, 450, 1),
        ((900, 512, 512), np.int16, 600, 1),
        pytest.param((554, 512, 512), np.int16, 1500, None, marks=pytest.mark.slow),
        pytest.param((1000, 512, 512), np.int16, 1500, None, marks=pytest.mark.slow),
        pytest.param((1000, 512, 512), np.float64, 1500, 1, marks=pytest.mark.slow),
        pytest.param((3000, 512, 512), np.int16, 1500, 1, marks=pytest.mark.slow),
    ],
)
def test_a_run_stays_below_its_budget_or_says_why_it_cannot(
    predict, shape, dtype, budget_mib, code
):
    ended, peak_mib, said, mask = predict(shape, dtype, budget_mib)
    assert peak_mib <= budget_mib
    assert code in (ended, None), said
    image = nibabel.load(mask)
    assert image.shape == shape[::-1]
    if ended:
        assert f"of the {budget_mib} MiB that are allowed" in said
        assert "allow more memory (--ram-budget), or crop the scan" in said


def test_reading_is_estimated_from_the_header_alone(tmp_path):
    write_large(tmp_path / "a.nii.gz", (40, 100, 100), np.int16)
    write_large(tmp_path / "b.nii.gz", (40, 100, 100), np.int16, slope=0.5)
    write_large(tmp_path / "c.nii", (40, 100, 100), np.float64)
    megabytes = 40 * 100 * 100 / 2**20
    integers, scaled, doubles = (
        reading_mib([tmp_path / name]) for name in ("a.nii.gz", "b.nii.gz", "c.nii")
    )
    assert 2 * megabytes <= integers <= 2.5 * megabytes
    assert 6 * megabytes <= scaled <= 8 * megabytes
    assert 12 * megabytes <= doubles <= 22 * megabytes
    assert reading_mib([tmp_path / "a.nii.gz"] * 2) > 2 * integers
    (tmp_path / "odd.bin").write_bytes(bytes(2**20))
    assert reading_mib([tmp_path / "odd.bin"]) == pytest.approx(8)


NRRD = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 100 100 40
space directions: (1,0,0) (0,1,0) (0,0,1)
space origin: (0,0,0)
endian: little
encoding: {}

"""


def test_reading_nrrd_takes_its_voxels_and_what_they_are_unpacked_from(tmp_path):
    voxels, estimates = bytes(2 * 40 * 100 * 100), []
    for encoding, data in (("raw", voxels), ("gzip", igzip.compress(voxels))):
        path = tmp_path / f"{encoding}.nrrd"
        path.write_bytes(NRRD.format(encoding).encode() + data)
        estimates.append(reading_mib([path]) / (len(voxels) / 2**20))
    assert estimates == [pytest.approx(2), pytest.approx(1.13)]


def test_the_rules_take_more_of_a_larger_crop():
    def estimate(slices):
        shapes = {"cropped_shape": (slices, 200, 200), "stored_shape": (200, 200, 200)}
        placement = SimpleNamespace(shape_ZYX=(4, 4, 4), channels=1, **shapes)
        grid = SimpleNamespace(order="up", tile_ZYX=(4, 4, 4))
        return still_to_come_mib(placement, SimpleNamespace(class_values=(1, 2), grid=grid))

    assert estimate(200) > estimate(190) > 0


def test_what_is_begun_ahead_leaves_alone_what_was_promised(monkeypatch):
    monkeypatch.setattr("flarekit.segmentation.memory.resident_mib", lambda: 100.0)
    memory = Memory(budget_mib=1000.0, promised_mib=500.0)
    assert memory.usable_mib() == 876
    assert memory.usable_mib(ahead=True) == 376
    assert Memory().usable_mib() == float("inf")


def test_from_the_middle_outwards_all_slices_are_summed_at_once():
    def estimate(slices, order):
        shape = (slices, 200, 150)
        placement = SimpleNamespace(
            shape_ZYX=shape, channels=1, cropped_shape=shape, stored_shape=shape
        )
        grid = SimpleNamespace(order=order, tile_ZYX=(8, 16, 16))
        return computing_mib(placement, SimpleNamespace(class_values=(1, 2), grid=grid))

    by_slices = {order: estimate(90, order) - estimate(60, order) for order in ("up", "centre")}
    sums = 3 * 30 * 200 * 150 * 4 / 2**20  # float32, of two labels and the background
    assert by_slices["centre"] - by_slices["up"] == pytest.approx(2 * sums)
