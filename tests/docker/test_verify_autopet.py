"""Images for autoPET, broken in one way each; every fault is caught and named."""

from __future__ import annotations

import json

import pytest

from flarekit import conventions
from flarekit.containers.docker import DockerSandbox
from flarekit.images.stated_task import stated_task
from flarekit.images.verify import VerifyRequest, verify
from flarekit.verification.platform_checks import PLATFORM_IMAGE, PLATFORM_RUNS
from flarekit.verification.run_checks import RUNS
from flarekit.verification.trials import ImageUnderTest, TaskFacts
from tests.conventions.autopet.petct_script import BROKEN, script
from tests.docker.built_images import built

pytestmark = pytest.mark.docker

BASE = "gc-cpu"  # has Python, NumPy, SimpleITK and cc3d
SHARED = {check.name for check in (*PLATFORM_IMAGE, *RUNS, *PLATFORM_RUNS)}
AUTOPET = conventions.checks_of("autopet")
OWN = [check for check in AUTOPET.checks if check.name not in SHARED]
FIRST = {min(names): fault for fault, (_, names, _) in reversed(BROKEN.items())}
III = {"mask": "clicks = []", "image": "folder = 'automated-petct-lesion-segmentation'"}


@pytest.fixture
def make_image(build_image):
    """Return a function that builds an image of the algorithm with faults in it."""
    base = built(BASE)

    def make(name, faults, *, label=None) -> str:
        lines = [f"FROM {base}", "ENTRYPOINT []", "COPY run.py /opt/run.py"]
        lines += ['CMD ["python", "/opt/run.py"]']
        lines += [f"LABEL flarekit.facts='{json.dumps(label)}'"] if label else []
        tag = f"fkv-autopet-{name.replace('_', '-')}"
        return build_image(tag, "\n".join(lines) + "\n", {"run.py": script(**faults)})

    return make


def look(image, scratch):
    """Run the convention's own checks, which need no saved tar."""
    sandbox = DockerSandbox(image)
    stated = stated_task(sandbox.facts, "autopet")
    wanted = TaskFacts(values=frozenset({0, 1}), settings=stated.settings)
    image = ImageUnderTest(
        sandbox, AUTOPET.run_line, wanted, AUTOPET.write_sample, scratch / "work"
    )
    try:
        return {check.name: check.look(image) for check in OWN}
    finally:
        sandbox.remove(scratch / "work")
        sandbox.close()


def failed(found):
    return {name: finding.reason for name, finding in found.items() if finding.state == "fail"}


def test_an_image_that_behaves_passes_everything(make_image):
    request = VerifyRequest(image=make_image("good", {}), convention="autopet", backend="docker")
    found = {each.check.name: each.finding for each in verify(request).verdicts}
    assert failed(found) == {}
    assert {name for name, finding in found.items() if finding.state != "pass"} <= {
        "given_inputs",
        "in_time",
        "stops",  # it may be over before the signal
    }


def test_an_image_for_iii_passes_with_and_without_a_label(make_image, tmp_path):
    label = {"settings": {"edition": 3}}
    for name, how in (("iii", "where it writes"), ("iii_labelled", "its label")):
        image = make_image(name, III, label=label if how == "its label" else None)
        found = look(image, tmp_path / name)
        assert failed(found) == {}
        assert found["edition"].reason == f"judged as III, by {how}"


@pytest.mark.slow  # the same faults stand in test_checks_autopet.py, without an engine
@pytest.mark.parametrize("check", sorted(FIRST))
def test_a_broken_image_is_caught_by_the_check_that_is_about_it(make_image, tmp_path, check):
    fault = FIRST[check]
    faults, names, words = BROKEN[fault]
    found = failed(look(make_image(fault, faults), tmp_path))
    assert found.keys() == names
    assert words in found[check]
