"""Which half precisions a network may be computed in, and what happens where it may not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flarekit.core.errors import DeviceError
from flarekit.core.grid import Grid
from flarekit.core.nifti import read_nifti
from flarekit.core.spec import read_spec
from flarekit.engine import Networks
from flarekit.engine import torch as torch_engine
from flarekit.engine._torch_device import choose_precision, wider_precision
from flarekit.engine._torch_networks import placed
from flarekit.engine._window import WindowEngine
from flarekit.engine.torch import TorchEngine
from flarekit.phantom import save_phantom
from flarekit.preprocess import prepare
from flarekit.segmentation.predictors import find_predictor, networks_of
from tests.processor import AVX2_ONLY, WITH_AVX512, needs_fp16

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights"
SHIPPED = sorted(path.parent for path in WEIGHTS.glob("**/predictor.toml"))  # locators, too
SLICES = 4  # of a 2D network


@pytest.fixture
def gpu(monkeypatch):
    """Return a function that pretends a CUDA device of some compute capability."""

    def pretend(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "a card")
        return torch.device("cuda", 0)

    return pretend


@pytest.mark.parametrize(
    ("capability", "halves", "chosen"),
    [
        ((9, 0), ("fp16", "bf16"), "fp16"),
        ((7, 5), ("fp16", "bf16"), "fp16"),
        ((9, 0), ("bf16",), "bf16"),
        ((8, 0), ("bf16",), "bf16"),
        ((7, 5), ("bf16",), "fp32"),  # its bf16 is emulated
        ((9, 0), (), "fp32"),
    ],
)
def test_auto_is_the_fastest_that_the_network_is_finite_in(gpu, capability, halves, chosen):
    assert choose_precision("auto", gpu(capability), halves) == chosen


def test_auto_on_a_cpu_is_bf16_only_for_networks_that_are_finite_in_it(monkeypatch):
    monkeypatch.setattr("flarekit.engine._torch_device.cpu_has_bf16", lambda: True)
    assert choose_precision("auto", CPU) == "bf16"
    assert choose_precision("auto", CPU, ("fp16",)) == "fp32"


@pytest.mark.parametrize("engine", ["openvino", "torch"])
@pytest.mark.parametrize(
    ("processor", "computes_in"), [(AVX2_ONLY, ["fp32"]), (WITH_AVX512, ["bf16", "fp32"])]
)
def test_a_cpu_refuses_what_it_does_not_compute_in_and_says_what_it_does(
    monkeypatch, engine, processor, computes_in
):
    module = pytest.importorskip(f"flarekit.engine.{engine}")
    monkeypatch.setattr("flarekit.engine._cpu._cpu_info", lambda: processor)

    def chosen(precision):
        if engine == "openvino":
            return module.choose_precision(precision, ("bf16",))
        return module.choose_precision(precision, CPU, ("bf16",))

    for precision in ("fp16", "bf16", "fp32"):
        if precision in computes_in:
            assert chosen(precision) == precision
        else:
            with pytest.raises(DeviceError, match=f"{precision} is not available") as refused:
                chosen(precision)
            assert refused.value.fix == f"use --precision {' or '.join(computes_in)}"
    assert chosen("auto") == "fp32"


def test_bf16_that_is_emulated_is_refused(gpu):
    with pytest.raises(DeviceError, match="bf16 is not available on a card"):
        choose_precision("bf16", gpu((7, 5)))


def test_what_overflows_in_fp16_is_computed_in_bf16_or_fp32(gpu):
    assert wider_precision("fp16", gpu((8, 0))) == "bf16"
    assert wider_precision("fp16", gpu((7, 5))) == "fp32"
    assert wider_precision("bf16", gpu((8, 0))) == "fp32"
    assert wider_precision("fp32", gpu((8, 0))) is None


class Overflowing(nn.Module):
    """Two classes; beyond an intensity, what it multiplies is too large for fp16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1, bias=False)
        self.back = nn.Conv3d(2, 2, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([-1e3, 1e3]).view(2, 1, 1, 1, 1))
            self.back.weight.copy_(torch.eye(2).view(2, 2, 1, 1, 1) * 1e-3)

    def forward(self, image):
        return self.back(self.conv(image))


def engine_of(network, precision, tile=(4, 8, 8), count=2):
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=tile)
    return TorchEngine([network], grid, class_count=count, device=CPU, precision=precision)


