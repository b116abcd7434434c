"""The list of packages and licences that an image carries."""

from __future__ import annotations

import json
import sys
from email.message import Message
from importlib.metadata import distributions

import pytest

from flarekit.images import bill as module
from flarekit.images.bill import bill
from flarekit.segmentation.predictors import find_predictor

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2:2.36-9
Description: a library
 with more lines: of text

Package: gone
Status: deinstall ok config-files
Version: 1
"""


class Package:
    version = "1.2"

    def __init__(self, name, *fields):
        self.metadata = Message()
        for field, value in (("Name", name), *fields):
            self.metadata[field] = value


@pytest.mark.parametrize(
    ("fields", "licences"),
    [
        ([("License-Expression", "MIT OR Apache-2.0")], [{"expression": "MIT OR Apache-2.0"}]),
        (
            [("Classifier", "License :: OSI Approved :: BSD License"), ("License", "text")],
            [{"license": {"name": "BSD License"}}],
        ),
        ([("License", "LGPL-3.0-or-later")], [{"license": {"name": "LGPL-3.0-or-later"}}]),
        ([("License", "Copyright\nlong text")], None),
        ([], None),
    ],
)
def test_a_package_s_licence_is_what_it_states(fields, licences):
    found = bill([Package("Some_Package", *fields)])["components"][-1]
    assert found["purl"] == "pkg:pypi/some-package@1.2"
    assert found.get("licenses") == licences
    assert licences or found["properties"][0]["value"] == "not stated"


def test_debian_s_packages_and_the_predictor_are_listed():
    spec = find_predictor("mpu_net_liver")
    *_, library, model = bill([], STATUS, [spec])["components"]
    assert library["purl"] == "pkg:deb/debian/libc6@2%3A2.36-9?arch=amd64"
    assert model["type"] == "machine-learning-model"
    assert model["hashes"][0]["content"] == spec.spec.weights.sha256
    assert model["licenses"] == [{"license": {"name": spec.spec.provenance["licence"]}}]
    assert len(bill([], STATUS)["components"]) == 2  # Python itself, and libc6


@pytest.mark.long
def test_the_list_of_this_environment_has_every_package_once_and_is_always_the_same(
    tmp_path, monkeypatch
):
    written = []
    for name in ("a.json", "b.json"):
        monkeypatch.setattr(sys, "argv", ["bill", str(tmp_path / name)])
        module.main()
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    content = json.loads(written[0])
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.5")
    refs = [each["bom-ref"] for each in content["components"]]
    assert len(refs) == len(set(refs))
    names = {each["name"].lower() for each in content["components"]}
    assert {"numpy", "flarekit", "cpython", "abdomen_ct"} <= names
    assert {each.metadata["Name"].lower() for each in distributions()} <= names


def test_an_image_s_last_stages_write_the_list():
    from pathlib import Path

    text = (Path(module.__file__).parents[2] / "Dockerfile").read_text()
    assert text.count("RUN python -m flarekit.images.bill /opt/flarekit/sbom.cdx.json") == 2
