"""Images for autoPET, broken in one way each; every fault is caught and named.

V is played on an image that needs no state between the calls, and on one that does.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from flarekit import conventions
from flarekit.containers.docker import DockerSandbox
from flarekit.images.interactive import ImagePlayer, Play, find_examinations, play
from flarekit.images.stated_task import stated_task
from flarekit.images.verify import VerifyRequest, verify
from flarekit.verification.platform_checks import PLATFORM_IMAGE, PLATFORM_RUNS
from flarekit.verification.run_checks import RUNS
from flarekit.verification.trials import ImageUnderTest, TaskFacts
from tests.conventions.autopet.petct_script import BROKEN, script
from tests.docker.built_images import tools

pytestmark = pytest.mark.docker

SHARED = {check.name for check in (*PLATFORM_IMAGE, *RUNS, *PLATFORM_RUNS)}
AUTOPET = conventions.checks_of("autopet")
OWN = [check for check in AUTOPET.checks if check.name not in SHARED]
FIRST = {min(names): fault for fault, (_, names, _) in reversed(BROKEN.items())}
NEEDS_ITS_CACHE = """
seen = Path("/cache/seen")
if clicks and not seen.exists():
    sys.exit("Error: what the first call left in /cache is not there")
seen.touch()
"""
III = {"mask": "clicks = []", "image": "folder = 'automated-petct-lesion-segmentation'"}


@pytest.fixture
def make_image(build_image):
    """Return a function that builds an image of the algorithm with faults in it."""
    base = tools()

    def make(name, faults, *, label=None) -> str:
        lines = [f"FROM {base}", "USER 1000:1000", "COPY run.py /opt/run.py"]
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


@pytest.fixture
def examinations(tmp_path, write_scan):
    """Return a case in nnU-Net's layout: half of what is hot is a lesion."""
    hot = np.zeros((12, 30, 32), np.int16)
    hot[3:9, 8:22, 8:24] = 6
    lesion = np.where(np.arange(32) < 16, hot > 0, 0)
    for name, voxels in (
        ("imagesTr/a_0000", np.zeros_like(hot)),
        ("imagesTr/a_0001", hot + 1),
        ("labelsTr/a", lesion),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_scan(tmp_path / f"{name}.nii.gz", voxels)
    return find_examinations(tmp_path / "labelsTr", None)


@pytest.mark.slow  # tests/images/test_interactive.py plays an image that forgets, without an engine
def test_v_is_played_to_its_end_only_where_no_state_is_needed_or_it_stays(
    make_image, examinations, tmp_path
):
    images = {"forgets": {}, "remembers": {"mask": NEEDS_ITS_CACHE}}
    sessions = {}
    for name, faults in images.items():
        sandbox = DockerSandbox(make_image(name, faults))
        player = ImagePlayer(sandbox, timeout_s=300.0)
        for forget in (False, True) if name == "remembers" else (True,):
            (session,) = play(examinations, player, Play(forget=forget), tmp_path / "play")
            sessions[name, forget] = session
        sandbox.close()
    gone = sessions.pop(("remembers", True))
    assert len(gone.steps) == 1
    assert "what the first call left in /cache is not there" in gone.error
    assert {session.error for session in sessions.values()} == {None}
    (curve,) = {tuple(session.curve("dice")) for session in sessions.values()}
    assert len(curve) == 6
    assert curve[-1] > curve[0]


@pytest.mark.slow  # the same faults stand in test_checks_autopet.py, without an engine
@pytest.mark.parametrize("check", sorted(FIRST))
def test_a_broken_image_is_caught_by_the_check_that_is_about_it(make_image, tmp_path, check):
    fault = FIRST[check]
    faults, names, words = BROKEN[fault]
    found = failed(look(make_image(fault, faults), tmp_path))
    assert found.keys() == names
    assert words in found[check]
