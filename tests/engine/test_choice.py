from __future__ import annotations

import pytest

from flarekit import engine
from flarekit.core.errors import DeviceError, UsageError
from flarekit.core.spec import Grid

choose = engine.choose_engine  # before the tests' own default takes its place


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that says what is installed, and whether a driver is there."""

    def describe(*installed, gpu):
        node = tmp_path / "node"
        node.touch() if gpu else node.unlink(missing_ok=True)
        monkeypatch.setattr(engine, "_GPU_NODES", (str(node),))
        monkeypatch.setattr(
            engine, "find_spec", lambda name: object() if name in installed else None
        )

    return describe


@pytest.mark.parametrize(
    ("device", "gpu", "installed", "chosen"),
    [
        ("auto", False, ("torch", "openvino"), "openvino"),
        ("auto", True, ("torch", "openvino"), "torch"),
        ("auto", True, ("openvino",), "openvino"),
        ("auto", False, ("torch",), "torch"),
        ("cpu", True, ("torch", "openvino"), "openvino"),
        ("cpu", True, ("torch",), "torch"),
        ("cuda:1", False, ("torch", "openvino"), "torch"),
    ],
)
def test_auto_takes_what_the_machine_is_fastest_at(machine, device, gpu, installed, chosen):
    machine(*installed, gpu=gpu)
    assert choose(device) == chosen


def test_a_gpu_that_stays_unused_is_said(machine, caplog):
    machine("openvino", gpu=True)
    choose("auto")
    assert "stays unused" in caplog.text


def test_cuda_without_torch_is_an_error_and_never_the_cpu(machine):
    machine("openvino", gpu=True)
    with pytest.raises(DeviceError, match="needs torch"):
        choose("cuda")


def test_an_engine_that_is_not_installed_is_named(machine):
    machine(gpu=False)
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 4, 4))
    networks = engine.Networks(build=list, channels=1, identity="toy")
    with pytest.raises(UsageError, match="'torch' is not installed"):
        engine.create("torch", networks, grid, class_count=2)
