"""Every shipped predictor in its own container: built, verified for its organiser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flarekit.conventions import checks_of
from flarekit.images.build import BuildRequest, build
from flarekit.images.verify import VerifyRequest, verify
from flarekit.segmentation.predictors import find_predictor, predictor_folders
from tests.command import run
from tests.docker.built_images import need_engine, one_build, remove
from tests.test_pages import DOCS, PREPARE, commands_of

pytestmark = pytest.mark.docker

# what depends on the predictor; the whole verification is among the slow tests
BRIEF = (
    "ends_well",
    "same_twice",
    "strict_sandbox",
    "offline",
    "unprivileged",
    "stops",
    "output_tree",
    "stored_type",
    "geometry",
    "labels",
    "damaged_input",
    "one_mask",
    "binary",
    "no_uptake",
    "four_volumes",
    "one_component",
    "central",
    "corrupt_input",
)
PAGES = {"abdomen_ct": "flare", "att_umamba_petct": "autopet", "mamba_ahnet_lesion": "uls23"}
# an image for FLARE differs from another by its weights alone: abdomen_ct's stands for these in CI
ALIKE = ("attention_unet_abdomen", "mamba_clinix_abdomen", "mpu_net_liver")
# a minute and more on two cores: mamba_ahnet_mr stands for the first, pages' tests for the others
LONG = ("mamba_ahnet_lesion", "att_umamba_petct", "abdomen_ct")
IMAGES = [
    pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ())
    for name in (folder.name for folder in predictor_folders())
]
SLOW_MACHINE_S = 120.0  # a case on CI's two cores; the organisers' limits are for theirs


@pytest.fixture(scope="module", params=IMAGES)
def image(request):
    """Return the name of a predictor and its image for a machine without a GPU."""
    need_engine()
    tag = f"flarekit-{request.param.replace('_', '-')}-{os.getpid()}"  # processes share an engine
    with one_build():
        build(BuildRequest(predictor=request.param, convention=None, tag=tag, device="cpu"))
    yield request.param, tag
    remove(tag)


def findings(name, tag, *only):
    verification = verify(VerifyRequest(image=tag, only=only, time_s=SLOW_MACHINE_S))
    assert verification.convention == find_predictor(name).spec.convention
    return {each.check.name: each.finding for each in verification.verdicts}


def faults(found):
    return {name: each.reason for name, each in found.items() if each.state in ("fail", "warn")}


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(name, marks=pytest.mark.slow if name in (*ALIKE, *LONG) else ())
        for name in (folder.name for folder in predictor_folders())
    ],
    indirect=True,
)
def test_a_predictor_s_image_passes_what_matters_most(image):
    name, tag = image
    only = [check.name for check in checks_of(find_predictor(name).spec.convention).checks]
    found = findings(name, tag, *(each for each in only if each in BRIEF))
    assert faults(found) == {}
    assert found["ends_well"].state == found["offline"].state == "pass"


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "mamba_ahnet_lesion" else ())
        for name in sorted(PAGES)
    ],
    indirect=True,
)
def test_what_a_page_tells_to_type_for_an_image_works(image, tmp_path, monkeypatch):
    name, tag = image
    page = PAGES[name]
    PREPARE[page](tmp_path)
    monkeypatch.chdir(tmp_path)
    typed = {"arrange", "build", "profile"} | ({"save"} if page == "flare" else set())
    for _, *words in commands_of(page):
        if words[0] not in typed:
            continue  # predict, verify and evaluate have tests of their own
        line = [re.sub(r"^team\b", tag, word) for word in words]
        line += ["--cpu"] if words[0] == "build" and "--cpu" not in line else []
        line += ["--max-time", SLOW_MACHINE_S] if "check" in words else []
        result = run(*line)
        assert result.returncode == 0, (line, result.stderr)
        if words[0] == "build":
            printed = next(each for each in result.stderr.splitlines() if "container run" in each)
    assert (tmp_path / "report" / "efficiency.html").is_file()
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert printed.strip().replace(tag, "team:latest") in text
    if page != "flare":
        shutil.copytree("input", "inputs")
    shutil.rmtree("outputs", ignore_errors=True)
    Path("outputs").mkdir()
    Path("outputs").chmod(0o777)
    subprocess.run(["bash", "-c", printed.strip()], check=True, capture_output=True)
    masks = [path for path in Path("outputs").rglob("*") if path.suffix in (".gz", ".mha")]
    assert len(masks) == {"flare": 2, "autopet": 1, "uls23": 1}[page]


@pytest.mark.slow
def test_a_predictor_s_image_passes_its_whole_verification(image):
    assert faults(findings(*image)) == {}
