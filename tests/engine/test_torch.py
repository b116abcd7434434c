from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flarekit import engine
from flarekit.core.errors import DeviceError, PredictorError, UsageError
from flarekit.core.grid import Grid
from flarekit.engine import Networks
from flarekit.engine._tiles import gaussian_weights, tile_starts
from flarekit.engine._torch_sums import TorchSums
from flarekit.engine.torch import choose_device
from flarekit.models.selective_scan import SelectiveScan
from tests.processor import WITH_AVX512

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class NearestClass(nn.Module):
    """Class k wins where the intensity is nearest to k: the right answer is known."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        values = torch.arange(self.count, device=image.device, dtype=image.dtype)
        values = values.view(1, -1, *[1] * (image.ndim - 2))
        return -((image[:, :1] - values) ** 2)


def make_engine(
    *networks, tile, count, step=0.5, device="cpu", precision="fp32", mirror=(), sums="fp32"
):
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=tile, step=step, mirror_axes=mirror, sums=sums)
    return engine.create(
        "torch",
        Networks(build=lambda: networks, channels=1, identity="toy"),
        grid,
        class_count=count,
        device=device,
        precision=precision,
    )


def silent(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tile", [(4, 8, 8), (1, 8, 8), (64, 64, 64), (1, 64, 64)])
@pytest.mark.parametrize("shape", [(9, 20, 17), (1, 1, 1), (4, 8, 8), (3, 40, 5)])
def test_every_voxel_gets_its_class_whatever_the_shape(device, tile, shape):
    truth = np.random.default_rng(0).integers(0, 5, shape)
    classes = make_engine(NearestClass(5), tile=tile, count=5, device=device).predict(
        truth[None].astype(np.float32), silent
    )
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, truth)


def weighted_mean(network, image_CZYX, tile, step):
    """Add all tiles up in whole volumes, as the textbook does."""
    shape = image_CZYX.shape[1:]
    weights = torch.from_numpy(gaussian_weights(tile))
    total, norm = torch.zeros(3, *shape), torch.zeros(shape)
    starts = [tile_starts(n, t, step) for n, t in zip(shape, tile, strict=True)]
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                box = (slice(z, z + tile[0]), slice(y, y + tile[1]), slice(x, x + tile[2]))
                part = torch.from_numpy(image_CZYX[(slice(None), *box)])[None]
                total[(slice(None), *box)] += network(part)[0] * weights
                norm[box] += weights
    return (total / norm).argmax(0).numpy()


@pytest.mark.long
@settings(deadline=None, max_examples=20)
@given(st.integers(6, 20), st.integers(8, 20), st.integers(8, 20), st.sampled_from([0.3, 0.5, 1.0]))
def test_the_rolling_slab_decides_like_whole_accumulators(z, y, x, step):
    torch.manual_seed(z)
    network = nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)
    image = np.random.default_rng(x).normal(size=(2, z, y, x)).astype(np.float32)
    ours = make_engine(network, tile=(6, 8, 8), count=3, step=step).predict(image, silent)
    reference = weighted_mean(network, image, (6, 8, 8), step)
    assert (ours != reference).mean() < 1e-3  # ties fall either way


def test_logits_are_the_weighted_mean_of_all_tiles():
    torch.manual_seed(1)
    network = nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)
    image = np.random.default_rng(2).normal(size=(2, 9, 13, 20)).astype(np.float32)
    logits = make_engine(network, tile=(6, 8, 8), count=3).logits(image, silent)
    assert logits.shape == (3, 9, 13, 20)
    assert (logits.argmax(0) != weighted_mean(network, image, (6, 8, 8), 0.5)).mean() < 1e-3
    one = make_engine(network, tile=(9, 13, 20), count=3).logits(image, silent)
    np.testing.assert_allclose(one, network(torch.from_numpy(image)[None])[0], atol=1e-5)


def test_sums_in_fp16_are_nearly_those_in_fp32():
    torch.manual_seed(1)
    network = nn.Conv3d(1, 3, 3, padding=1).requires_grad_(False)
    image = np.random.default_rng(2).normal(size=(1, 40, 50, 60)).astype(np.float32)
    exact = make_engine(network, tile=(16, 32, 32), count=3).logits(image, silent)
    half = make_engine(network, tile=(16, 32, 32), count=3, sums="fp16").logits(image, silent)
    inner = (slice(None), slice(4, -4), slice(8, -8), slice(8, -8))  # weights vanish in corners
    # at most 8 tiles overlap, each addition rounds to 11 bits
    bound = 8 * 2**-11 * np.abs(exact).max()
    np.testing.assert_allclose(half[inner], exact[inner], rtol=0, atol=bound)
    assert not np.array_equal(half, exact)


def test_several_networks_count_equally():
    torch.manual_seed(1)
    networks = [nn.Conv3d(1, 2, 1).requires_grad_(False) for _ in range(3)]
    image = np.random.default_rng(2).normal(size=(1, 4, 4, 4)).astype(np.float32)
    together = make_engine(*networks, tile=(4, 4, 4), count=2).logits(image, silent)
    alone = [make_engine(n, tile=(4, 4, 4), count=2).logits(image, silent) for n in networks]
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-5)


@pytest.mark.parametrize("tile", [(4, 6, 8), (1, 6, 8)])
def test_mirroring_averages_over_every_combination_of_flips(tile):
    torch.manual_seed(1)
    conv = nn.Conv2d if tile[0] == 1 else nn.Conv3d
    network = conv(1, 2, 3, padding=1).requires_grad_(False)
    image = np.random.default_rng(2).normal(size=(1, 4, 6, 8)).astype(np.float32)
    mirrored = make_engine(network, tile=tile, count=2, mirror=(1, 2)).logits(image, silent)
    plain = make_engine(network, tile=tile, count=2)
    flips = [(), (2,), (3,), (2, 3)]
    expected = [np.flip(plain.logits(np.flip(image, f).copy(), silent), f) for f in flips]
    np.testing.assert_allclose(mirrored, np.mean(expected, axis=0), atol=1e-5)


def test_progress_counts_up_to_the_number_of_tiles():
    calls = []
    network = make_engine(NearestClass(2), tile=(4, 8, 8), count=2)
    network.predict(
        np.zeros((1, 8, 16, 8), np.float32), lambda done, total: calls.append((done, total))
    )
    assert [done for done, _ in calls] == list(range(1, 10))
    assert {total for _, total in calls} == {9}


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_keeps_nearly_every_decision(device, monkeypatch):
    monkeypatch.setattr("flarekit.engine._cpu._cpu_info", lambda: WITH_AVX512)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 3, 1))
    image = np.random.default_rng(1).normal(size=(1, 16, 16, 16)).astype(np.float32)
    exact, half = (
        make_engine(network, tile=(16, 16, 16), count=3, device=device, precision=p).predict(
            image, silent
        )
        for p in ("fp32", "bf16")
    )
    assert (exact == half).mean() > 0.97


def test_facts_never_say_auto():
    facts = make_engine(
        NearestClass(2), tile=(4, 4, 4), count=2, device="auto", precision="auto"
    ).facts
    assert facts.device in ("cpu", "cuda:0")
    assert facts.precision in ("fp32", "bf16", "fp16")
    assert facts.device_name


def test_facts_name_what_computes_selective_scans():
    plain = make_engine(NearestClass(3), tile=(4, 8, 8), count=3)
    scanning = NearestClass(3)
    scanning.scan = SelectiveScan()
    named = make_engine(scanning, tile=(4, 8, 8), count=3)
    for compute in (plain, named):
        compute.predict(np.zeros((1, 4, 8, 8), np.float32), silent)
    assert plain.facts.scan is None
    assert named.facts.scan == "chunked"


@pytest.mark.parametrize("request_", ["gpu", "cuda:", "cuda:x", "CPU", "", "mps"])
def test_a_device_that_is_no_device_is_refused(request_):
    with pytest.raises(DeviceError, match="no device"):
        choose_device(request_)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("request_", ["cuda", "cuda:0", "cuda:7"])
def test_a_missing_gpu_is_an_error_and_never_the_cpu(request_):
    with pytest.raises(DeviceError, match="not available"):
        choose_device(request_)


@pytest.mark.gpu
def test_a_gpu_number_that_does_not_exist_is_refused():
    with pytest.raises(DeviceError, match="does not exist"):
        choose_device("cuda:99")


def test_a_network_with_other_classes_than_the_labels_is_refused():
    with pytest.raises(PredictorError, match="5 classes, the labels need 3"):
        make_engine(NearestClass(5), tile=(4, 4, 4), count=3).predict(
            np.zeros((1, 4, 4, 4), np.float32), silent
        )


def test_output_that_is_not_finite_is_refused():
    class Overflown(NearestClass):
        def forward(self, image):
            return super().forward(image) * float("nan")

    with pytest.raises(DeviceError, match="not finite"):
        make_engine(Overflown(3), tile=(4, 4, 4), count=3).predict(
            np.zeros((1, 4, 4, 4), np.float32), silent
        )


def test_an_unknown_engine_is_refused():
    with pytest.raises(UsageError, match="no engine"):
        engine.create(
            "tensorflow",
            lambda: [NearestClass(2)],
            Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 4, 4)),
            class_count=2,
        )


class Hungry(NearestClass):
    """Runs out of memory above so many tiles at once, or the first few times."""

    def __init__(self, most: int, times: int = 10**9) -> None:
        super().__init__(3)
        self.most, self.times = most, times

    def forward(self, image):
        if len(image) > self.most and self.times > 0:
            self.times -= 1
            raise torch.OutOfMemoryError("not enough")
        return super().forward(image)


def hungry_engine(network, device, batch):
    compute = make_engine(network, tile=(4, 8, 8), count=3, device=device)
    compute._tiles_at_once = lambda: batch
    return compute


@pytest.mark.parametrize("device", DEVICES)
def test_batches_are_halved_until_they_fit_and_the_masks_are_the_same(device):
    truth = np.random.default_rng(0).integers(0, 3, (9, 20, 17))
    compute = hungry_engine(Hungry(most=2), device, batch=8)
    for _ in range(2):  # a second sweep begins anew
        sweep = compute.sweep(truth[None].astype(np.float32))
        classes = np.concatenate([slab.classes() for slab in sweep])
        np.testing.assert_array_equal(classes, truth)
        assert [note.split(":")[1] for note in sweep.notes] == [
            " batches of 4 tiles from here on",
            " batches of 2 tiles from here on",
        ]


@pytest.mark.parametrize("batch", [1, 2, 3, 50])
def test_batches_in_flight_change_no_voxel(batch):
    truth = np.random.default_rng(0).integers(0, 3, (9, 40, 33))
    compute = hungry_engine(Hungry(most=10**9), "cpu", batch)
    compute._in_flight = 1
    sweep = compute.sweep(truth[None].astype(np.float32))
    np.testing.assert_array_equal(np.concatenate([slab.classes() for slab in sweep]), truth)
    assert sweep.done == compute.count_tiles(truth.shape, 0.5)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_memory_that_runs_out_with_a_batch_in_flight_loses_no_tile(times):
    truth = np.random.default_rng(0).integers(0, 3, (9, 40, 33))
    compute = hungry_engine(Hungry(most=2, times=times), "cpu", batch=4)
    compute._in_flight = 1
    sweep = compute.sweep(truth[None].astype(np.float32))
    np.testing.assert_array_equal(np.concatenate([slab.classes() for slab in sweep]), truth)
    assert sweep.done == compute.count_tiles(truth.shape, 0.5)


class NotFiniteInHalf(NearestClass):
    """Gives NaN for some images unless it is computed in float32."""

    def forward(self, image):
        logits = super().forward(image)
        if torch.is_autocast_enabled("cpu"):
            logits = torch.where(image.amax() > 1.5, torch.nan, logits)
        return logits


def test_batches_in_flight_that_are_not_finite_are_run_again(monkeypatch):
    monkeypatch.setattr("flarekit.engine._cpu._cpu_info", lambda: WITH_AVX512)
    truth = np.random.default_rng(0).integers(0, 3, (9, 40, 33))
    compute = make_engine(NotFiniteInHalf(3), tile=(4, 8, 8), count=3, precision="bf16")
    compute._in_flight = 1
    sweep = compute.sweep(truth[None].astype(np.float32))
    np.testing.assert_array_equal(np.concatenate([slab.classes() for slab in sweep]), truth)
    assert sweep.notes == ["the network's output was not finite in bf16: fp32 from here on"]


def test_a_case_after_one_that_overflowed_begins_in_the_chosen_precision(monkeypatch):
    monkeypatch.setattr("flarekit.engine._cpu._cpu_info", lambda: WITH_AVX512)
    compute = make_engine(NotFiniteInHalf(3), tile=(4, 8, 8), count=3, precision="bf16")
    for values, notes in ((3, 1), (1, 0)):
        truth = np.random.default_rng(0).integers(0, values, (9, 10, 10))
        sweep = compute.sweep(truth[None].astype(np.float32))
        np.testing.assert_array_equal(np.concatenate([slab.classes() for slab in sweep]), truth)
        assert len(sweep.notes) == notes


def test_a_tile_of_a_2d_network_is_timed_as_it_is_run():
    seen = []

    class Watched(NearestClass):
        def forward(self, image):
            seen.append(tuple(image.shape))
            return super().forward(image)

    compute = make_engine(Watched(3), tile=(1, 8, 8), count=3)
    tile = np.zeros((1, compute.depth_at_once, 8, 8), np.float32)
    assert compute.seconds_per_tile(tile) > 0
    compute.predict(np.zeros((1, 2 * compute.slices_at_once, 8, 8), np.float32), silent)
    assert set(seen) == {(compute.slices_at_once, 1, 8, 8)}


def test_fp32_is_computed_in_fp32_and_not_in_tf32():
    make_engine(NearestClass(3), tile=(4, 8, 8), count=3).predict(
        np.zeros((1, 4, 8, 8), np.float32), silent
    )
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_repeatable_algorithms_are_taken_on_request(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    arguments = {
        "grid": Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 8, 8)),
        "class_count": 3,
        "device": "cpu",
    }
    networks = Networks(build=lambda: [NearestClass(3)], channels=1, identity="toy")
    engine.create("torch", networks, **arguments)
    assert not torch.backends.cudnn.deterministic
    engine.create("torch", networks, **arguments, deterministic=True)
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG")


@pytest.mark.gpu
def test_a_deterministic_run_gives_the_same_bits():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 3, 3, padding=1)
    )
    image = np.random.default_rng(1).normal(size=(1, 32, 48, 48)).astype(np.float32)
    networks = Networks(build=lambda: [network], channels=1, identity="toy")
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(16, 32, 32))
    runs = [
        engine.create(
            "torch", networks, grid, class_count=3, device="cuda", deterministic=True
        ).logits(image, silent)
        for _ in range(3)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


@pytest.mark.gpu
def test_at_last_logits_are_added_up_on_the_host():
    truth = np.random.default_rng(0).integers(0, 3, (9, 20, 17))
    # a blank tile, a batch of two, and a single tile fail
    compute = hungry_engine(Hungry(most=0, times=3), "cuda", batch=2)
    sweep = compute.sweep(truth[None].astype(np.float32))
    classes = np.concatenate([slab.classes() for slab in sweep])
    np.testing.assert_array_equal(classes, truth)
    assert "added up on the host" in sweep.notes[-1]


def test_sums_that_move_to_another_device_go_on_adding_up():
    sums = TorchSums(slab_KZYX=torch.ones(3, 4, 8, 8), weights_ZYX=torch.ones(4, 8, 8))
    sums.to(torch.device("cpu"))
    sums.add(torch.ones(2, 4, 8, 8), (0, 0))
    assert float(sums.slab_KZYX.min()) == 2


def test_no_room_for_a_single_tile_is_an_error_that_says_what_to_do():
    with pytest.raises(DeviceError, match="no room for a single tile"):
        hungry_engine(Hungry(most=0), "cpu", batch=2).predict(
            np.zeros((1, 9, 9, 9), np.float32), silent
        )
