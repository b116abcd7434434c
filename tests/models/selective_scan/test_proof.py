"""The scan that `auto` takes has proved itself, whatever is installed and broken."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from flarekit.core.errors import DeviceError
from flarekit.engine._torch_estimate import estimated_mib
from flarekit.models import selective_scan as scans
from flarekit.models._mamba import Mamba
from flarekit.models.selective_scan import (
    SelectiveScan,
    _chunked,
    _mamba_ssm,
    _nvrtc,
    _proof,
    _reference,
    choose_backend,
    selective_scan,
)
from tests.models.selective_scan.cubins import resources
from tests.models.selective_scan.emulated import emulated_scan
from tests.models.selective_scan.test_selective_scan import inputs, relative

CPU = torch.device("cpu")
ON_CUDA = ("mamba_ssm", "nvrtc", "triton", "chunked")


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Let `auto` try on the CPU what it tries on CUDA, with nothing proved yet."""
    monkeypatch.setitem(scans._ORDER, "cpu", ON_CUDA)
    monkeypatch.setattr(_proof, "_faults", {})
    scans._first_that_works.cache_clear()
    yield
    scans._first_that_works.cache_clear()
    forget("mamba_ssm")
    forget("selective_scan_cuda")


def forget(package):
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        del sys.modules[name]


def put_package(monkeypatch, folder, name, **files):
    """Make an importable package of these files, in front of any that is installed."""
    for path, text in {"__init__": "", **files}.items():
        file = folder / name / f"{path}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(folder)
    forget(name)


def agreeing(monkeypatch, backend):
    """Put the reference in a backend's place, as if its device were here."""
    module = __import__(f"flarekit.models.selective_scan._{backend}", fromlist=["scan"])
    monkeypatch.setattr(module, "scan", _reference.scan)


@pytest.mark.usefixtures("as_on_cuda")
def test_where_no_kernel_works_the_chunked_scan_is_taken_and_that_is_said(caplog):
    assert choose_backend("auto", CPU) == "chunked"
    assert "nvrtc does not work" in caplog.text
    tensors = inputs(1, 4, 50, 4)
    expected = selective_scan(*tensors, backend="reference")
    assert relative(selective_scan(*tensors), expected) < 1e-12


@pytest.mark.usefixtures("as_on_cuda")
def test_a_mamba_ssm_whose_extension_does_not_load_gives_way(monkeypatch, tmp_path, caplog):
    agreeing(monkeypatch, "nvrtc")
    put_package(monkeypatch, tmp_path, "mamba_ssm")
    assert choose_backend("auto", CPU) == "nvrtc"
    words = "the kernel of mamba-ssm does not load: No module named 'selective_scan_cuda'"
    assert f"mamba_ssm does not work: DeviceError: {words}" in caplog.text


@pytest.mark.usefixtures("as_on_cuda")
def test_a_kernel_of_mamba_ssm_built_for_another_pytorch_is_named_where_it_is_asked_for(
    monkeypatch, tmp_path
):
    put_package(monkeypatch, tmp_path, "mamba_ssm")
    built_for_another = "raise ImportError('undefined symbol: _ZN3c10')"
    put_package(monkeypatch, tmp_path, "selective_scan_cuda", __init__=built_for_another)
    with pytest.raises(DeviceError, match=r"undefined symbol: _ZN3c10 \(install a mamba"):
        _mamba_ssm.scan(*inputs(1, 2, 5, 3)[:5])


KERNEL = """
from flarekit.models.selective_scan import _reference

def fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    assert B.shape == C.shape == (u.shape[0], 1, A.shape[1], u.shape[2])
    assert all(each.is_contiguous() and str(each.dtype) == "torch.float32" for each in (u, A, B))
    assert D is z is delta_bias is None and not delta_softplus
    return [_reference.scan(u, delta, A, B[:, 0], C[:, 0]), None]
"""


