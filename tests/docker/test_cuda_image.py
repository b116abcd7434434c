"""The image for a GPU on a machine without one: what is inside, and that it says what it lacks.

Of the first predictor, of every one with a selective scan, and of one of these with mamba-ssm's
kernel built in as well, which takes a quarter of an hour.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from flarekit.conventions import checks_of
from flarekit.core.scan_files import read_scan
from flarekit.core.spec import read_spec
from flarekit.images.build import BASE, BuildRequest, build
from flarekit.segmentation.predictors import find_predictor, predictor_folders
from flarekit.verification.trials import TaskFacts
from tests.docker.built_images import docker, need_engine, one_build, remove, size_of

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LOCKED = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--env", "HOME=/proc/nowhere"]
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "nvcc", "ptxas")
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
LEFT_BEHIND = """
import json, mmap, pathlib, re, torch
site = pathlib.Path(torch.__file__).parents[1]
installed = [
    line.split(",")[0]
    for record in site.glob("*.dist-info/RECORD")
    for line in record.read_text().splitlines()
]
stem = lambda path: pathlib.PurePath(path).name.split(".so")[0] + ".so"
libraries = [each for each in installed if ".so" in pathlib.PurePath(each).name]
left = {stem(each) for each in libraries if not (site / each).exists()}
opens = [site / "torch/__init__.py"]
opens += [each for name in ("torch", "nvidia") for each in site.glob(name + "/**/*.so*")]
names = sorted(re.escape(name.removeprefix("lib").removesuffix(".so")) for name in left)
any_left = re.compile(b"lib(?:%s)" % "|".join(names).encode())
named = {}
for path in opens:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = sorted({each.decode() for each in any_left.findall(content)})
        named |= {path.name: found} if found else {}
folders = ("/opt/flarekit", "/usr/lib", "/lib", "/usr/local/lib")
there = {stem(path) for folder in folders for path in pathlib.Path(folder).rglob("*.so*")}
print(json.dumps({"left": sorted(left), "named": named, "there": sorted(there)}))
"""
MAMBA_SSM = """
import re, struct, torch, selective_scan_cuda
content = open(selective_scan_cuda.__file__, "rb").read()
first, *cubins = [found.start() for found in re.finditer(b"\\x7fELF\\x02\\x01", content)]
print(sorted("sm_%d" % (struct.unpack_from("<I", content, at + 48)[0] >> 8 & 255) for at in cubins))
tensor = torch.ones(1, 1, 1, 1)
try:
    selective_scan_cuda.fwd(tensor[0], tensor[0], tensor[0, 0], tensor, tensor, *[None] * 3, False)
except RuntimeError as error:
    print(error)
"""
ON_AN_H200 = Path(__file__).parents[2] / "profiling" / "gpu_h200.json"
DRIVERS_OWN = ("libcuda.so.1", "rdma")  # come with the NVIDIA runtime, and with a network card


@dataclass(frozen=True)
class Kind:
    """An image to be built, and what it is labelled with."""

    predictor: str
    mamba: bool = False
    driver: str = "525.60.13"
    architectures: str = "sm_75 sm_80 sm_86 sm_90"


SCANNING = [
    folder.name
    for folder in predictor_folders()
    if "mamba" in read_spec(folder).spec.architecture.name
]
KINDS = {
    **{name: Kind(name) for name in ("abdomen_ct", *SCANNING)},
    "mamba_ssm": Kind("mamba_clinix_abdomen", mamba=True, driver="580.65.06"),
}


@dataclass(frozen=True)
class Image:
    """An image that is there.

    Attributes:
        kind: what it is.
        tag: its name.
    """

    kind: Kind
    tag: str

    @property
    def convention(self):
        """The organiser's way to run it."""
        return checks_of(find_predictor(self.kind.predictor).spec.convention)

    def run(self, *arguments, flags=()):
        """Run it where everything is locked, its own command or another; without a GPU."""
        return docker("run", "--rm", *LOCKED, *flags, self.tag, *arguments, check=False)


@pytest.fixture(scope="module", params=KINDS)
def image(request):
    """Build an image; it takes gigabytes, and is removed before the next one is built."""
    need_engine()
    kind = KINDS[request.param]
    name = request.param.replace("_", "-")
    tag = f"flarekit-cuda-{name}-{os.getpid()}"  # processes share an engine
    wanted = BuildRequest(
        predictor=kind.predictor, convention=None, tag=tag, device="cuda", mamba=kind.mamba
    )
    with one_build():
        build(wanted)
    yield Image(kind, tag)
    remove(tag)


