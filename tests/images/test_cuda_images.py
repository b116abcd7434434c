"""Images for a GPU: labels are checked when they are built; mamba-ssm is restricted."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flarekit.core.errors import UsageError
from flarekit.engine._cuda_driver import oldest_driver
from flarekit.images import build as building

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SCRIPTS = ROOT / "flarekit" / "images" / "docker"
TORCH = """
class version:
    cuda = {cuda!r}

class _C:
    def _cuda_getArchFlags():
        return {architectures!r}

__version__ = "2.0"
"""


def python(script, *arguments, path=None):
    """Run one of the build's scripts, with a folder of modules in front of those installed."""
    program = f"import sys; sys.path.insert(0, {str(path)!r}); " if path else "import sys; "
    program += f"import runpy; sys.argv = {[script, *map(str, arguments)]!r}; "
    program += f"runpy.run_path({str(SCRIPTS / script)!r}, run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("cuda", "architectures", "asked", "words"),
    [
        ("12.6", "sm_80 sm_90", ("12.6", "sm_80 sm_90", "525.60.13"), None),
        (None, "", ("12.6", "sm_90", "525.60.13"), "torch 2.0 is built without CUDA"),
        ("13.0", "sm_90", ("12.6", "sm_90", "525.60.13"), '--build-arg CUDA="13.0"'),
        ("12.6", "sm_90", ("12.6", "sm_75", "525.60.13"), '--build-arg CUDA_ARCHITECTURES="sm_90"'),
        ("13.0", "sm_90", ("13.0", "sm_90", "525.60.13"), 'CUDA_DRIVER="580.65.06"'),
    ],
)
def test_a_build_fails_where_torch_is_not_what_the_labels_say(
    tmp_path, cuda, architectures, asked, words
):
    shutil.copy(ROOT / "flarekit" / "engine" / "_cuda_driver.py", tmp_path)
    (tmp_path / "torch.py").write_text(TORCH.format(cuda=cuda, architectures=architectures))
    result = python("check_cuda.py", *asked, path=tmp_path)
    assert result.returncode == (0 if words is None else 1), result.stderr
    assert words is None or words in result.stderr


def argument(name):
    return re.search(rf'^ARG {name}="?([^"\n]*)"?$', DOCKERFILE, re.MULTILINE)[1]


def test_images_are_labelled_with_cuda_architectures_and_driver():
    assert argument("CUDA_DRIVER") == oldest_driver(argument("CUDA"))
    assert {"sm_75", "sm_80", "sm_86", "sm_90"} <= set(argument("CUDA_ARCHITECTURES").split())
    for name in ("version", "architectures", "driver"):
        assert f"flarekit.cuda.{name}=" in DOCKERFILE
    assert "python check_cuda.py" in DOCKERFILE


def test_an_image_with_mamba_ssm_has_a_torch_that_pypi_has_a_compiler_for(toy):
    request = building.BuildRequest(predictor="toy", convention=None, tag="team", mamba=True)
    arguments = building.torch_arguments(request)
    assert arguments["MAMBA"] == "1"
    assert arguments["CUDA"].startswith("13.")
    assert arguments["CUDA_DRIVER"] == oldest_driver(arguments["CUDA"])
    assert set(arguments) - {"MAMBA"} == {
        name for name in arguments if f"ARG {name}\n" in DOCKERFILE
    } - {"MAMBA"}
    request = building.BuildRequest(
        predictor=str(toy.folder), convention="flare", tag="team", mamba=True, device="cpu"
    )
    with pytest.raises(UsageError, match="for GPUs"):
        building.build(request)


@pytest.mark.parametrize(("device", "name"), [("cpu", "TORCH_INDEX"), ("cuda", "CUDA_INDEX")])
def test_an_index_is_where_the_torch_of_that_device_comes_from(device, name):
    request = building.BuildRequest(
        predictor="toy", convention=None, tag="team", device=device, torch_index="https://here"
    )
    assert building.torch_arguments(request) == {name: "https://here"}
    assert f"ARG {name}" in DOCKERFILE


SETUP = """
    cc_flag.append("arch=compute_75,code=sm_75")
    # HACK: The compiler flag
    ["--threads", "4"]
    [
        "--ptxas-options=-v",
        "-lineinfo",
    ]
    [
        "csrc/selective_scan/selective_scan.cpp",
        "csrc/selective_scan/selective_scan_fwd_fp32.cu",
        "csrc/selective_scan/selective_scan_fwd_fp16.cu",
        "csrc/selective_scan/selective_scan_bwd_fp32_real.cu",
    ]
"""
SCAN = """
template<typename input_t, typename weight_t>
void selective_scan_fwd_cuda(SSMParamsBase &params, cudaStream_t stream);
            selective_scan_bwd_cuda<input_t, weight_t>(params, stream);
"""
FORWARD = """
template void selective_scan_fwd_cuda<float, float>(SSMParamsBase &params);
template void selective_scan_fwd_cuda<float, complex_t>(SSMParamsBase &params);"""


@pytest.fixture
def sources(tmp_path):
    scan = tmp_path / "csrc" / "selective_scan"
    scan.mkdir(parents=True)
    (tmp_path / "setup.py").write_text(SETUP)
    (scan / "selective_scan.cpp").write_text(SCAN)
    (scan / "selective_scan_fwd_fp32.cu").write_text(FORWARD)
    return tmp_path


def test_of_mamba_ssm_the_forward_scan_in_float32_is_compiled_for_the_architectures_named(sources):
    result = python("restrict_mamba.py", sources, "sm_80", "sm_90")
    assert result.returncode == 0, result.stderr
    setup = (sources / "setup.py").read_text()
    assert re.findall(r"selective_scan\w*\.cu", setup) == ["selective_scan_fwd_fp32.cu"]
    flags = ["-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=sm_90"]
    assert setup.index(f"cc_flag = {flags}") > setup.index("compute_75")
    scan = (sources / "csrc/selective_scan/selective_scan.cpp").read_text()
    assert "built for float32 alone" in scan
    assert "without its backward scan" in scan
    assert "complex" not in (sources / "csrc/selective_scan/selective_scan_fwd_fp32.cu").read_text()


def test_sources_of_another_mamba_ssm_are_refused(sources):
    (sources / "csrc/selective_scan/selective_scan.cpp").write_text("")
    result = python("restrict_mamba.py", sources, "sm_90")
    assert result.returncode == 1
    assert "this is another mamba-ssm" in result.stderr


@pytest.mark.parametrize("words", [(), ("9.0",), ("sm_90", "; rm")])
def test_words_that_are_no_architectures_are_refused(sources, words):
    result = python("restrict_mamba.py", sources, *words)
    assert result.returncode == 1
    assert "sm_90" in result.stderr
    assert (sources / "setup.py").read_text() == SETUP
