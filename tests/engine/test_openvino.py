from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from flarekit import engine
from flarekit.core.errors import DeviceError, PredictorError
from flarekit.core.grid import Grid
from flarekit.engine import Effort, Networks
from flarekit.engine.openvino import compile_networks, is_compiled
from flarekit.models import without_auxiliary
from tests.processor import needs_bf16

pytest.importorskip("openvino")


def network_of(seed=0, flat=False, classes=3):
    torch.manual_seed(seed)
    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if flat else (nn.Conv3d, nn.InstanceNorm3d)
    return nn.Sequential(conv(2, 8, 3, padding=1), norm(8), nn.LeakyReLU(), conv(8, classes, 1))


def make(
    name, networks, tile, tmp_path=None, precision="fp32", mirror=(), classes=3, *, later=False
):
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=tile, mirror_axes=mirror)
    described = Networks(
        build=lambda: networks,
        channels=2,
        identity="toy",
        folders=() if tmp_path is None else (tmp_path,),
        keep=tmp_path,
    )
    return engine.create(
        name, described, grid, class_count=classes, device="cpu", precision=precision, later=later
    )


def image_of(shape=(10, 20, 17)):
    return np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)


def silent(done, total):
    pass


def logits_of(compute, image, **how):
    return np.concatenate([slab.logits().copy() for slab in compute.sweep(image, **how)], axis=1)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("tile", "count", "mirror"),
    [
        ((4, 8, 8), 1, ()),
        ((4, 8, 8), 2, (0, 2)),
        ((16, 32, 32), 1, ()),
        ((1, 8, 8), 1, (1, 2)),
        pytest.param((4, 8, 8), 1, (1, 2), marks=pytest.mark.long),
        pytest.param((16, 32, 32), 1, (1, 2), marks=pytest.mark.long),
        pytest.param((16, 32, 32), 2, (0, 2), marks=pytest.mark.long),
        pytest.param((1, 8, 8), 1, (), marks=pytest.mark.long),
        pytest.param((1, 8, 8), 2, (0, 2), marks=pytest.mark.long),
    ],
)
def test_logits_are_those_of_torch(tile, count, mirror):
    networks = [network_of(seed, flat=tile[0] == 1) for seed in range(count)]
    ours, theirs = (
        logits_of(make(name, networks, tile, mirror=mirror), image_of())
        for name in ("openvino", "torch")
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("groups", "classes"),
    [
        pytest.param((), 2, marks=pytest.mark.long),
        pytest.param(((0, 2),), 3, marks=pytest.mark.long),
        (((2,), (0, 1)), 4),
    ],
)
def test_auxiliary_classes_are_merged_as_in_torch(groups, classes):
    networks = [without_auxiliary(network_of(classes=5), 3, groups)]
    ours, theirs = (
        logits_of(make(name, networks, (4, 8, 8), classes=classes), image_of())
        for name in ("openvino", "torch")
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@needs_bf16
def test_bf16_keeps_nearly_every_decision():
    classes = [
        make("openvino", [network_of()], (8, 16, 16), precision=p).predict(image_of(), silent)
        for p in ("fp32", "bf16")
    ]
    assert (classes[0] == classes[1]).mean() > 0.97


def test_two_sweeps_of_one_engine_are_the_same_even_after_one_that_was_left():
    compute = make("openvino", [network_of()], (4, 8, 8))
    first = logits_of(compute, image_of())
    for slab in compute.sweep(image_of(), effort=Effort(step=0.25)):
        assert slab.count
        break
    np.testing.assert_array_equal(logits_of(compute, image_of()), first)


@pytest.fixture(scope="module")
def stored_artefact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    return folder, logits_of(make("openvino", [network_of()], (4, 8, 8), folder), image_of())


@pytest.fixture
def artefact(stored_artefact, tmp_path):
    """Put a compiled network into this test's folder; return what it says of an image."""
    folder, logits = stored_artefact
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return logits


def test_a_compiled_network_is_found_again_without_the_one_it_was_made_from(tmp_path):
    first = make("openvino", [network_of()], (4, 8, 8), tmp_path)
    assert first.one_time_s > 0
    again = make("openvino", None, (4, 8, 8), tmp_path)
    assert again.one_time_s == 0
    np.testing.assert_array_equal(logits_of(again, image_of()), logits_of(first, image_of()))


@pytest.mark.parametrize("asked", [True, False])
def test_a_compiled_network_is_loaded_when_it_is_first_run_or_asked_to(artefact, tmp_path, asked):
    compute = make("openvino", None, (4, 8, 8), tmp_path, later=True)
    shutil.move(tmp_path, gone := tmp_path.with_name("gone"))
    assert compute.facts.precision == "fp32"
    with pytest.raises(TypeError):  # nothing is there, nor what it could be made from
        compute.load()
    shutil.move(gone, tmp_path)
    if asked:
        compute.load()
        shutil.move(tmp_path, gone)
    np.testing.assert_array_equal(logits_of(compute, image_of()), artefact)


def test_a_network_that_has_to_be_compiled_is_so_before_it_is_run():
    assert make("openvino", [network_of()], (4, 8, 8), later=True).one_time_s > 0


def files_of(tmp_path):
    return {path.suffix: path for path in tmp_path.glob("*/*") if path.is_file()}


@pytest.mark.quick(3)
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
@pytest.mark.parametrize("suffixes", [(".blob",), (".blob", ".bin"), (".json",), (".blob", ".xml")])
def test_a_damaged_artefact_is_made_again(artefact, tmp_path, caplog, damage, suffixes):
    caplog.set_level(logging.WARNING, logger="flarekit")
    files = files_of(tmp_path)
    for suffix in suffixes:
        content = bytearray(files[suffix].read_bytes())
        content[len(content) // 2] ^= 255
        if damage == "remove":
            files[suffix].unlink()
        else:
            files[suffix].write_bytes(
                content[: len(content) // 2] if damage == "truncate" else content
            )
    again = make("openvino", [network_of()], (4, 8, 8), tmp_path)
    np.testing.assert_allclose(logits_of(again, image_of()), artefact, atol=1e-5)
    if not (damage == "remove" and suffixes == (".json",)):  # as if nothing had ever been there
        assert "made again" in caplog.text
    make("openvino", None, (4, 8, 8), tmp_path)  # whole again


@pytest.mark.usefixtures("artefact")
def test_another_processor_compiles_from_the_portable_network(tmp_path, monkeypatch):
    monkeypatch.setattr("flarekit.engine._compiled.cpu_capability", lambda: "another")
    make("openvino", None, (4, 8, 8), tmp_path)
    assert len(list(tmp_path.glob("*/*.blob"))) == 2


@pytest.mark.parametrize("portable", [True, False])
def test_what_is_compiled_ahead_is_there_and_portable_where_that_is_wanted(tmp_path, portable):
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 8, 8))
    described = Networks(
        build=lambda: [network_of()], channels=2, identity="toy", folders=(tmp_path,), keep=tmp_path
    )
    assert not is_compiled(described, grid, "fp32")
    assert compile_networks(described, grid, "fp32", portable=portable) == "all"
    assert is_compiled(described, grid, "fp32")
    assert not is_compiled(described, grid, "bf16")
    other = grid.model_copy(update={"tile_ZYX": (4, 8, 16)})
    assert not is_compiled(described, other, "fp32")
    assert ({".bin", ".xml"} <= set(files_of(tmp_path))) == portable
    make("openvino", None, (4, 8, 8), tmp_path)  # without the network it was made from


@pytest.mark.usefixtures("artefact")
def test_weights_architecture_and_tile_each_have_their_own_artefact(tmp_path):
    make("openvino", [network_of()], (4, 8, 16), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("artefact")
def test_facts_of_an_artefact_count_only_what_was_written(tmp_path):
    files = files_of(tmp_path)
    facts = json.loads(files[".json"].read_text())
    assert set(facts["sha256"]) == {p.name for s, p in files.items() if s != ".json"}
    assert not list(tmp_path.glob("*/.*"))


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    make("openvino", [network_of()], (4, 8, 8), tmp_path / "file")
    assert "not kept" in caplog.text


def test_a_gpu_is_refused():
    grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 4, 4))
    described = Networks(build=list, channels=1, identity="toy")
    with pytest.raises(DeviceError, match="runs on the CPU"):
        engine.create("openvino", described, grid, class_count=2, device="cuda")


