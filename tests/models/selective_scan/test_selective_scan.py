from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.core.errors import DeviceError
from flarekit.models.selective_scan import choose_backend, selective_scan

CPU = torch.device("cpu")
ON_DEVICES = [
    ("chunked", "cpu"),
    pytest.param("chunked", "cuda", marks=pytest.mark.gpu),
    pytest.param("triton", "cuda", marks=pytest.mark.gpu),
    pytest.param("nvrtc", "cuda", marks=pytest.mark.gpu),
    pytest.param("mamba_ssm", "cuda", marks=pytest.mark.gpu),
]


def inputs(batch, channels, tokens, states, *, dtype=torch.float64, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    tensors = (
        draw(batch, channels, tokens),
        torch.nn.functional.softplus(draw(batch, channels, tokens) - 2),
        -torch.exp(draw(channels, states)),
        draw(batch, states, tokens),
        draw(batch, states, tokens),
        draw(channels),
    )
    return [tensor.to(device) for tensor in tensors]


def skip_unless_installed(backend):
    if backend in ("triton", "mamba_ssm") and find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")


def relative(ours, reference):
    return float((ours - reference).abs().max() / reference.abs().max())


def test_the_reference_of_a_hand_computed_scan():
    u, delta = torch.tensor([[[2.0, 3.0]]]).double(), torch.tensor([[[0.5, 1.0]]]).double()
    A, B = torch.tensor([[-1.0]]).double(), torch.tensor([[[1.0, 2.0]]]).double()
    C, D = torch.tensor([[[4.0, 5.0]]]).double(), torch.tensor([10.0]).double()
    h1 = 0.5 * 2 * 1
    h2 = torch.exp(torch.tensor(-1.0).double()) * h1 + 1.0 * 3 * 2
    expected = torch.tensor([[[4 * h1 + 20, 5 * h2 + 30]]]).double()
    torch.testing.assert_close(selective_scan(u, delta, A, B, C, D, backend="reference"), expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 70), st.sampled_from([1, 3, 16]))
def test_the_chunked_scan_agrees_with_the_reference(batch, channels, tokens, states):
    tensors = inputs(batch, channels, tokens, states, seed=tokens)
    ours = selective_scan(*tensors, backend="chunked")
    reference = selective_scan(*tensors, backend="reference")
    assert relative(ours, reference) < 1e-12


@pytest.mark.parametrize(("backend", "device"), ON_DEVICES)
def test_float32_agrees_to_1e_5(backend, device):
    skip_unless_installed(backend)
    tensors = inputs(2, 40, 700, 16)
    reference = selective_scan(*tensors, backend="reference")
    single = [tensor.float().to(device) for tensor in tensors]
    ours = selective_scan(*single, backend=backend).cpu()
    assert ours.dtype == torch.float32
    assert relative(ours.double(), reference) < 1e-5


def test_gradients_of_the_reference_are_right():
    tensors = [tensor.requires_grad_() for tensor in inputs(1, 2, 5, 3)]
    assert torch.autograd.gradcheck(
        lambda *args: selective_scan(*args, backend="reference"), tensors
    )


@pytest.mark.parametrize(("backend", "device"), ON_DEVICES)
def test_gradients_agree_with_the_reference(backend, device):
    skip_unless_installed(backend)
    dtype, tolerance = (torch.float32, 1e-4) if backend == "mamba_ssm" else (torch.float64, 1e-9)
    gradients = []
    for name, where in (("reference", "cpu"), (backend, device)):
        tensors = [
            tensor.requires_grad_() for tensor in inputs(2, 6, 90, 4, dtype=dtype, device=where)
        ]
        y = selective_scan(*tensors, backend=name)
        gradients.append([g.cpu() for g in torch.autograd.grad(y.square().sum(), tensors)])
    for ours, reference in zip(gradients[1], gradients[0], strict=True):
        assert relative(ours, reference) < tolerance


INTERPRETED = """
import torch
from flarekit.models.selective_scan import _triton, selective_scan
from tests.models.selective_scan.test_selective_scan import inputs, relative
_triton._CHUNK = 8
for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
    results = []
    for backend in ("reference", "triton"):
        tensors = [tensor.requires_grad_() for tensor in inputs(2, 40, 19, 5, dtype=dtype)]
        y = selective_scan(*tensors, backend=backend)
        results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    for ours, reference in zip(results[1], results[0], strict=True):
        assert relative(ours, reference) < tolerance, (dtype, relative(ours, reference))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_triton_kernel_agrees_with_the_reference_in_its_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        text=True,
        capture_output=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_scan_is_a_float32_island():
    tensors = [tensor.bfloat16() for tensor in inputs(1, 4, 20, 4)]
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(*tensors)
    assert y.dtype == torch.float32
    reference = selective_scan(*[tensor.double() for tensor in tensors], backend="reference")
    assert relative(y.double(), reference) < 1e-5


@pytest.mark.slow
def test_a_hundred_thousand_tokens_take_less_than_two_seconds():
    tensors = inputs(1, 64, 100_000, 16, dtype=torch.float32)
    seconds = []
    with torch.inference_mode():
        for _ in range(3):
            began = time.perf_counter()
            selective_scan(*tensors, backend="chunked")
            seconds.append(time.perf_counter() - began)
    assert min(seconds) < 2


def test_auto_never_leaves_the_cpu_and_names_what_it_took():
    assert choose_backend("auto", CPU) == "chunked"


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("mamba_ssm", "mamba_ssm"),
        ("triton", "triton"),
        ("nvrtc", "needs a CUDA device"),
        ("cuda", "no scan backend"),
    ],
)
def test_a_backend_that_cannot_run_here_is_an_error(backend, words):
    with pytest.raises(DeviceError, match=words):
        choose_backend(backend, CPU)
