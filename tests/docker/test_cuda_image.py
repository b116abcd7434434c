"""The image for a GPU on a machine without one: what is inside, and that it says what it lacks."""

from __future__ import annotations

import subprocess

import nibabel
import numpy as np
import pytest

from flarekit.containers.docker_command import docker, engine_fault
from flarekit.images.build import BASE, BuildRequest, build
from flarekit.phantom import save_phantom

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.usefixtures("_image")]

TAG = "flarekit-cuda"
LOCKED = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--env", "HOME=/proc/nowhere"]
KERNELS = """
import torch
from flarekit.models.selective_scan._nvrtc import compile_scan
for capability in ((7, 5), (8, 0), (8, 6), (9, 0)):
    assert compile_scan(capability, torch.float32, 16)[:4] == b"\\x7fELF", capability
"""
LIBRARIES = """
import ctypes, pathlib, torch
site = pathlib.Path(torch.__file__).parents[1]
folders = [site / "torch", site / "nvidia", *site.glob("cusparselt")]
libraries = [path for folder in folders for path in folder.rglob("lib*.so*")]
print(len(libraries))
for path in libraries:
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        print(path.name, error)
"""


@pytest.fixture(scope="module")
def _image():
    """Build the image of a predictor with a selective scan."""
    if engine_fault() is not None:
        pytest.skip("no Docker engine")
    build(BuildRequest(predictor="mamba_clinix_abdomen", convention="flare", tag=TAG))


def run(*arguments, flags=()):
    return subprocess.run(
        ["docker", "run", "--rm", *LOCKED, *flags, TAG, *arguments],
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.fixture
def mounts(tmp_path):
    """Return flags that mount a scan, and the folder of masks."""
    (tmp_path / "inputs").mkdir()
    (tmp_path / "outputs").mkdir()
    save_phantom(3, scan=tmp_path / "inputs" / "p_0000.nii.gz", labels=tmp_path / "truth.nii.gz")
    flags = [f"--volume={tmp_path / name}:/workspace/{name}" for name in ("inputs", "outputs")]
    return [*flags, "--env", "FLAREKIT_TIME_BUDGET=0"], tmp_path / "outputs"


def test_it_has_cuda_s_torch_no_compiler_and_says_what_it_runs_on():
    facts = run("python", "-c", "import torch; print(torch.version.cuda)")
    labels = docker("inspect", "--format", "{{json .Config.Labels}}", TAG).stdout
    assert f'"flarekit.cuda.version":"{facts.stdout.strip()}"' in labels
    assert '"flarekit.cuda.driver":"525.60.13"' in labels
    assert "sm_75 sm_80 sm_86 sm_90" in labels
    for name in ("cc", "gcc", "g++", "c++", "clang", "nvcc", "ptxas"):
        assert run("sh", "-c", f"command -v {name}").stdout == ""


def test_it_takes_less_than_five_gigabytes_on_its_base():
    sizes = [int(docker("inspect", "--format", "{{.Size}}", tag).stdout) for tag in (TAG, BASE)]
    assert sizes[0] - sizes[1] < 5e9


def test_its_scan_is_compiled_without_a_compiler_a_home_or_a_disk():
    result = run("python", "-c", KERNELS)
    assert result.returncode == 0, result.stderr


def test_every_library_that_is_left_finds_those_that_it_names():
    result = run("python", "-c", LIBRARIES)
    count, *faults = result.stdout.splitlines()
    assert int(count) > 30, result.stderr
    # the driver's own come with the NVIDIA runtime, that of a kind of network card with the card
    assert [each for each in faults if "libcuda.so.1" not in each and "rdma" not in each] == []


def test_without_a_gpu_it_says_so_and_computes_on_the_cpu(mounts):
    flags, outputs = mounts
    result = run(flags=flags)
    assert result.returncode == 0, result.stderr
    assert "no GPU is visible in this container: run it with --gpus" in result.stderr
    assert "engine openvino on cpu" in result.stderr
    assert np.asarray(nibabel.load(outputs / "p.nii.gz").dataobj).any()


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(mounts):
    flags, outputs = mounts
    line = ["flarekit", "predict", "--input", "/workspace/inputs", "--output", "/workspace/outputs"]
    result = run(*line, "--device", "cuda", flags=flags)
    assert result.returncode == 5
    assert "device 'cuda' is not available: no driver or no GPU is visible" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(outputs.iterdir()) == []
