"""Networks that are not in the package: classes of one's own, TorchScript, ONNX, entry points."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

import flarekit
from flarekit import models
from flarekit.core.errors import DeviceError, PredictorError, UsageError
from flarekit.core.spec import parse_spec
from flarekit.images.build import BuildRequest, build
from flarekit.models import UntrustedError
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.source import Source
from tests.command import run
from tests.segmentation.onnx_file import convolution, tensor_outside

CODE = '''
from pathlib import Path

import torch

Path(__file__).with_name("executed").touch()


class Threshold(torch.nn.Module):
    """Everything brighter than nothing is the label."""

    def __init__(self, sharpness):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([-sharpness, sharpness]))

    def forward(self, image):
        return image * self.scale.view(1, 2, 1, 1, 1)


def nothing(**_):
    return None
'''
FACTS = {
    "channels": [{"name": "MR", "intensity": {"kind": "scale", "divisor": 1.0}}],
    "grid": {"spacing_mm_ZYX": [2.0, 2.0, 2.0], "tile_ZYX": [8, 16, 16]},
    "labels": {"bright": 1},
    "convention": "flare",
}
OWN = {"name": "nets:Threshold", "arguments": {"sharpness": 2.0}}
CONVOLUTION = {"in_channels": 1, "out_channels": 2, "kernel_size": 1}
CPU = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAREKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLAREKIT_TRUST", raising=False)


class Threshold(torch.nn.Module):
    def __init__(self, sharpness):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([-sharpness, sharpness]))

    def forward(self, image):
        return image * self.scale.view(1, 2, 1, 1, 1)


def own_folder(tmp_path, **facts):
    code = tmp_path / "nets.py"
    code.write_text(CODE)
    whole = {**FACTS, "architecture": OWN, **facts}
    saved = flarekit.save_predictor(tmp_path / "mine", whole, module=Threshold(2.0), code=code)
    return saved.folder


def scan():
    voxels = np.random.default_rng(0).normal(0, 1, (12, 20, 24)).astype(np.float32)
    return voxels, voxels > 0


def labels_of(folder, **options):
    with flarekit.load(folder, trust=True, **CPU, **options) as segmenter:
        return segmenter.segment(scan()[0], spacing_mm=(2, 2, 2)).labels


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_class_beside_the_facts_runs_on_both_engines(tmp_path, engine):
    folder = own_folder(tmp_path)
    assert np.array_equal(labels_of(folder, engine=engine), scan()[1])


def test_without_trust_nothing_in_a_folder_is_executed_and_the_error_says_what_would_be(
    tmp_path, write_scan
):
    folder = own_folder(tmp_path)
    with pytest.raises(UntrustedError, match=r"would execute .*nets\.py \(SHA-256 [0-9a-f]{16}"):
        flarekit.load(folder, **CPU)
    (tmp_path / "in").mkdir()
    write_scan(tmp_path / "in" / "p_0000.nii.gz")
    words = ["predict", "-p", folder, "-i", tmp_path / "in", "-o", tmp_path / "out"]
    said = run(*words, "--device", "cpu")
    assert said.returncode == 4
    assert "nets.py" in said.stderr
    assert "--trust" in said.stderr
    assert run("weights", "verify", folder).returncode == 4
    assert run("predictors", FLAREKIT_WEIGHTS=str(tmp_path)).returncode == 0
    assert not (folder / "executed").exists()
    assert run(*words, "--device", "cpu", "--trust").returncode == 0
    assert (folder / "executed").exists()
    said = run(*words, "--device", "cpu")  # that it was trusted once is not remembered
    assert said.returncode == 4


def test_the_environment_can_say_that_every_predictor_is_trusted(tmp_path, monkeypatch):
    folder = own_folder(tmp_path)
    for said, trusted in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv("FLAREKIT_TRUST", said)
        if trusted:
            flarekit.load(folder, **CPU).close()
            continue
        with pytest.raises(UntrustedError):
            flarekit.load(folder, **CPU)


def test_a_class_that_changed_is_compiled_anew(tmp_path):
    folder = own_folder(tmp_path)
    labels_of(folder, engine="openvino")
    turned = (folder / "nets.py").read_text().replace("return image *", "return -image *")
    (folder / "nets.py").write_text(turned)
    assert np.array_equal(labels_of(folder, engine="openvino"), ~scan()[1])


def test_code_that_is_not_there_leaves_no_folder(tmp_path):
    whole = {**FACTS, "architecture": OWN}
    with pytest.raises(UsageError, match=r"nets\.py: is not there"):
        flarekit.save_predictor(
            tmp_path / "mine", whole, module=Threshold(2.0), code=tmp_path / "nets.py"
        )
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("inner", ["locator", "coarse"])
def test_a_changed_class_of_a_first_look_makes_another_predictor(tmp_path, inner):
    first = own_folder(tmp_path)
    outer = tmp_path / "outer"
    facts = {**FACTS, "architecture": {"name": "torch.nn:Conv3d", "arguments": CONVOLUTION}}
    if inner == "locator":
        outer.mkdir()
        first = first.rename(outer / "locator")
        facts["locator"] = {"sha256": find_predictor(str(first)).spec.weights.sha256}
    else:
        facts["coarse"] = {"predictor": str(first)}
    flarekit.save_predictor(outer, facts, module=torch.nn.Conv3d(**CONVOLUTION))
    before = Source.of_folder(find_predictor(str(outer), trust=True)).sha256
    (first / "nets.py").write_text(CODE.replace("-sharpness, sharpness", "sharpness, -sharpness"))
    assert Source.of_folder(find_predictor(str(outer), trust=True)).sha256 != before


def test_two_folders_may_have_modules_of_the_same_name(tmp_path):
    one = own_folder(tmp_path)
    (tmp_path / "b").mkdir()
    other = own_folder(tmp_path / "b")
    source = (other / "nets.py").read_text().replace("return image *", "return -image *")
    (other / "nets.py").write_text(source)
    assert np.array_equal(labels_of(one, engine="torch"), scan()[1])
    assert np.array_equal(labels_of(other, engine="torch"), ~scan()[1])


def test_a_class_of_an_installed_module_is_named_by_it(tmp_path, monkeypatch):
    (tmp_path / "installed_nets.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    facts = {**FACTS, "architecture": {**OWN, "name": "installed_nets:Threshold"}}
    folder = flarekit.save_predictor(tmp_path / "mine", facts, module=Threshold(2.0)).folder
    with pytest.raises(UntrustedError, match="import the module installed_nets, wherever"):
        flarekit.load(folder, **CPU)
    assert "installed_nets" not in sys.modules
    assert np.array_equal(labels_of(folder), scan()[1])
    with pytest.raises(PredictorError, match=r"put installed_nets\.py beside"):
        build(BuildRequest(predictor=str(folder), convention=None, tag="t", trust=True))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nets:Missing", {}, "has no class Missing"),
        ("nets:Threshold", {"blunt": 1}, "does not take these arguments"),
        ("nets:nothing", {}, "gives a NoneType, not a torch.nn.Module"),
        ("no_such_module:Net", {}, "no_such_module: cannot be imported"),
        ("broken:Net", {}, r"broken\.py: cannot be imported: SyntaxError"),
    ],
)
def test_a_class_that_cannot_be_made_is_named(tmp_path, name, arguments, message):
    folder = own_folder(tmp_path, architecture={"name": name, "arguments": arguments})
    (folder / "broken.py").write_text("class Net(")
    with pytest.raises(PredictorError, match=message):
        flarekit.load(folder, trust=True, **CPU)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_torchscript_file_is_a_network_that_needs_trust(tmp_path, engine):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of its own format
        torch.jit.script(Threshold(2.0)).save(str(tmp_path / "net.pt"))
    facts = {name: value for name, value in FACTS.items() if name != "architecture"}
    folder = flarekit.save_predictor(tmp_path / "mine", facts, file=tmp_path / "net.pt").folder
    with pytest.raises(UntrustedError, match=r"run the program in .*model\.pt \(TorchScript\)"):
        flarekit.load(folder, **CPU)
    assert np.array_equal(labels_of(folder, engine=engine), scan()[1])
    (folder / "model.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(PredictorError, match="SHA-256"):
        flarekit.load(folder, trust=True, **CPU)


@pytest.mark.parametrize("tile", [("z", "y", "x"), (8, 16, 16)])
def test_an_onnx_file_runs_by_openvino_and_needs_no_trust(tmp_path, tile):
    content = convolution(np.array([[-2.0], [2.0]]), np.zeros(2), tile)
    (tmp_path / "net.onnx").write_bytes(content)
    folder = flarekit.save_predictor(tmp_path / "mine", FACTS, file=tmp_path / "net.onnx").folder
    with flarekit.load(folder, **CPU) as segmenter:
        assert segmenter.facts.engine == "openvino"
        labels = segmenter.segment(scan()[0], spacing_mm=(2, 2, 2)).labels
    assert np.array_equal(labels, scan()[1])
    assert run("weights", "verify", folder).returncode == 0
    with pytest.raises(UsageError, match="ONNX network, which PyTorch does not run"):
        flarekit.load(folder, engine="torch", **CPU)
    with pytest.raises(DeviceError, match="runs with OpenVINO on the CPU, not on 'cuda'"):
        flarekit.load(folder, device="cuda")
    with pytest.raises(PredictorError, match="ONNX network runs on a CPU"):
        build(BuildRequest(predictor=str(folder), convention=None, tag="t", device="cuda"))


def test_an_onnx_file_of_other_channels_or_of_no_network_is_refused(tmp_path):
    for content in (convolution(np.ones((2, 3)), np.zeros(2)), b"no network"):
        (tmp_path / "net.onnx").write_bytes(content)
        saved = flarekit.save_predictor(tmp_path / "mine", FACTS, file=tmp_path / "net.onnx")
        with pytest.raises(
            PredictorError, match=r"model\.onnx: OpenVINO does not run it on a tile"
        ):
            flarekit.load(saved, **CPU)


@pytest.mark.parametrize("place", ["outside.bin", "{tmp_path}/outside.bin"])
def test_an_onnx_file_reads_no_other_file(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    np.array([-2.0, 2.0], np.float32).tofile("outside.bin")
    weights = tensor_outside("w", place.format(tmp_path=tmp_path), (2, 1, 1, 1, 1))
    (tmp_path / "net.onnx").write_bytes(convolution(np.ones((2, 1)), np.zeros(2), weights=weights))
    saved = flarekit.save_predictor(tmp_path / "mine", FACTS, file=tmp_path / "net.onnx")
    with pytest.raises(PredictorError, match=r"model\.onnx: the values of its tensor 'w' lie out"):
        flarekit.load(saved, **CPU)


def test_an_onnx_file_with_other_classes_than_the_labels_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(convolution(np.ones((5, 1)), np.zeros(5)))
    saved = flarekit.save_predictor(tmp_path / "mine", FACTS, file=tmp_path / "net.onnx")
    with pytest.raises(PredictorError, match="5 classes, the labels need 2"):
        flarekit.load(saved, **CPU)


def test_an_installed_package_s_entry_point_is_an_architecture_like_any_other(
    tmp_path, monkeypatch
):
    point = EntryPoint("threshold", f"{__name__}:Threshold", "flarekit.architectures")
    module = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, __name__, module)
    monkeypatch.setattr(models, "installed", lambda: {"threshold": point})
    monkeypatch.setattr("flarekit.models._own.installed", lambda: {"threshold": point})
    assert "threshold" in models.names()
    facts = {**FACTS, "architecture": {"name": "threshold", "arguments": {"sharpness": 2.0}}}
    folder = flarekit.save_predictor(tmp_path / "mine", facts, module=Threshold(2.0)).folder
    with flarekit.load(folder, **CPU) as segmenter:
        assert np.array_equal(segmenter.segment(scan()[0], spacing_mm=(2, 2, 2)).labels, scan()[1])


def test_facts_of_networks_in_files_that_contradict_themselves_are_refused():
    for facts, message in [
        ({"architecture": {"name": "nnunet"}, "weights": {"sha256": "0" * 64}}, "parameters"),
        (
            {
                "architecture": {"name": "onnx", "arguments": {"a": 1}},
                "weights": {"sha256": "0" * 64},
            },
            "takes none",
        ),
    ]:
        with pytest.raises(PredictorError, match=message):
            parse_spec({"name": "n", "title": "t", **FACTS, **facts}, source="x")