@needs_fp16
def test_tiles_that_are_not_finite_are_run_again_in_a_wider_precision_and_that_is_said(caplog):
    image = np.random.default_rng(0).normal(size=(1, 12, 16, 8)).astype(np.float32)
    image[:, 8:] *= 1000
    sweep_notes, classes = run(engine_of(Overflowing(), "fp16"), image)
    np.testing.assert_array_equal(classes, image[0] > 0)
    assert [note for note in sweep_notes if "not finite in fp16" in note]
    assert "not finite in fp16" in caplog.text


@needs_fp16
def test_a_finite_network_stays_in_fp16():
    image = np.random.default_rng(0).normal(size=(1, 12, 16, 8)).astype(np.float32)
    notes, classes = run(engine_of(Overflowing(), "fp16"), image)
    np.testing.assert_array_equal(classes, image[0] > 0)
    assert not notes


def test_asking_for_a_precision_that_the_network_overflows_in_is_said(caplog, monkeypatch):
    monkeypatch.setattr("flarekit.engine._cpu._cpu_info", lambda: WITH_AVX512)
    networks = Networks(
        build=lambda: [Overflowing()], channels=1, identity="toy", half_precisions=()
    )
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 8, 8))
    torch_engine.create(networks, grid, class_count=2, device="cpu", precision="bf16")
    assert "not finite in bf16" in caplog.text


def run(compute: WindowEngine, image_CZYX):
    """Return what had to be done otherwise, and the classes."""
    sweep = compute.sweep(image_CZYX)
    classes = np.concatenate([slab.classes() for slab in sweep])
    return sweep.notes, classes


def middle_tile(scans, spec):
    """Return the tile in the middle of a prepared scan, as the network takes it."""
    tensor_CZYX = prepare([read_nifti(scan) for scan in scans], spec).tensor_CZYX
    depth, height, width = spec.grid.tile_ZYX
    size = (depth if depth > 1 else SLICES, height, width)
    starts = [max(0, (n - t) // 2) for n, t in zip(tensor_CZYX.shape[1:], size, strict=True)]
    box = tuple(slice(start, start + t) for start, t in zip(starts, size, strict=True))
    tile = tensor_CZYX[(slice(None), *box)]
    missing = [(0, t - n) for n, t in zip(tile.shape[1:], size, strict=True)]
    tile = torch.from_numpy(np.pad(tile, [(0, 0), *missing], mode="edge"))
    return tile[None] if depth > 1 else tile.transpose(0, 1).contiguous()


def logits_in(network, tile, precision, *, flat):
    """Return the logits that the engine would get on a device."""
    once, layout = placed(network, CPU, precision, flat=flat)
    half = torch_engine.DTYPES[precision]
    with torch.inference_mode(), torch.autocast("cpu", half, enabled=precision != "fp32"):
        return once(tile.contiguous(memory_format=layout)).float()


def check_half_precisions(folder, scans):
    predictor = find_predictor(str(folder))
    spec = predictor.spec.for_mode("fast")
    (network,) = networks_of(predictor).build()
    network.eval().requires_grad_(requires_grad=False)
    tile, flat = middle_tile(scans, spec), spec.grid.tile_ZYX[0] == 1
    exact = logits_in(network, tile, "fp32", flat=flat)
    for half in spec.half_precisions:
        logits = logits_in(network, tile, half, flat=flat)
        assert bool(logits.isfinite().all()), half
        assert float((logits.argmax(1) == exact.argmax(1)).float().mean()) >= 0.995, half


def real_scans(spec, shared):
    data = shared / "data"
    if spec.convention == "autopet":
        return sorted((data / "Dataset002_PETCT" / "imagesTr").glob("*_000[01].nii.gz"))[:2]
    if spec.channels[0].name == "T1":
        return [data / "Dataset004_SarcomaMR" / "imagesTr" / "STS_008_0000.nii.gz"]
    if spec.convention == "uls23":
        return [data / "lesion_vois" / "R01-001_uls23_ct.nii.gz"]
    return [data / "cases" / "CRLM1004_0000.nii.gz"]


@pytest.mark.data
@needs_fp16
@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: str(folder.relative_to(WEIGHTS)))
def test_shipped_networks_are_finite_and_right_in_their_half_precisions(folder, shared):
    check_half_precisions(folder, real_scans(read_spec(folder).spec, shared))


@pytest.mark.slow
@needs_fp16
@pytest.mark.parametrize(
    "folder",
    [f for f in SHIPPED if read_spec(f).spec.convention == "flare"],
    ids=lambda folder: str(folder.relative_to(WEIGHTS)),
)
def test_they_are_on_phantoms(folder, tmp_path):
    save_phantom(3, scan=tmp_path / "p_0000.nii.gz", labels=tmp_path / "truth.nii.gz")
    check_half_precisions(folder, [tmp_path / "p_0000.nii.gz"])
