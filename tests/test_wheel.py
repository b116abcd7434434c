"""The wheel that `make wheel` builds: everything in it, and whole in an empty environment."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
CONTEXT = ("Dockerfile", "LICENSE", "README.md", "predict.sh", "pyproject.toml")
LAY_OUT = """
import sys
from pathlib import Path
from flarekit.images.build import write_context
from flarekit.segmentation.predictors import find_predictor
write_context(find_predictor("mpu_net_liver"), Path(sys.argv[1]))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("build") is None, reason="pip install build: make wheel does it"),
]


def tracked(*folders):
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {line for line in listed.stdout.splitlines() if (ROOT / line).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the wheel and the source archive that it was built from."""
    folder = tmp_path_factory.mktemp("dist")
    line = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    subprocess.run(line, check=True, capture_output=True)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def empty(built, tmp_path_factory):
    """Return the folder of programs of an environment that has the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted = [str(built[0]), "torch==2.13.0", "dynamic-network-architectures<0.4"]
    subprocess.run([folder / "bin" / "pip", "install", "-q", *wanted], check=True)
    return folder / "bin"


def run(empty, *words, cwd):
    line = [empty / words[0], *map(str, words[1:])]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)


def test_wheel_and_archive_hold_the_package_the_weights_and_nothing_else(built):
    wheel, archive = built
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    weights = {f"flarekit/{name}" for name in tracked("weights")}
    context = {f"flarekit/images/context/{name}" for name in CONTEXT}
    sources = {name for name in tracked("flarekit") if not name.startswith("flarekit/web/")}
    page = {name for name in names if name.startswith("flarekit/web/dist/")}
    python = {name for name in tracked("flarekit/web") if name.endswith(".py")}
    assert names == sources | weights | context | page | python
    with tarfile.open(archive) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    assert tracked("flarekit", "weights", "docs", "CHANGELOG.md", *CONTEXT) <= inside
    assert {name.partition("/")[0] for name in inside if name} == {
        "flarekit",
        "weights",
        "docs",
        "CHANGELOG.md",
        "PKG-INFO",
        ".gitignore",
        *CONTEXT,
    }


def test_the_wheel_segments_a_scan_where_nothing_else_is(empty, tmp_path):
    (tmp_path / "in").mkdir()
    voxels = np.random.default_rng(0).integers(-200, 300, (60, 60, 20)).astype(np.int16)
    scan = nibabel.Nifti1Image(voxels, np.diag([3.0, 3.0, 3.0, 1.0]))
    nibabel.save(scan, tmp_path / "in" / "p_0000.nii.gz")
    words = ["flarekit", "predict", "-p", "mpu_net_liver", "-i", "in", "-o", "out"]
    said = run(empty, *words, "--device", "cpu", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert nibabel.load(tmp_path / "out" / "p.nii.gz").shape == (60, 60, 20)


def test_the_wheel_s_weights_are_whole_and_an_image_can_be_built_of_it(empty, tmp_path):
    said = run(empty, "flarekit", "weights", "verify", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert len(said.stdout.splitlines()) >= 6
    (tmp_path / "context").mkdir()
    said = run(empty, "python", "-c", LAY_OUT, tmp_path / "context", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert {path.name for path in (tmp_path / "context").iterdir()} == {
        *CONTEXT,
        "flarekit",
        "weights",
    }
    assert (tmp_path / "context/weights/mpu_net_liver/model.safetensors").is_file()


def test_the_wheel_says_what_is_here_and_a_missing_image_in_one_sentence(empty, tmp_path):
    said = run(empty, "flarekit", "doctor", "--json", cwd=tmp_path)
    found = {each["what"]: each["state"] for each in json.loads(said.stdout)}
    assert found["openvino"] == found["torch"] == "ok"
    said = run(empty, "flarekit", "verify", "no_such_image.tar", cwd=tmp_path)
    assert said.returncode in (2, 3), said.stderr
    assert "Traceback" not in said.stderr