@pytest.mark.long
@pytest.mark.usefixtures("as_on_cuda")
def test_mamba_ssm_needs_nothing_but_its_kernel_and_has_gradients(monkeypatch, tmp_path):
    """The package itself imports language models."""
    put_package(monkeypatch, tmp_path, "mamba_ssm", __init__="import transformers_of_nowhere")
    put_package(monkeypatch, tmp_path, "selective_scan_cuda", __init__=KERNEL)
    assert choose_backend("auto", CPU) == "mamba_ssm"
    tensors = [tensor.requires_grad_() for tensor in inputs(1, 2, 5, 3)[:5]]
    y = _mamba_ssm.scan(*tensors)
    expected = _reference.scan(*tensors)
    assert relative(y.detach(), expected.detach()) < 1e-6
    ours, theirs = (torch.autograd.grad(each.sum(), tensors) for each in (y, expected))
    assert all(relative(a, b) < 1e-6 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.usefixtures("as_on_cuda")
def test_a_mamba_ssm_that_computes_something_else_gives_way(monkeypatch, tmp_path):
    wrong = "def fwd(u, *others):\n    return [2 * u]\n"
    agreeing(monkeypatch, "nvrtc")
    put_package(monkeypatch, tmp_path, "mamba_ssm")
    put_package(monkeypatch, tmp_path, "selective_scan_cuda", __init__=wrong)
    assert choose_backend("auto", CPU) == "nvrtc"
    assert "off by" in _proof.fault_of("mamba_ssm", CPU)


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_backend_whose_output_is_not_finite_gives_way(monkeypatch, value):
    monkeypatch.setattr(_nvrtc, "scan", lambda u, *_: torch.full_like(u, value))
    assert choose_backend("auto", CPU) != "nvrtc"


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_a_triton_that_raises_gives_way(monkeypatch, caplog):
    from flarekit.models.selective_scan import _triton

    def failing(*_):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(_triton, "scan", failing)
    assert choose_backend("auto", CPU) == "chunked"
    assert "triton does not work: RuntimeError: Failed to find C compiler." in caplog.text
    assert "Please specify" not in caplog.text


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_a_home_that_cannot_be_written_to_makes_triton_give_way(monkeypatch, caplog):
    from triton.runtime.cache import get_cache_manager

    from flarekit.models.selective_scan import _triton

    def keeping_its_launcher(*tensors):
        get_cache_manager("0" * 64).put(b"launcher", "launcher.so")
        return _reference.scan(*tensors)

    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.setenv("TRITON_HOME", NO_HOME)  # it reads HOME when it is imported
    monkeypatch.setattr(_triton, "scan", keeping_its_launcher)
    assert choose_backend("auto", CPU) == "chunked"
    assert "triton does not work: " in caplog.text
    assert NO_HOME in caplog.text


@pytest.mark.usefixtures("as_on_cuda")
def test_what_works_is_tried_once(monkeypatch):
    calls = []

    def counted(*tensors):
        calls.append(1)
        return _reference.scan(*tensors)

    monkeypatch.setattr(_nvrtc, "scan", counted)
    for _ in range(3):
        assert choose_backend("auto", CPU) == "nvrtc"
    assert len(calls) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("as_on_cuda")
def test_the_memory_of_a_kernel_is_estimated_without_a_launch(monkeypatch):
    """What it would read is not there: on a GPU that ends all work of the process."""
    blank = []

    def kernel(*tensors):
        assert not any(isinstance(tensor, FakeTensor) for tensor in tensors)
        return _reference.scan(*tensors)

    monkeypatch.setattr(_nvrtc, "scan", kernel)
    assert choose_backend("auto", CPU) == "nvrtc"
    network = Mamba(8).eval()
    network.scan.register_forward_hook(lambda _module, _given, y: blank.append(y))
    layout = torch.contiguous_format
    needed_mib = estimated_mib(network, (1, 2048, 8), CPU, "fp32", layout)
    assert needed_mib >= 4 * 16 * 2048 / 2**20  # y at least
    assert [(tuple(y.shape), y.dtype) for y in blank] == [((1, 16, 2048), torch.float32)]


@pytest.mark.usefixtures("as_on_cuda")
def test_the_record_can_name_what_scans_and_why_nothing_better_does():
    words = SelectiveScan.computed_by(CPU)
    assert words.startswith("chunked (")
    assert "nvrtc does not work: " in words


@pytest.mark.long
def test_the_kernel_computes_the_reference_scan_when_emulated(tmp_path):
    scan = emulated_scan(tmp_path, states=3)
    for batch, channels, tokens in ((2, 3, 700), (1, 2, 1), (1, 1, 512), (1, 2, 513)):
        tensors = inputs(batch, channels, tokens, 3)[:5]
        assert relative(scan(*tensors), _reference.scan(*tensors)) < 1e-12


def has_nvrtc():
    try:
        _nvrtc._nvrtc()
    except _nvrtc.CudaError:
        return False
    return True


NO_HOME = "/proc/nowhere"  # nothing can be made there, not even by root
WITHOUT_A_COMPILER = """
import torch
from flarekit.models.selective_scan._nvrtc import compile_scan
for capability in ((7, 5), (8, 0), (8, 6), (9, 0)):
    for dtype in (torch.float32, torch.float64):
        assert compile_scan(capability, dtype, 16)[:4] == b"\\x7fELF", capability
assert b".target sm_" in compile_scan((99, 0), torch.float32, 16)  # newer than NVRTC
"""


@pytest.mark.slow
@pytest.mark.skipif(not has_nvrtc(), reason="NVRTC (nvidia-cuda-nvrtc) is not installed")
def test_nvrtc_needs_no_compiler_and_no_home_to_compile_the_kernel():
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_COMPILER],
        text=True,
        capture_output=True,
        env={"PATH": "", "HOME": NO_HOME, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.long
@pytest.mark.skipif(not has_nvrtc(), reason="NVRTC (nvidia-cuda-nvrtc) is not installed")
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (9, 0)])
def test_the_compiled_kernel_keeps_its_numbers_in_registers(capability):
    cubin = _nvrtc.compile_scan(capability, torch.float32, 16)
    architecture, registers, stack = resources(cubin)
    assert architecture == 10 * capability[0] + capability[1]
    assert registers <= 64  # so that 1024 threads share a multiprocessor
    assert stack == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_the_kernel_is_used_only_where_nvrtc_and_a_driver_are():
    assert _proof.fault_of("nvrtc", CPU) is not None


@pytest.mark.parametrize(("batch", "tokens"), [(16, 9216), (1, 100_000), (16, 100)])
def test_on_a_gpu_the_chunked_scan_makes_few_launches(batch, tokens):
    states = 128 * 16
    chunks = _chunked.chunks_of(batch, states, tokens, "cuda")
    launches = 8 * -(-tokens // chunks) + 4 * chunks
    assert launches <= 4200
    assert 4 * batch * states * chunks <= 32 * 2**20 or chunks == 1
