from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import SimpleITK

from flarekit import conventions
from flarekit.conventions.grandchallenge import samples
from flarekit.core.errors import FlarekitError
from flarekit.core.metaheader import read_header
from flarekit.verification.trials import TaskFacts
from tests.verification.fake_images import Failure, failed, findings, read

SHAPE = (15, 31, 41)
OUTPUTS = [
    {"path": "images/organs", "kind": "Segmentation", "labels": ["liver"]},
    {"path": "images/lesion", "kind": "Segmentation", "binary": True},
    {"path": "volume.json", "kind": "Float"},
    {"path": "count.json", "kind": "Integer"},
    {"path": "found.json", "kind": "Boolean"},
    {"path": "report.json", "kind": "String"},
]
SOCKETS = {"inputs": ["ct-image", "images/pet"], "outputs": OUTPUTS}
PLATFORM = conventions.checks_of("grandchallenge")
WANTED = TaskFacts(values=frozenset({0, 1, 5}), time_s=600, settings=SOCKETS)
UNKNOWN = TaskFacts(values=frozenset({0}), time_s=600)


@pytest.fixture(autouse=True)
def _coarse_phantom(monkeypatch):
    monkeypatch.setattr(samples, "_SHAPE_ZYX", SHAPE)
    monkeypatch.setattr(samples, "_SPACING_MM_ZYX", (15.0, 9.0, 9.0))


@dataclass
class Image:
    """An algorithm that behaves; each fault that is set spoils one thing."""

    fault: str = ""
    inputs: tuple[str, ...] = ("images/ct-image", "images/pet")

    def __call__(self, inside):
        scans = [read(inside.image_of(f"/input/{folder}")) for folder in self.inputs]
        ct = scans[0]
        hu = SimpleITK.GetArrayFromImage(ct)
        self.organs(inside, (hu > 100) * 5, ct)
        if self.fault != "an output is missing":
            inside.write("/output/images/lesion/a.mha", (hu > 150).astype(np.uint8), ct)
        values = {"volume": 1.5, "count": 3, "found": True, "report": "two lesions"}
        if self.fault == "a number as text":
            values["volume"] = "1.5"
        if self.fault == "a truth as number":
            values["found"] = 1
        if self.fault == "half a component":
            values["count"] = 2.5
        if self.fault == "not a number":
            values["volume"] = float("nan")
        for name, value in values.items():
            inside.path(f"/output/{name}.json").write_text(json.dumps(value))
        if self.fault == "half a file":
            inside.path("/output/count.json").write_text("{")
        if self.fault == "a log":
            inside.path("/output/log.txt").write_text("done")

    def organs(self, inside, mask, ct):
        place = "/output/images/organs/a.mha"
        kind = {"sixteen bits": np.int16, "probabilities": np.float32}.get(self.fault, np.uint8)
        if self.fault == "other values":
            mask = mask // 5 * 7
        if self.fault == "another grid":
            inside.write(place, mask.astype(kind), ct, Spacing=(1.0, 1.0, 1.0))
        elif self.fault == "another size":
            inside.write(place, mask[1:].astype(kind), ct)
        elif self.fault == "two channels":
            inside.write(place, np.stack([mask, mask], axis=-1).astype(kind), ct)
        else:
            inside.write(place, mask.astype(kind), ct)
        if self.fault == "two images":
            inside.write(place.replace("a.mha", "b.mha"), mask.astype(kind), ct)
        if self.fault == "a note beside the image":
            inside.path("/output/images/organs/a.txt").write_text("organs")
        if self.fault == "damaged":
            path = inside.path(place)
            path.write_bytes(path.read_bytes()[:500])


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("", set()),
        ("an output is missing", {"output_tree"}),
        pytest.param("a log", {"output_tree"}, marks=pytest.mark.long),
        ("two images", {"one_per_socket"}),
        pytest.param("a note beside the image", {"one_per_socket"}, marks=pytest.mark.long),
        ("a number as text", {"json_values"}),
        pytest.param("a truth as number", {"json_values"}, marks=pytest.mark.long),
        pytest.param("half a component", {"json_values"}, marks=pytest.mark.long),
        ("not a number", {"json_values"}),
        pytest.param("half a file", {"json_values"}, marks=pytest.mark.long),
        ("sixteen bits", {"stored_type"}),
        pytest.param("probabilities", {"stored_type"}, marks=pytest.mark.long),
        pytest.param("two channels", {"stored_type"}, marks=pytest.mark.long),
        pytest.param("damaged", {"stored_type"}, marks=pytest.mark.long),
        ("other values", {"labels"}),
        ("another grid", {"geometry"}),
        pytest.param("another size", {"geometry"}, marks=pytest.mark.long),
    ],
)
def test_each_misbehaviour_is_named_by_its_check(tmp_path, fault, names):
    found = findings(PLATFORM, Image(fault), WANTED, tmp_path)
    assert failed(found) == names
    if not names:
        skipped = {name for name, finding in found.items() if finding.state != "pass"}
        assert skipped == {"given_inputs"}


