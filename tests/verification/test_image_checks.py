"""What is said of an image without running it, and the organisers' run lines as facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flarekit.containers import Conditions
from flarekit.verification import image_checks
from flarekit.verification.remedies import image_fix
from flarekit.verification.trials import STRICTEST, TaskFacts
from tests.containers import small_images
from tests.verification.fake_images import FLARE, PLATFORM, FakeSandbox, image_under_test
from tests.verification.test_run_checks import FLARE_CHECKS, segment

WANTED = TaskFacts(values=frozenset({0, 1}))


@pytest.fixture
def image(tmp_path):
    """Return a function: facts of the image -> an image for it."""

    def make(archive=None, **facts):
        made = image_under_test(FLARE_CHECKS, segment, WANTED, tmp_path)
        made.sandbox = FakeSandbox(segment)
        made.sandbox.facts = replace(made.sandbox.facts, **facts)
        made.sandbox.archive = archive
        return made

    return make


@pytest.mark.parametrize(
    ("user", "root", "not_root"),
    [
        ("", "pass", "fail"),
        ("0", "pass", "fail"),
        ("root", "pass", "fail"),
        ("0:1000", "pass", "fail"),
        ("root:users", "pass", "fail"),
        ("1000", "fail", "pass"),
        ("1000:0", "fail", "pass"),
        ("user:root", "fail", "pass"),
    ],
)
def test_the_user_is_what_stands_before_the_colon(image, user, root, not_root):
    made = image(user=user)
    assert image_checks.root.look(made).state == root
    assert image_checks.not_root.look(made).state == not_root


@pytest.mark.parametrize(
    ("system", "architecture", "state"),
    [("linux", "amd64", "pass"), ("linux", "arm64", "fail"), ("windows", "amd64", "fail")],
)
def test_an_image_is_for_linux_on_amd64(image, system, architecture, state):
    found = image_checks.amd64.look(image(system=system, architecture=architecture))
    assert found.state == state
    assert state == "pass" or f"{system}/{architecture}" in found.reason


@pytest.mark.parametrize(("size_gb", "state"), [(9.9, "pass"), (10.0, "pass"), (10.1, "warn")])
def test_above_ten_gigabytes_an_image_is_large(image, size_gb, state):
    assert image_checks.size.look(image(size_bytes=int(size_gb * 1e9))).state == state


def test_something_has_to_start(image):
    assert image_checks.starts_something.look(image(command=("x",), entrypoint=())).state == "pass"
    assert image_checks.starts_something.look(image(command=(), entrypoint=("x",))).state == "pass"
    assert image_checks.starts_something.look(image(command=(), entrypoint=())).state == "fail"


@pytest.mark.parametrize(
    ("names", "state"),
    [
        (("team:latest",), "pass"),
        (("host:5000/group/team:latest",), "pass"),
        (("team:1", "team:latest"), "pass"),
        (("team:1",), "warn"),
        (("host:5000/Team.A:latest",), "fail"),
        ((), "warn"),
    ],
)
def test_the_engine_s_image_is_called_as_the_evaluator_will(image, names, state):
    assert image_checks.team_name.look(image(names=names)).state == state


def test_a_tar_holds_one_image(image, tmp_path):
    path = tmp_path / "team.tar"
    small_images.save(path, [small_images.layer(small_images.entry("a", b"x"))])
    assert image_checks.one_image.look(image(archive=path)).state == "pass"
    assert image_checks.one_image.look(image()).state == "pass"
    small_images.save(path, [], manifest=2)
    assert "2 images" in image_checks.one_image.look(image(archive=path)).reason
    small_images.save(path, [], manifest=0)
    assert "0 images" in image_checks.one_image.look(image(archive=path)).reason


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("unable to find user x: no matching entries in passwd file", "USER"),
        ("unable to find group x", "USER"),
        ("exec /run.sh: exec format error", "#!/bin/sh"),
        ('exec: "/bin/bash": stat /bin/bash: no such file or directory', "install"),
        ('exec: "run": executable file not found in $PATH', "install"),
        ("exec: permission denied", "chmod"),
        ("No command specified", "CMD"),
    ],
)
def test_each_reason_not_to_start_has_a_remedy_of_its_own(reason, words):
    assert words in image_fix(f"Error response from daemon: {reason}")


def test_a_reason_that_is_not_known_has_no_remedy_of_its_own():
    assert image_fix("something else altogether") == ""


def test_the_run_lines_are_the_organisers():
    assert FLARE.command == ("/bin/bash", "-c", "sh predict.sh")
    assert (FLARE.inputs, FLARE.outputs) == ("/workspace/inputs", "/workspace/outputs")
    assert FLARE.writable_inputs
    assert FLARE.conditions == Conditions(
        network=True,
        capabilities=True,
        new_privileges=True,
        pids=None,
        shm_mib=64,
        memory_mib=28 * 1024,
    )
    assert PLATFORM.command is None
    assert (PLATFORM.inputs, PLATFORM.outputs) == ("/input", "/output")
    assert not PLATFORM.writable_inputs
    strict = Conditions(
        network=False, capabilities=False, new_privileges=False, pids=256, memory_mib=30 * 1024,
        shm_mib=128,
    )  # fmt: skip
    assert PLATFORM.conditions == strict
    assert replace(strict, memory_mib=28 * 1024, shm_mib=64) == STRICTEST
