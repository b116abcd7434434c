from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
import SimpleITK

from flarekit import conventions
from flarekit.containers import SandboxError
from flarekit.verification.check import ImageChecks
from flarekit.verification.platform_checks import PLATFORM_IMAGE, PLATFORM_RUNS, linked_input, shell
from flarekit.verification.run_checks import RUNS
from flarekit.verification.trials import TaskFacts
from tests.verification.fake_images import (
    CONFIG,
    PLATFORM,
    Failure,
    FakeSandbox,
    failed,
    findings,
    image_under_test,
    read,
    sample,
)

WANTED = TaskFacts(values=frozenset({0, 1}), time_s=60)


def listed(folder, wanted):
    sample(folder, wanted)
    (folder / "inputs.json").write_text("[]")


CONVENTION = ImageChecks(
    mask_values=(),
    run_line=PLATFORM,
    write_sample=sample,
    checks=(*PLATFORM_IMAGE, *RUNS, *PLATFORM_RUNS),
)


def good(inside):
    image = read(inside.image_of("/input/images/ct"))
    mask = SimpleITK.GetArrayFromImage(image) > 0
    inside.write("/output/images/mask/a.mha", mask.astype(np.uint8), image)


def follows_no_links(inside):
    if inside.run.linked:
        raise Failure("/mnt/platform/input/images/ct/a.mha is not below /input")
    good(inside)


def keeps_its_model_in_tmp(inside):
    if inside.path("/tmp") is not None:  # noqa: S108
        raise Failure("no file /tmp/weights.pt to take the weights from")
    good(inside)


def lists_the_model_folder(inside):
    if inside.path("/opt/ml/model") is None:
        raise Failure("FileNotFoundError: [Errno 2] No such file or directory")
    good(inside)


def reads_the_model_folder(inside):
    folder = inside.path("/opt/ml/model")
    if folder is None or not (folder / "weights.pt").exists():
        raise Failure("no file /opt/ml/model/weights.pt to take the weights from")
    good(inside)


def takes_weights_where_the_folder_is(inside):
    folder = inside.path("/opt/ml/model")
    if folder is not None and not list(folder.iterdir()):
        raise Failure("the model folder holds no weights at all")
    good(inside)


def takes_any_file_for_weights(inside):
    folder = inside.path("/opt/ml/model")
    if folder is not None and list(folder.iterdir()):
        raise Failure("notes.txt does not hold weights of a network")
    good(inside)


def writes_less_with_a_model(inside):
    folder = inside.path("/opt/ml/model")
    if folder is None or not list(folder.iterdir()):
        good(inside)


def needs_no_list(inside):
    if inside.path("/input/inputs.json").exists():
        entries = json.loads(inside.path("/input/inputs.json").read_text())
        raise Failure(f"did not expect a list of {len(entries)} sockets there")
    good(inside)


def needs_the_list(inside):
    if not inside.path("/input/inputs.json").exists():
        raise Failure("there has to be an inputs.json in the folder")
    good(inside)


def reserves_memory(inside):
    if inside.conditions.data_mib is not None:
        raise Failure("could not allocate an arena of 64 GB")
    good(inside)


def says_nothing_of_damage(inside):
    try:
        good(inside)
    except Failure as end:
        raise Failure("Traceback (most recent call last):\nKeyError: 'ct'\n") from end


def hides_damage(inside):
    try:
        good(inside)
    except Failure as end:
        raise Failure(end.stderr, exit_code=0) from end