def our_own(inside):
    """Do a job with the project's convention and a network that finds what is bright."""
    outputs = [output for output in OUTPUTS if output["kind"] != "String"]
    settings = {"inputs": SOCKETS["inputs"], "outputs": outputs}
    convention = conventions.get("grandchallenge", settings, labels={"liver": 5})
    try:
        (case,) = convention.find_cases(inside.path("/input"), 2)
        volumes = convention.read_case(case)
        found = (volumes[0].voxels_ZYX > 100).astype(np.uint8) * np.uint8(5)
        convention.write_mask(case, found, volumes[0].geometry, inside.path("/output"))
    except FlarekitError as error:
        raise Failure(str(error)) from None


def test_the_project_s_own_convention_passes(tmp_path):
    outputs = [output for output in OUTPUTS if output["kind"] != "String"]
    wanted = replace(WANTED, settings={**SOCKETS, "outputs": outputs})
    found = findings(PLATFORM, our_own, wanted, tmp_path)
    assert not failed(found)
    skipped = {name for name, finding in found.items() if finding.state != "pass"}
    assert skipped == {"given_inputs"}


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("fault", "name", "reason"),
    [
        ("an output is missing", "output_tree", "no images/lesion"),
        ("a log", "output_tree", "wrote log.txt too"),
        ("two images", "one_per_socket", "images/organs holds 2 .mha or .tif files"),
        ("not a number", "json_values", "volume.json is not JSON: it has no NaN"),
        ("a number as text", "json_values", 'volume.json is to be a Float, and holds "1.5"'),
        ("sixteen bits", "stored_type", "images/organs/a.mha is int16"),
        ("two channels", "stored_type", "images/organs/a.mha has 2 channels"),
        ("other values", "labels", "images/organs/a.mha holds 7"),
        ("another size", "geometry", "images/organs/a.mha: 41 x 31 x 14 voxels for 41 x 31 x 15"),
    ],
)
def test_reasons_name_the_file_and_the_value(tmp_path, fault, name, reason):
    assert findings(PLATFORM, Image(fault), WANTED, tmp_path)[name].reason == reason


@pytest.mark.long
def test_of_an_unknown_algorithm_only_the_rules_for_all_are_judged(tmp_path):
    image = Image(inputs=("images/ct",))
    found = findings(PLATFORM, image, UNKNOWN, tmp_path / "a")
    assert not failed(found)
    skipped = {name for name, finding in found.items() if finding.state == "skip"}
    assert skipped == {"output_tree", "stored_type", "labels", "geometry", "given_inputs"}
    assert "flarekit.facts" in found["output_tree"].reason
    two = findings(PLATFORM, replace(image, fault="two images"), UNKNOWN, tmp_path / "b")
    assert failed(two) == {"one_per_socket"}
    nan = findings(PLATFORM, replace(image, fault="not a number"), UNKNOWN, tmp_path / "c")
    assert failed(nan) == {"json_values"}


