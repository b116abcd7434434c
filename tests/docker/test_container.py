"""The image as the organisers run it. Needs a Docker engine; builds `flarekit:latest`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest

from flarekit.phantom import save_phantom
from flarekit.pipeline.predictors import find_predictor
from flarekit.pipeline.segment import Options, segment_folder

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
IMAGE = "flarekit:latest"
STRICT = [
    "--network",
    "none",
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--pids-limit",
    "256",
    "--shm-size",
    "64m",
]


def docker(*arguments, check=True):
    return subprocess.run(
        ["docker", *map(str, arguments)], text=True, capture_output=True, check=check
    )


@pytest.fixture(scope="module", params=["flare", "gc"])
def image(request) -> str:
    if shutil.which("docker") is None or docker("info", check=False).returncode:
        pytest.skip("no Docker engine")
    tag = IMAGE if request.param == "flare" else "flarekit-gc:latest"
    extra = (
        ["--build-arg", f"TORCH_INDEX={index}"] if (index := os.environ.get("TORCH_INDEX")) else []
    )
    built = docker(
        "build",
        "--network",
        "host",
        "--target",
        request.param,
        *extra,
        "-t",
        tag,
        ROOT,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return tag


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    inputs, outputs = tmp_path / "inputs", tmp_path / "outputs"
    inputs.mkdir()
    outputs.mkdir()
    outputs.chmod(0o777)  # the gc image is not root
    return inputs, outputs


def official_line(inputs, outputs, image, *flags):
    """Run the organisers' line, less `--gpus`."""
    return docker(
        "container",
        "run",
        "-m",
        "28G",
        "--name",
        "flarekit",
        "--rm",
        *flags,
        "-v",
        f"{inputs}/:/workspace/inputs/",
        "-v",
        f"{outputs}/:/workspace/outputs/",
        image,
        "/bin/bash",
        "-c",
        "sh predict.sh",
        check=False,
    )


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj)


@pytest.mark.parametrize("flags", [[], STRICT], ids=["as_written", "strict"])
def test_the_official_line_gives_the_bare_machine_s_masks(image, folders, tmp_path, flags):
    inputs, outputs = folders
    save_phantom(2, scan=inputs / "phantom_0000.nii.gz", labels=tmp_path / "truth.nii.gz")
    result = official_line(inputs, outputs, image, *flags)
    assert result.returncode == 0, result.stderr
    assert os.listdir(outputs) == ["phantom.nii.gz"]
    assert os.listdir(inputs) == ["phantom_0000.nii.gz"]
    segment_folder(find_predictor("abdomen_ct"), inputs, tmp_path / "bare", Options(device="cpu"))
    np.testing.assert_array_equal(
        voxels(outputs / "phantom.nii.gz"), voxels(tmp_path / "bare" / "phantom.nii.gz")
    )


@pytest.mark.data
def test_real_scans_give_the_bare_machine_s_masks(image, folders, tmp_path, shared):
    inputs, outputs = folders
    for path in (shared / "data" / "cases").glob("*_0000.nii.gz"):
        shutil.copy(path, inputs)
    result = official_line(inputs, outputs, image, *STRICT)
    assert result.returncode == 0, result.stderr
    segment_folder(find_predictor("abdomen_ct"), inputs, tmp_path / "bare", Options(device="cpu"))
    names = sorted(os.listdir(outputs))
    assert names == sorted(os.listdir(tmp_path / "bare"))
    assert names == ["CRLM1004.nii.gz", "example_ct.nii.gz"]
    for name in names:
        ours, bare = nibabel.load(outputs / name), nibabel.load(tmp_path / "bare" / name)
        np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(bare.dataobj))
        np.testing.assert_array_equal(ours.affine, bare.affine)


def test_a_bad_scan_gives_an_empty_mask_and_an_exit_code(image, folders):
    inputs, outputs = folders
    (inputs / "bad_0000.nii.gz").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    result = official_line(inputs, outputs, image, *STRICT)
    assert result.returncode == 1
    assert "Git LFS pointer" in result.stderr.strip().splitlines()[-1]
    assert not voxels(outputs / "bad.nii.gz").any()


def test_only_the_chosen_predictor_is_inside(image):
    listing = docker("run", "--rm", image, "flarekit", "predictors", "--json").stdout
    assert listing.count('"name"') == 1
    assert '"weights": "ok"' in listing


def test_the_image_obeys_the_evaluators(image):
    config = docker("image", "inspect", "--format", "{{json .Config}}", image).stdout
    assert "CUDA_VISIBLE_DEVICES" not in config
    assert '"Entrypoint":["' not in config
    user = docker("run", "--rm", image, "sh", "-c", "id -u").stdout.strip()
    assert user == ("1000" if "gc" in image else "0")