@pytest.fixture
def mounts(image, tmp_path):
    """Return flags that mount a case as its organiser does, and the folder of masks."""
    line = image.convention.run_line
    (tmp_path / "inputs").mkdir()
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs").chmod(0o777)
    settings = find_predictor(image.kind.predictor).spec.convention_settings
    task = TaskFacts(values=frozenset({0, 1}), settings=settings)
    image.convention.write_sample(tmp_path / "inputs", task)
    places = {"inputs": line.inputs, "outputs": line.outputs}
    flags = [f"--volume={tmp_path / name}:{there}" for name, there in places.items()]
    return [*flags, "--env", "FLAREKIT_TIME_BUDGET=0"], tmp_path / "outputs"


def masks(folder: Path):
    return [path for path in folder.rglob("*") if path.name.endswith((".mha", ".nii.gz"))]


def test_it_has_cuda_s_torch_no_compiler_and_says_what_it_runs_on(image):
    facts = image.run("python", "-c", "import torch; print(torch.version.cuda)")
    labels = docker("inspect", "--format", "{{json .Config.Labels}}", image.tag).stdout
    assert f'"flarekit.cuda.version":"{facts.stdout.strip()}"' in labels
    assert f'"flarekit.cuda.driver":"{image.kind.driver}"' in labels
    assert image.kind.architectures in labels
    for name in COMPILERS:
        assert image.run("sh", "-c", f"command -v {name}").stdout == ""


def test_it_takes_less_than_five_gigabytes_on_its_base(image):
    assert size_of(image.tag) - size_of(BASE) < 5e9


def test_its_scan_is_compiled_without_a_compiler_a_home_or_a_disk(image):
    result = image.run("python", "-c", KERNELS)
    assert result.returncode == 0, result.stderr


def test_mamba_ssm_is_inside_where_it_was_asked_for_built_for_what_was_named_and_loads(image):
    result = image.run("python", "-c", MAMBA_SSM)
    if not image.kind.mamba:
        assert "No module named 'selective_scan_cuda'" in result.stderr
        return
    architectures, fault = result.stdout.splitlines()[:2]
    assert architectures == "['sm_80', 'sm_90']", result.stderr
    assert "u.is_cuda()" in fault


def test_every_library_that_is_left_finds_those_that_it_names(image):
    result = image.run("python", "-c", LIBRARIES)
    count, *faults = result.stdout.splitlines()
    assert int(count) > 30, result.stderr
    assert [each for each in faults if not any(own in each for own in DRIVERS_OWN)] == []


def mapped_on_a_gpu() -> set[str]:
    """Names of the libraries of PyTorch and CUDA that a run with CUDA mapped."""
    found = r'/site-packages/(?:torch|nvidia)/[^"]*?(lib[\w+-]+\.so)'
    return set(re.findall(found, ON_AN_H200.read_text()))


def test_nothing_was_left_behind_that_a_run_mapped_on_a_gpu_or_that_what_stays_may_open(image):
    result = image.run("python", "-c", LEFT_BEHIND)
    told = json.loads(result.stdout)
    assert "libcusolverMg.so" in told["left"], result.stderr
    by = {name.split(".so")[0]: names for name, names in told["named"].items()}
    assert by == {"libcupti": ["libnvperf_host"]}  # for hardware counters, which no run asks for
    mapped = mapped_on_a_gpu()
    assert {"libtorch_cuda.so", "libcudnn.so", "libnvrtc.so"} <= mapped
    assert not mapped & set(told["left"])
    if image.kind.mamba:  # the same PyTorch as there
        assert mapped <= set(told["there"])


def test_without_a_gpu_it_says_so_and_computes_on_the_cpu(image, mounts):
    flags, outputs = mounts
    line = image.convention.run_line
    result = image.run(*(line.command or ()), flags=flags)
    assert result.returncode == 0, result.stderr
    assert "no GPU is visible in this container: run it with --gpus" in result.stderr
    assert "engine openvino on cpu" in result.stderr
    (mask,) = masks(outputs)
    assert read_scan(mask, air=0.0).voxels_ZYX.any()


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(image, mounts):
    flags, outputs = mounts
    places = image.convention.run_line
    line = ["flarekit", "predict", "--input", places.inputs, "--output", places.outputs]
    result = image.run(*line, "--device", "cuda", flags=flags)
    assert result.returncode == 5
    assert "device 'cuda' is not available: no driver or no GPU is visible" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(outputs.iterdir()) == []


def test_doctor_says_that_there_is_no_gpu_and_which_scans_run(image):
    result = image.run("flarekit", "doctor", flags=["--tmpfs", "/tmp"])  # OpenVINO is tried there
    assert result.returncode == 0, result.stderr
    (driver,) = [each for each in result.stdout.splitlines() if "NVIDIA driver" in each]
    assert driver.startswith("-")
    assert "none answers" in driver
    assert "chunked on cpu         agrees with the reference" in result.stdout
