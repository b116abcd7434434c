from __future__ import annotations

import os
import sys
import warnings
from types import SimpleNamespace

import pynvml
import pytest
import torch

from flarekit import engine
from flarekit.core.errors import DeviceError, UsageError
from flarekit.core.grid import Grid
from flarekit.engine import _torch_device
from flarekit.engine._cuda_driver import installed_driver
from flarekit.engine._torch_device import choose_device, opening_fault

choose = engine.choose_engine  # before the tests' own default takes its place


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that says what is installed, and whether a driver is there."""

    def describe(*installed, gpu, fault=None):
        node = tmp_path / "node"
        node.touch() if gpu else node.unlink(missing_ok=True)
        monkeypatch.setattr(engine, "_GPU_NODES", (str(node),))
        monkeypatch.setattr(
            engine, "find_spec", lambda name: object() if name in installed else None
        )
        monkeypatch.setattr(_torch_device, "opening_fault", lambda _device: fault)

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


def test_a_gpu_that_cannot_be_opened_leaves_the_cpu_to_openvino_and_is_said(machine, caplog):
    machine("torch", "openvino", gpu=True, fault="the driver is too old")
    assert choose("auto") == "openvino"
    assert "stays unused: the driver is too old" in caplog.text


def test_a_gpu_that_cannot_be_opened_is_an_error_where_it_is_asked_for(machine):
    machine("torch", "openvino", gpu=True, fault="the driver is too old")
    assert choose("cuda") == "torch"
    with pytest.raises(DeviceError, match="not available: the driver is too old"):
        choose_device("cuda")


@pytest.fixture
def two_cards(monkeypatch):
    uuids = ["2f1c0000-aa", "2f1d0000-bb"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=uuids[index])
    )
    monkeypatch.setattr(_torch_device, "opening_fault", lambda _device: None)


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize("uuid", ["GPU-2f1d0000-bb", "GPU-2f1d", "GPU-2F1D0000-BB"])
def test_a_gpu_is_found_by_its_uuid(uuid):
    assert choose_device(uuid) == torch.device("cuda", 1)


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize("uuid", ["GPU-2f1", "GPU-dead", "MIG-2f1"])
def test_a_uuid_that_names_none_or_several_is_refused_with_those_that_are_there(uuid):
    with pytest.raises(DeviceError, match="2f1c0000-aa, ...-2f1d0000-bb"):
        choose_device(uuid)


@pytest.mark.usefixtures("two_cards")
def test_a_mig_instance_is_named_to_cuda_before_it_starts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert choose_device("MIG-2f1c") == torch.device("cuda", 0)
    assert os.environ.pop("CUDA_VISIBLE_DEVICES") == "MIG-2f1c"


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize("uuid", ["MIG-77aa", "MIG-GPU-2f1d0000-bb/1/0"])
def test_a_mig_instance_that_is_all_cuda_shows_is_taken_whatever_it_calls_itself(monkeypatch, uuid):
    """Some drivers tell the UUID of the GPU that it is part of."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", uuid)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device(uuid) == torch.device("cuda", 0)
    with pytest.raises(DeviceError, match="names none of the visible CUDA devices"):
        choose_device("MIG-dead")


def old_driver():
    warnings.warn(
        "CUDA initialization: The NVIDIA driver on your system is too old (found version 12020). "
        "Please update your GPU driver",
        stacklevel=1,
    )
    return False


def test_a_driver_that_is_too_old_is_named_in_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", old_driver)
    monkeypatch.setattr(_torch_device, "installed_driver", lambda: None)
    fault = opening_fault(torch.device("cuda", 0))
    assert fault == "The NVIDIA driver on your system is too old (found version 12020)"


@pytest.mark.parametrize(
    ("driver", "cuda", "needed"),
    [
        ("470.82.01", "12.6", "525.60.13"),
        ("525.60.11", "12.6", "525.60.13"),
        ("525.60.13", "12.6", None),
        ("575.57.08", "13.0", "580.65.06"),
        ("580.65.06", "13.0", None),
        ("9.1", "11.8", "450.80.02"),
        ("470.82.01", "99.0", None),
    ],
)
def test_a_driver_that_is_too_old_is_told_which_one_is_needed(driver, cuda, needed, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(_torch_device, "installed_driver", lambda: driver)
    fault = opening_fault(torch.device("cuda", 0))
    assert fault == (
        f"the NVIDIA driver {driver} is too old: this PyTorch is built for CUDA {cuda}, "
        f"which needs driver {needed} or later"
        if needed
        else "no driver or no GPU is visible"
    )


def test_the_driver_s_version_is_asked_of_nvml(monkeypatch):
    asked = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: asked.append("init"))
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: b"535.104.05")
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: asked.append("shutdown"))
    assert installed_driver() == "535.104.05"
    assert asked == ["init", "shutdown"]


def test_where_nvml_is_absent_no_driver_is_known(monkeypatch):
    def absent():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert installed_driver() is None


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80"], True),
        ((7, 0), ["sm_75", "sm_80", "sm_90", "compute_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((10, 3), ["sm_100a"], False),
    ],
)
def test_a_gpu_without_kernels_is_named(monkeypatch, capability, built_for, runs):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, value in {
        "is_available": True,
        "device_count": 1,
        "get_device_capability": capability,
        "get_device_name": "a card",
        "get_arch_list": built_for,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    opened = []
    monkeypatch.setattr(torch, "ones", lambda *_, **__: opened.append(1) or torch.zeros(1))
    fault = opening_fault(torch.device("cuda", 0))
    assert (fault is None) == runs == bool(opened)
    assert runs or f"sm_{capability[0]}{capability[1]}" in fault


def test_a_gpu_that_stays_unused_is_said(machine, caplog):
    machine("openvino", gpu=True)
    choose("auto")
    assert "stays unused" in caplog.text


@pytest.mark.parametrize(("visible", "said"), [("all", True), ("none", False), (None, False)])
def test_a_container_for_a_gpu_that_has_none_says_so(machine, caplog, monkeypatch, visible, said):
    machine("torch", "openvino", gpu=False)
    monkeypatch.delenv("NVIDIA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", visible)
    assert choose("auto") == "openvino"
    assert ("run it with --gpus" in caplog.text) == said


def test_cuda_without_torch_is_an_error_and_never_the_cpu(machine):
    machine("openvino", gpu=True)
    with pytest.raises(DeviceError, match="needs torch"):
        choose("cuda")


def test_an_engine_whose_package_is_not_installed_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "flarekit.engine.torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 4, 4))
    networks = engine.Networks(build=list, channels=1, identity="toy")
    with pytest.raises(UsageError, match=r"'torch' needs torch, which is not installed \(pip inst"):
        engine.create("torch", networks, grid, class_count=2)