def test_an_image_that_writes_nothing_fails_whatever_it_declares(tmp_path):
    def idle(inside):
        read(inside.image_of("/input/images/ct"))

    found = findings(PLATFORM, idle, UNKNOWN, tmp_path)
    assert failed(found) == {"output_tree"}
    assert found["output_tree"].reason == "wrote nothing"


def test_values_that_nobody_stated_are_not_judged(tmp_path):
    wanted = replace(WANTED, values=frozenset({0}))
    finding = findings(PLATFORM, Image("other values"), wanted, tmp_path / "a")["labels"]
    assert finding.state == "skip"
    assert "--labels" in finding.reason
    binary = replace(wanted, settings={**SOCKETS, "outputs": OUTPUTS[1:]})
    finding = findings(PLATFORM, Image(), binary, tmp_path / "b")["labels"]
    assert finding.state == "pass"


def given_job(folder, sockets):
    folder.mkdir()
    samples.write_job(folder, sockets)
    return folder


@pytest.mark.long
def test_inputs_that_are_given_are_run_too(tmp_path):
    given = given_job(tmp_path / "given", ["ct-image", "images/pet"])
    wanted = replace(WANTED, user_inputs=given)
    assert findings(PLATFORM, Image(), wanted, tmp_path / "a")["given_inputs"].state == "pass"
    found = findings(PLATFORM, Image("other values"), wanted, tmp_path / "b")
    assert failed(found) == {"labels", "given_inputs"}
    (given / "images" / "pet" / samples.NAME).unlink()
    found = findings(PLATFORM, Image(), wanted, tmp_path / "c")
    assert failed(found) == {"given_inputs"}
    assert "/input/images/pet has to hold one image, and holds 0" in found["given_inputs"].reason


def test_what_an_unknown_algorithm_gets_is_what_was_given(tmp_path):
    given = given_job(tmp_path / "given", ["mr-image"])
    wanted = replace(UNKNOWN, user_inputs=given)

    def wants_mr(inside):
        image = read(inside.image_of("/input/images/mr-image"))
        inside.write("/output/images/mask/a.mha", np.zeros(SHAPE, np.uint8), image)

    found = findings(PLATFORM, wants_mr, wanted, tmp_path / "a")
    assert not failed(found)
    assert found["given_inputs"].state == "pass"
    without = findings(PLATFORM, wants_mr, UNKNOWN, tmp_path / "b")
    assert failed(without) == {"ends_well"}


def test_the_generated_job_has_an_image_for_each_socket(tmp_path):
    samples.write_job(tmp_path, ["ct-image", "images/pet", "petrous-bone"])
    entries = json.loads((tmp_path / "inputs.json").read_text())
    paths = {entry["socket"]["slug"]: entry["socket"]["relative_path"] for entry in entries}
    assert paths == {
        "ct-image": "images/ct-image",
        "pet": "images/pet",
        "petrous-bone": "images/petrous-bone",
    }
    headers = {}
    for slug, path in paths.items():
        (image,) = (tmp_path / path).iterdir()
        headers[slug] = read_header(image)
    assert {slug: str(header.dtype) for slug, header in headers.items()} == {
        "ct-image": "int16",
        "pet": "float32",
        "petrous-bone": "int16",
    }
    phantom = samples._phantom()
    for header in headers.values():
        np.testing.assert_allclose(header.affine, phantom.affine)
        assert header.shape_ZYX == phantom.hu_ZYX.shape
    (image,) = (tmp_path / "images" / "pet").iterdir()
    suv = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(image)))
    assert suv.min() == 0
    assert np.median(suv[phantom.labels_ZYX == 13]) == 5


def test_a_label_that_states_nonsense_is_an_algorithm_that_is_not_known(tmp_path):
    sockets = {"inputs": "ct", "outputs": [{"kind": "Segmentation"}, "mask"]}

    def fails(_inside):
        raise Failure("the algorithm is not to be run here")

    image = Image(inputs=("images/ct",))
    found = findings(PLATFORM, image, replace(UNKNOWN, settings=sockets), tmp_path)
    assert found["output_tree"].state == "skip"
    assert failed(findings(PLATFORM, fails, UNKNOWN, tmp_path / "b")) == {"ends_well"}
