"""What becomes of checks as a whole: verdicts, exits, and images that behave in no known way."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace

import pytest

from flarekit import conventions
from flarekit.cli.console import Console
from flarekit.cli.options import numbers
from flarekit.cli.verdicts import run_verify
from flarekit.containers import RefusedError, SandboxError
from flarekit.core.errors import InputError, UsageError
from flarekit.images import verify as verifying
from flarekit.images.verify import VerifyRequest, verify
from flarekit.verification.check import PASS, Check, fail, skip
from flarekit.verification.trials import ImageUnderTest, TaskFacts
from tests.verification.fake_images import FLARE, FakeSandbox


def check(name, look, *, runs=False):
    return Check(name=name, asserts="it holds", fix="mend it", look=look, runs=runs)


def stumble(_bench):
    raise IndexError("list index out of range")


def refuse(_bench):
    raise RefusedError("no such limit here", fix="use Docker")


@pytest.fixture
def judge(tmp_path):
    """Return a function that judges checks by a program that does nothing."""

    def judge(*checks):
        image = ImageUnderTest(
            FakeSandbox(lambda _inside: None),
            FLARE,
            TaskFacts(values=frozenset({0})),
            lambda _folder, _wanted: None,
            tmp_path / "work",
        )
        return [each.finding for each in verifying._verdicts(image, checks)]

    return judge


def test_a_check_that_stumbles_over_odd_output_fails_and_the_others_go_on(judge):
    first, second = judge(check("odd", stumble), check("good", lambda _: PASS))
    assert first.state == "fail"
    assert "IndexError: list index out of range" in first.reason
    assert second == PASS


@pytest.mark.parametrize(
    "full",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/tmp/x"),
        shutil.Error([("/a", "/b", str(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))]),
    ],
    ids=["space", "quota", "of_several_files"],
)
def test_a_full_disk_of_this_machine_is_not_the_image_s_fault(judge, full):
    def look(_bench):
        raise full

    with pytest.raises(SandboxError, match="no space left for the runs of odd") as caught:
        judge(check("odd", look))
    assert "TMPDIR" in caught.value.fix


def test_another_fault_of_a_file_is_the_image_s(judge):
    def look(_bench):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "mask.nii.gz")

    (finding,) = judge(check("odd", look))
    assert "cannot be judged: FileNotFoundError" in finding.reason


def test_conditions_that_the_sandbox_cannot_make_are_left_out(judge):
    (finding,) = judge(check("limit", refuse))
    assert finding == skip("no such limit here")


@pytest.fixture
def _an_image(monkeypatch):
    """Let every image be a fake, with three checks."""
    checks = (
        check("good", lambda _: PASS),
        check("bad", lambda _: fail("one [thing] is wrong")),
        check("open", lambda _: skip("not seen")),
    )
    sandbox = FakeSandbox(lambda _inside: None)
    monkeypatch.setattr(verifying, "_open_docker", lambda _image: sandbox)
    chosen = replace(conventions.checks_of("flare"), checks=checks)
    monkeypatch.setattr(conventions, "checks_of", lambda _name: chosen)


@pytest.mark.usefixtures("_an_image")
def test_the_table_says_what_is_wrong_and_what_to_do(capsys):
    request = VerifyRequest(image="x", convention="flare", backend="docker")
    assert run_verify(request, Console(), as_json=False) == 1
    said = capsys.readouterr()
    assert "fail  bad  it holds: one [thing] is wrong" in said.out
    assert "to do: mend it" in said.out
    assert "1 pass, 1 fail, 1 skip" in said.err


@pytest.mark.usefixtures("_an_image")
def test_json_holds_every_verdict_and_the_exit_code_tells(capsys):
    request = VerifyRequest(image="x", convention="flare", backend="docker")
    assert run_verify(request, Console(quiet=True), as_json=True) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["passed"] is False
    assert [each["state"] for each in content["checks"]] == ["pass", "fail", "skip"]
    only = replace(request, only=("good", "open"))
    assert run_verify(only, Console(quiet=True), as_json=True) == 0


@pytest.mark.usefixtures("_an_image")
def test_an_edition_s_preset_sets_time_memory_and_labels(monkeypatch):
    seen = []
    look = check("seen", lambda image: seen.append(image.task) or PASS)
    chosen = replace(conventions.checks_of("flare"), checks=(look,))
    monkeypatch.setattr(conventions, "checks_of", lambda _name: chosen)
    request = VerifyRequest(image="x", convention="flare", backend="docker", preset="flare26")
    verify(request)
    verify(replace(request, time_s=5.0, labels=(1, 2), memory_mib=100))
    first, second = seen
    assert (first.time_s, first.memory_mib, first.values) == (60.0, 28672, {0, 1})
    assert (second.time_s, second.memory_mib, second.values) == (5.0, 100, {0, 1, 2})
    with pytest.raises(UsageError, match="no preset"):
        verify(replace(request, preset="autopet5"))


@pytest.mark.usefixtures("_an_image")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"only": ("goood",)}, "did you mean 'good'"),
        ({"convention": None}, "does not say which convention"),
    ],
)
def test_unclear_requests_are_refused(changes, words):
    request = VerifyRequest(**{"image": "x", "convention": "flare", "backend": "docker", **changes})
    with pytest.raises(UsageError) as caught:
        verify(request)
    assert words in str(caught.value)


def test_a_tar_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.tar\.gz"):
        verify(VerifyRequest(image=str(tmp_path / "none.tar.gz"), convention="flare"))


def test_without_an_engine_only_a_saved_tar_can_be_verified():
    with pytest.raises(InputError, match="only a saved tar"):
        verify(VerifyRequest(image="team", convention="flare", backend="process"))


def test_label_values_are_numbers():
    assert numbers("1,2,14") == (1, 2, 14)
    with pytest.raises(UsageError, match="liver"):
        numbers("liver")
