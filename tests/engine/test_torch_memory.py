"""What happens where a device's memory runs out, or others use it: simulated on the CPU."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flarekit.core.errors import DeviceError
from flarekit.core.grid import Grid
from flarekit.engine import _torch_memory, _torch_sums
from flarekit.engine._torch_memory import NoRoom, attempt, cap_memory, is_out_of_memory, used_mib
from flarekit.engine._torch_sums import TorchSums
from flarekit.engine.torch import TorchEngine, batch_size
from tests.engine.test_torch import Hungry, NearestClass

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
MIB = 2**20


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_every_way_of_saying_out_of_memory_is_understood(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")],
)
def test_other_errors_are_raised(error):
    def fails():
        raise error

    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        attempt(fails)


def test_activations_of_a_failed_attempt_are_gone_before_caches_are_emptied():
    held = []

    def fails():
        activation = torch.zeros(8)
        held.append(weakref.ref(activation))
        raise torch.OutOfMemoryError("not enough")

    assert attempt(fails) == NoRoom("not enough")
    assert held[0]() is None


@pytest.fixture
def card(monkeypatch):
    """Return a function that describes a card of 10,000 MiB; what is capped is appended to caps."""
    caps = []

    def describe(*, used, reserved):
        properties = SimpleNamespace(total_memory=10_000 * MIB, uuid="abc")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: reserved * MIB)
        monkeypatch.setattr(
            torch.cuda, "set_per_process_memory_fraction", lambda share, _: caps.append(share)
        )
        monkeypatch.setattr(_torch_memory, "_nvml_used_mib", lambda _: used)
        return caps

    return describe


def test_the_cap_counts_what_nvml_counts(card):
    caps = card(used=1500.0, reserved=300)
    room = cap_memory(CUDA, 4096)
    assert room.mib == 4096 - 1200 - 64
    assert caps == [pytest.approx(room.mib / 10_000)]
    assert room.note is None


def test_a_budget_above_the_card_is_the_card(card):
    caps = card(used=200.0, reserved=200)
    cap_memory(CUDA, 50_000)
    assert caps[0] <= 1


def test_where_others_use_the_budget_the_run_goes_on_with_one_tile_and_says_so(card, caplog):
    caps = card(used=5000.0, reserved=100)
    room = cap_memory(CUDA, 4096)
    assert caps == [1.0]
    assert not room.is_capped
    assert "one tile at a time" in room.note
    assert "4900 MiB of cuda:0 are in use" in caplog.text
    assert batch_size(100.0, room.mib, 1000) == 1


@pytest.mark.long
def test_a_tile_that_the_budget_has_no_room_for_is_run_all_the_same_and_that_is_said(card):
    caps = card(used=4000.0, reserved=0)
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 8, 8))
    truth = np.random.default_rng(0).integers(0, 3, (9, 20, 17))
    network = Hungry(most=0, times=1)
    compute = TorchEngine([network], grid, class_count=3, device=CPU, precision="fp32")
    compute._room = cap_memory(CUDA, 4096)
    sweep = compute.sweep(truth[None].astype(np.float32))
    classes = [slab.classes() for slab in sweep]
    np.testing.assert_array_equal(np.concatenate(classes), truth)
    assert caps[-1] == 1.0
    assert ["it takes more" in note for note in sweep.notes] == [True]


def test_without_nvml_the_runtime_is_asked(card, monkeypatch):
    card(used=None, reserved=0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (7000 * MIB, 10_000 * MIB))
    assert used_mib(CUDA) == 3000


@pytest.mark.parametrize("kind", ["GPU", "MIG"])
def test_nvml_is_asked_for_the_device_that_pytorch_uses(monkeypatch, kind):
    import pynvml

    def handle_of(uuid):
        if uuid != f"{kind}-abc".encode():
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return "handle"

    properties = SimpleNamespace(total_memory=MIB, uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle_of)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda _: SimpleNamespace(used=700 * MIB)
    )
    assert used_mib(CUDA) == 700


def test_batches_fit_into_the_room_and_are_no_larger_than_keeps_a_gpu_busy():
    assert batch_size(tile_mib=300.0, room_mib=3000.0, tile_voxels=2**18) == 2
    assert batch_size(tile_mib=10.0, room_mib=3000.0, tile_voxels=2**18) == 16
    assert batch_size(tile_mib=300.0, room_mib=400.0, tile_voxels=2**18) == 1
    assert batch_size(tile_mib=30.0, room_mib=-5.0, tile_voxels=2**18) == 1


def sums(on_host=False):
    slab = torch.zeros(3, 4, 8, 8)
    return TorchSums(slab, torch.rand(4, 8, 8) + 1, notes=[], on_host=on_host)


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("step", ["add", "classes", "logits", "finite"])
def test_sums_go_on_where_memory_runs_out_in_any_of_their_steps(monkeypatch, failures, step):
    torch.manual_seed(0)
    one, other = sums(), sums(on_host=True)
    other.weights_ZYX = one.weights_ZYX
    logits = torch.randn(2, 4, 8, 8)
    left = [0]

    def failing(work):
        if left[0] > 0:
            left[0] -= 1
            return NoRoom("not enough")
        return attempt(work)

    monkeypatch.setattr(_torch_sums, "attempt", failing)
    for name, arguments in {
        "add": (logits, (0, 0)),
        "classes": (4, (8, 8)),
        "logits": (4, (8, 8)),
        "finite": (4,),
    }.items():
        left[0] = failures if name == step else 0
        np.testing.assert_array_equal(
            getattr(one, name)(*arguments), getattr(other, name)(*arguments)
        )
    assert one.on_host == (failures == 2)
    assert bool(one.notes) == (failures == 2)


def test_a_slab_that_does_not_fit_is_made_on_the_host(monkeypatch):
    monkeypatch.setattr(_torch_sums, "attempt", lambda _work: NoRoom("not enough"))
    made = TorchSums.zeros((3, 4, 8, 8), torch.ones(4, 8, 8), CPU, [])
    assert made.on_host
    assert made.slab_KZYX.device == CPU
    assert "added up on the host" in made.notes[0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_moving_on_keeps_the_slices_above(count):
    moved = sums()
    moved.slab_KZYX = torch.arange(4.0).view(1, 4, 1, 1).repeat(3, 1, 8, 8)
    moved.move_on(count)
    kept = list(range(count, 4))
    assert moved.slab_KZYX[0, :, 0, 0].tolist() == kept + [0] * (4 - len(kept))


def test_weights_that_do_not_fit_are_an_error_that_says_so():
    class Heavy(NearestClass):
        def to(self, *_, **__):
            raise torch.OutOfMemoryError("not enough")

    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 8, 8))
    compute = TorchEngine([Heavy(3)], grid, class_count=3, device=CPU, precision="bf16")
    with pytest.raises(DeviceError, match="no room for the weights"):
        compute.predict(np.zeros((1, 4, 8, 8), np.float32), lambda *_: None)
