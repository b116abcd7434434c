"""Every shipped predictor on a GPU; the same on the CPU, where that is asked for (`slow`)."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from flarekit import engine
from flarekit.core.nifti import read_nifti
from flarekit.engine._torch_memory import used_mib
from flarekit.engine.torch import TorchEngine
from flarekit.models.selective_scan import BACKENDS, choose_backend
from flarekit.models.selective_scan._proof import fault_of
from flarekit.phantom import save_phantom
from flarekit.preprocess import prepare
from flarekit.segmentation.predictors import (
    find_predictor,
    hash_state,
    networks_of,
    predictor_folders,
)

SHIPPED = [  # a machine may have got only some weights
    folder.name for folder in predictor_folders() if hash_state(find_predictor(str(folder))) == "ok"
]
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.slow),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
LEAST_MIB = 100.0  # that a network's own tensors take


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    save_phantom(3, scan=folder / "scan.nii.gz", labels=folder / "truth.nii.gz")
    return read_nifti(folder / "scan.nii.gz")


def engine_of(name, device, precision="auto", memory_mib=None):
    spec = find_predictor(name).spec.for_mode("fast")
    compute = engine.create(
        "torch",
        networks_of(find_predictor(name)),
        spec.grid,
        class_count=len(spec.class_values),
        device=device,
        precision=precision,
        memory_mib=memory_mib,
    )
    assert isinstance(compute, TorchEngine)
    return compute


def prepared_for(name, scan):
    """Return the middle of a scan as the predictor takes it: a tile and a half along each axis."""
    spec = find_predictor(name).spec.for_mode("fast")
    tensor_CZYX = prepare([scan] * len(spec.channels), spec).tensor_CZYX
    box = [slice(None)]
    for length, tile in zip(tensor_CZYX.shape[1:], spec.grid.tile_ZYX, strict=True):
        wanted = max(8, 3 * tile // 2)
        first = max(0, (length - wanted) // 2)
        box.append(slice(first, first + wanted))
    return np.ascontiguousarray(tensor_CZYX[tuple(box)])


def swept(compute, tensor_CZYX):
    """Return the classes of every voxel, and what had to be done otherwise."""
    sweep = compute.sweep(tensor_CZYX)
    return np.concatenate([slab.classes() for slab in sweep]), sweep.notes


@pytest.fixture(scope="module")
def exact_of(phantom):
    """Return a function that gives a predictor's input and its classes in fp32 on the CPU."""

    @cache
    def computed(name):
        tensor_CZYX = prepared_for(name, phantom)
        return tensor_CZYX, swept(engine_of(name, "cpu", "fp32"), tensor_CZYX)[0]

    return computed


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SHIPPED)
def test_every_predictor_decides_as_in_fp32_on_the_cpu(name, device, exact_of):
    tensor_CZYX, exact = exact_of(name)
    compute = engine_of(name, device)
    classes, notes = swept(compute, tensor_CZYX)
    assert not notes
    assert (classes == exact).mean() >= 0.995
    assert compute.facts.precision in ("bf16", "fp16", "fp32")


@pytest.mark.gpu
@pytest.mark.parametrize("name", SHIPPED)
def test_fp32_on_a_gpu_is_fp32(name, exact_of):
    tensor_CZYX, exact = exact_of(name)
    classes, _ = swept(engine_of(name, "cuda", "fp32"), tensor_CZYX)
    assert (classes == exact).mean() >= 0.9999


@pytest.mark.gpu
def test_fp16_that_overflows_is_computed_again_and_said(exact_of):
    tensor_CZYX, exact = exact_of("mpu_net_liver")
    classes, notes = swept(engine_of("mpu_net_liver", "cuda", "fp16"), tensor_CZYX)
    assert (classes == exact).mean() >= 0.995
    assert len(notes) <= 1  # a phantom's activations may stay within fp16


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["abdomen_ct", "mpu_net_liver", "att_umamba_petct"])
def test_a_gpu_budget_is_kept(name, phantom):
    tensor_CZYX = prepared_for(name, phantom)
    torch.cuda.empty_cache()
    before_mib = used_mib(torch.device("cuda", 0))
    budget_mib = before_mib + 3000.0
    compute = engine_of(name, "cuda", memory_mib=budget_mib)
    most_mib = 0.0
    for slab in compute.sweep(tensor_CZYX):
        slab.classes()
        most_mib = max(most_mib, used_mib(torch.device("cuda", 0)))
    assert before_mib < most_mib <= budget_mib
    compute.release()


@pytest.mark.gpu
def test_a_budget_that_others_use_up_still_gives_the_mask(phantom, caplog):
    tensor_CZYX = prepared_for("abdomen_ct", phantom)
    free, _ = swept(engine_of("abdomen_ct", "cuda"), tensor_CZYX)
    used_up, notes = swept(engine_of("abdomen_ct", "cuda", memory_mib=1.0), tensor_CZYX)
    assert (free == used_up).mean() >= 0.9999
    assert "one tile at a time" in notes[0]
    assert "in use" in caplog.text


@pytest.mark.gpu
def test_memory_that_really_runs_out_moves_the_sums_to_the_host(phantom):
    tensor_CZYX = prepared_for("abdomen_ct", phantom)
    compute = engine_of("abdomen_ct", "cuda")
    free, _ = swept(compute, tensor_CZYX)
    compute.release()
    total = torch.cuda.get_device_properties(0).total_memory
    held = torch.cuda.memory_reserved(0) + LEAST_MIB * 2**20
    try:
        for factor in (4, 2, 1.6):
            extra_mib = factor * compute._tile_mib
            torch.cuda.set_per_process_memory_fraction((held + extra_mib * 2**20) / total, 0)
            capped, _ = swept(compute, tensor_CZYX)
            assert (free == capped).mean() >= 0.9999
            compute.release()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


@pytest.mark.gpu
def test_the_scan_on_a_gpu_has_proved_itself():
    device = torch.device("cuda", 0)
    backend = choose_backend("auto", device)
    assert backend in BACKENDS
    assert fault_of(backend, device) is None
    assert fault_of("chunked", device) is None