def test_fp16_is_refused():
    with pytest.raises(DeviceError, match="fp16"):
        make("openvino", [network_of()], (4, 8, 8), precision="fp16")


def test_a_network_with_other_classes_than_the_labels_is_refused():
    with pytest.raises(PredictorError, match="3 classes, the labels need 5"):
        make("openvino", [network_of()], (4, 8, 8), classes=5)


def test_output_that_is_not_finite_is_refused():
    network = network_of()
    network[3].weight.data.fill_(float("inf"))
    with pytest.raises(DeviceError, match="not finite"):
        make("openvino", [network], (4, 8, 8)).predict(image_of(), silent)


@pytest.mark.long
@pytest.mark.usefixtures("artefact")
def test_neither_torch_nor_telemetry_is_loaded_where_the_network_is_compiled(tmp_path):
    code = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from flarekit import engine
from flarekit.core.grid import Grid
folder = Path({str(tmp_path)!r})
networks = engine.Networks(build=None, channels=2, identity="toy", folders=(folder,))
grid = Grid(spacing_mm_ZYX=(1, 1, 1), tile_ZYX=(4, 8, 8))
compute = engine.create("openvino", networks, grid, class_count=3, precision="fp32")
compute.predict(np.zeros((2, 9, 9, 9), np.float32), lambda done, total: None)
loaded = ("torch", "dynamic_network_architectures", "openvino_telemetry")
print([name for name in loaded if sys.modules.get(name)])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=True
    )
    assert result.stdout == "[]\n"


@pytest.mark.long
def test_openvino_s_telemetry_is_not_loaded_for_its_converter():
    script = (
        "import sys; import flarekit.engine._compiled, openvino, openvino.tools.ovc; "
        "assert sys.modules['openvino_telemetry'] is None"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.long(2)
@pytest.mark.parametrize("name", ["openvino", "torch"])
@pytest.mark.parametrize("tile", [(4, 8, 8), (1, 8, 8)])
def test_threads_that_share_an_engine_get_what_one_alone_gets(name, tile):
    networks = [network_of(seed, flat=tile[0] == 1) for seed in range(2)]
    compute = make(name, networks, tile, mirror=(1,))
    images = [image_of((6 + number, 20, 17)) * (number + 1) for number in range(4)]
    alone = [logits_of(compute, image) for image in images]
    with ThreadPoolExecutor(max_workers=4) as threads:
        together = list(threads.map(lambda image: logits_of(compute, image), images * 3))
    for number, logits in enumerate(together):
        np.testing.assert_array_equal(logits, alone[number % 4])