def hides_that_nothing_was_there(inside):
    if inside.path("/input/images").exists():
        good(inside)


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("program", "names"),
    [
        (good, set()),
        (follows_no_links, {"linked_input"}),
        (keeps_its_model_in_tmp, {"empty_tmp"}),
        (lists_the_model_folder, {"model_absent", "ends_well"}),
        (reads_the_model_folder, {"model_absent", "ends_well"}),
        (takes_weights_where_the_folder_is, {"model_empty"}),
        (takes_any_file_for_weights, {"model_filled"}),
        (writes_less_with_a_model, {"model_filled"}),
        (needs_no_list, {"inputs_json"}),
        (reserves_memory, {"data_limit"}),
        (says_nothing_of_damage, {"corrupt_input", "no_input"}),
        (hides_damage, {"corrupt_input", "no_input"}),
        (hides_that_nothing_was_there, {"no_input"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_misbehaviour_is_named_by_its_check(tmp_path, program, names):
    found = findings(CONVENTION, program, WANTED, tmp_path)
    assert failed(found) == names
    if not names:
        assert {finding.state for finding in found.values()} == {"pass"}


def test_reasons_say_what_happened(tmp_path):
    found = findings(CONVENTION, follows_no_links, WANTED, tmp_path / "links")
    assert found["linked_input"].reason == (
        "with /input as a link to /mnt/platform/input: exit code 1: "
        "/mnt/platform/input/images/ct/a.mha is not below /input"
    )
    found = findings(CONVENTION, reads_the_model_folder, WANTED, tmp_path / "model")
    assert "/opt/ml/model/weights.pt" in found["model_absent"].reason
    assert found["model_filled"].state == "skip"
    found = findings(CONVENTION, reserves_memory, WANTED, tmp_path / "memory")
    assert "needs more memory than RLIMIT_DATA leaves it" in found["data_limit"].reason


def test_a_run_that_fails_for_another_reason_says_nothing_of_the_model(tmp_path):
    def fails(_inside):
        raise Failure("the network is of another size than its weights")

    found = findings(CONVENTION, fails, WANTED, tmp_path)
    assert found["model_absent"].state == "skip"
    assert failed(found) == {"ends_well"}


def test_where_the_sample_has_a_list_of_sockets_it_is_taken_away(tmp_path):
    convention = ImageChecks(
        mask_values=(), run_line=PLATFORM, write_sample=listed, checks=CONVENTION.checks
    )
    found = findings(convention, needs_the_list, WANTED, tmp_path / "needs")
    assert not failed(found)
    assert found["inputs_json"].state == "warn"  # the platform always writes it
    assert found["inputs_json"].reason.startswith("without inputs.json: ")
    assert not failed(findings(convention, good, WANTED, tmp_path / "good"))


def test_the_list_of_sockets_names_images_and_values(tmp_path):
    seen = []

    def looks(inside):
        path = inside.path("/input/inputs.json")
        if path.exists():
            seen.append(json.loads(path.read_text()))
        good(inside)

    findings(CONVENTION, looks, WANTED, tmp_path)
    (entries,) = seen
    assert [(entry["socket"]["slug"], entry["socket"]["relative_path"]) for entry in entries] == [
        ("ct", "images/ct"),
        ("note", "note.json"),
    ]
    assert entries[0]["image"]["name"] == "a.mha"
    assert all(entry["interface"] == entry["socket"] for entry in entries)


def test_an_image_without_a_shell_is_caught(tmp_path):
    image = image_under_test(CONVENTION, good, WANTED, tmp_path)
    assert shell.look(image).state == "pass"
    image.sandbox = FakeSandbox(good, shell=False)
    finding = shell.look(image)
    assert finding.state == "fail"
    assert finding.reason == "/bin/sh does not start (exit code 127: no such file: /bin/sh)"


def test_a_link_that_the_sandbox_cannot_make_is_not_judged(tmp_path):
    class NoLinks(FakeSandbox):
        def run(self, run):
            if run.linked:
                raise SandboxError("no symbolic link could be put into the image", fix="add ln")
            return super().run(run)

    image = image_under_test(CONVENTION, good, WANTED, tmp_path)
    image.sandbox = NoLinks(good)
    finding = linked_input.look(image)
    assert finding.state == "skip"
    assert "no symbolic link" in finding.reason


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"architecture": "arm64"}, "amd64"),
        ({"config": {"Cmd": ["x"]}}, "not_root"),
        ({"config": {"User": "0:0", "Cmd": ["x"]}}, "not_root"),
        ({"config": {"User": "1000"}}, "starts_something"),
    ],
)
def test_the_image_s_own_facts_are_judged(tmp_path, change, name):
    image = image_under_test(CONVENTION, good, WANTED, tmp_path)
    config = {**copy.deepcopy(CONFIG), **change}
    image.sandbox = FakeSandbox(good, config)
    found = {check.name: check.look(image).state for check in PLATFORM_IMAGE}
    assert [check for check, state in found.items() if state == "fail"] == [name]


@pytest.mark.parametrize("convention", conventions.verifiable())
def test_every_check_of_a_convention_has_a_name_of_its_own_and_says_what_to_do(convention):
    checks = conventions.checks_of(convention).checks
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)
    for check in checks:
        assert not check.asserts.endswith(".")
        assert len(check.fix.split()) >= 3
