"""What is asserted of runs: contents and not only names, memory, signals, remedies that fit."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK

from flarekit import conventions
from flarekit.containers import FACTS_LABEL, Conditions, ProcessResult
from flarekit.images.stated_task import stated_task
from flarekit.images.verify import _verdicts
from flarekit.verification.check import ImageChecks, verdict_of
from flarekit.verification.explanations import needs_of
from flarekit.verification.image_checks import facts_label, team_name
from flarekit.verification.platform_checks import PLATFORM_RUNS
from flarekit.verification.remedies import gpu_remedy, known_fault, says_gpu_is_missing
from flarekit.verification.run_checks import RUNS
from flarekit.verification.trials import TaskFacts
from tests.verification.fake_images import (
    CONFIG,
    FLARE,
    PLATFORM,
    Failure,
    FakeSandbox,
    Inside,
    failed,
    findings,
    image_under_test,
    read,
    sample,
)

WANTED = TaskFacts(values=frozenset({0, 1}), time_s=60)


PLATFORM_CHECKS = ImageChecks(
    mask_values=(), run_line=PLATFORM, write_sample=sample, checks=(*RUNS, *PLATFORM_RUNS)
)
ROOMY = replace(FLARE, inputs="/input", outputs="/output")
FLARE_CHECKS = ImageChecks(mask_values=(), run_line=ROOMY, write_sample=sample, checks=RUNS)


def segment(inside, *, weights=True):
    image = read(inside.image_of("/input/images/ct"))
    mask = (SimpleITK.GetArrayFromImage(image) > 0) & weights
    inside.write("/output/images/mask/a.mha", mask.astype(np.uint8), image)


def silently_without(lacks):
    """Return a program that writes an empty mask where it lacks something, and says nothing."""
    return lambda inside: segment(inside, weights=not lacks(inside.conditions))


LACKS = {
    "needs the network": lambda has: not has.network,
    "needs more than 64 MB of shared memory": lambda has: has.shm_mib < 128,
    "needs more than 256 processes": lambda has: has.pids is not None,
    "needs Linux capabilities": lambda has: not has.capabilities,
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("need", LACKS)
def test_a_mask_that_is_empty_only_in_the_strict_sandbox_fails_with_what_it_lacks(need, tmp_path):
    found = findings(FLARE_CHECKS, silently_without(LACKS[need]), WANTED, tmp_path)
    assert {"strict_sandbox"} <= failed(found) <= {"strict_sandbox", "unprivileged"}
    reason = found["strict_sandbox"].reason
    assert need in reason or "with a network and fewer limits" in reason
    assert "labelled voxel" in reason


def test_a_mask_that_is_empty_only_for_another_user_fails(tmp_path):
    program = silently_without(lambda has: has.user not in (None, "0:0"))
    found = findings(FLARE_CHECKS, program, WANTED, tmp_path)
    assert failed(found) == {"unprivileged"}
    assert "needs to be root, and does not say so" in found["unprivileged"].reason


@pytest.mark.parametrize("need", ["needs the network", "needs more than 256 processes"])
def test_where_the_usual_run_is_strict_it_is_compared_with_a_roomy_one(need, tmp_path):
    found = findings(PLATFORM_CHECKS, silently_without(LACKS[need]), WANTED, tmp_path)
    assert "strict_sandbox" in failed(found)
    assert "with a network and fewer limits" in found["strict_sandbox"].reason


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("lacks", "name"),
    [
        (lambda inside: inside.path("/opt/ml/model") is not None, "model_empty"),
        (lambda inside: bool(inside.run.linked), "linked_input"),
        (lambda inside: inside.path("/tmp") is not None, "empty_tmp"),  # noqa: S108
        (lambda inside: inside.conditions.data_mib is not None, "data_limit"),
        (lambda inside: (inside.path("/input") / "inputs.json").exists(), "inputs_json"),
    ],
)
def test_every_run_that_must_write_the_usual_files_must_write_the_usual_mask(lacks, name, tmp_path):
    def program(inside):
        segment(inside, weights=not lacks(inside))

    found = findings(PLATFORM_CHECKS, program, WANTED, tmp_path)
    assert name in failed(found)
    assert "no labelled voxel instead of" in found[name].reason


def test_masks_that_differ_a_little_each_time_are_not_held_against_the_sandbox(tmp_path):
    noise = np.random.default_rng(0)

    def program(inside):
        image = read(inside.image_of("/input/images/ct"))
        mask = SimpleITK.GetArrayFromImage(image) > 0
        flipped = mask ^ (noise.random(mask.shape) < 0.02)
        inside.write("/output/images/mask/a.mha", flipped.astype(np.uint8), image)

    found = findings(FLARE_CHECKS, program, WANTED, tmp_path)
    assert failed(found) == {"same_twice"}


def test_numbers_are_compared_too(tmp_path):
    def program(inside):
        segment(inside)
        volume = 12.5 if inside.conditions.network else 0
        inside.path("/output/volume.json").write_text(str(volume))

    found = findings(FLARE_CHECKS, program, WANTED, tmp_path)
    assert "strict_sandbox" in failed(found)
    assert "volume.json holds something else" in found["strict_sandbox"].reason


def test_on_the_cpu_the_mask_has_to_be_about_the_same(tmp_path):
    with_gpu = replace(WANTED, gpus="all")
    silent = silently_without(lambda has: has.gpus is None)
    found = findings(FLARE_CHECKS, silent, with_gpu, tmp_path / "a")
    assert "without_gpu" in failed(found)
    found = findings(FLARE_CHECKS, segment, with_gpu, tmp_path / "b")
    assert failed(found) == set()


MESSAGES = [
    ("RuntimeError: CUDA error: no kernel image is available for execution", "architecture"),
    ("NVIDIA X with CUDA capability sm_120 is not compatible with the current PyTorch "
     "installation.", "architecture"),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040)", "driver"),
    ("CUDA driver version is insufficient for CUDA runtime version", "driver"),
    ("the provided PTX was compiled with an unsupported toolchain.", "driver"),
    ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "GPU memory"),
    ("RuntimeError: CUDA error: invalid device ordinal", "by a number"),
    ("cuDNN error: CUDNN_STATUS_ARCH_MISMATCH", "architecture"),
    ("ptxas fatal : Value 'sm_120' is not defined for option 'gpu-name'", "architecture"),
    ("CUDA failure 35: CUDA driver version is old", "driver"),
    ("CUDA error: system has unsupported display driver / cuda driver combination", "driver"),
    ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "driver"),
    ("CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image", "architecture"),
    ("nvrtc: error: invalid value for --gpu-architecture (-arch)", "architecture"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "words"), MESSAGES)
@pytest.mark.parametrize("gpus", [None, "all"])
def test_a_gpu_that_is_of_no_use_is_not_called_missing(message, words, gpus):
    said = f"Traceback\n{message}\nCompile with `TORCH_USE_CUDA_DSA` to enable assertions.\n"
    remedy = gpu_remedy(said, said.splitlines()[-1], gpus)
    assert words in remedy.words
    assert "--gpus" not in remedy.fix
    assert not says_gpu_is_missing(message)


def test_a_missing_gpu_is_given_with_gpus_only_where_there_was_none():
    line = "RuntimeError: No CUDA GPUs are available"
    assert "--gpus all" in gpu_remedy(line, line, None).fix
    given = gpu_remedy(line, line, "device=1")
    assert "does not find it" in given.words
    assert "--gpus" not in given.fix
    for said in ("RuntimeError: CUDA unknown error - this may be due to an incorrectly set up",
                 "CUDA driver initialization failed, you might not have a CUDA gpu.",
                 "NVML: Driver Not Loaded"):  # fmt: skip
        assert "does not find it" in gpu_remedy(said, said, "all").words
    assert known_fault("ValueError: bad channel") is None
    assert gpu_remedy("ValueError: bad channel", "ValueError: bad channel", "all") is None
    other = "RuntimeError: CUDA error: device-side assert triggered"
    assert gpu_remedy(other, other, "all") is None


def test_with_a_gpu_given_the_remedy_is_another_than_to_give_one(tmp_path):
    def program(_inside):
        raise Failure("RuntimeError: CUDA error: no kernel image is available\nfor debugging\n")

    found = findings(FLARE_CHECKS, program, replace(WANTED, gpus="all"), tmp_path)
    assert failed(found) == {"ends_well"}
    assert "architecture of this GPU" in found["ends_well"].reason
    assert "get_arch_list" in found["ends_well"].fix


def test_a_user_that_is_looked_up_is_no_need_to_be_root(tmp_path):
    def program(inside):
        if inside.conditions.user == "1000:1000":
            raise Failure("KeyError: 'getpwuid(): uid not found: 1000'")
        segment(inside)

    found = findings(FLARE_CHECKS, program, WANTED, tmp_path)
    assert failed(found) == {"unprivileged"}
    assert "root" not in found["unprivileged"].reason
    assert "/etc/passwd" in found["unprivileged"].reason
    assert "LOGNAME" in found["unprivileged"].fix


class NotStarted(FakeSandbox):
    """An image whose user Docker does not find."""

    def run(self, run):
        if run.conditions.user is None:
            reason = "Error response from daemon: unable to find user algorithm"
            return ProcessResult(exit_code=127, seconds=0, not_started=reason)
        return super().run(run)


def test_a_container_that_did_not_start_is_told_in_the_engine_s_words(tmp_path):
    image = image_under_test(FLARE_CHECKS, segment, WANTED, tmp_path)
    image.sandbox = NotStarted(segment)
    (ends_well,) = [each.finding for each in _verdicts(image, [RUNS[0]])]
    assert "did not start: Error response from daemon: unable to find user" in ends_well.reason
    assert "root" not in ends_well.reason
    assert "USER" in ends_well.fix


def leaves(inside, make):
    segment(inside)
    make(inside.path("/output"))


@pytest.mark.parametrize(
    ("make", "state", "words"),
    [
        (lambda out: (out / "tmp1").mkdir(0o700), "warn", "tmp1/ (drwx------"),
        (lambda out: (out / "images/mask/a.mha").chmod(0o600), "warn", "a.mha (-rw-------"),
        (lambda out: (out / "b").symlink_to("/etc/passwd"), "fail", "b -> /etc/passwd: a link"),
        (lambda out: (out / "c").symlink_to("nowhere"), "fail", "c -> nowhere"),
    ],
)
def test_what_others_cannot_read_is_named(make, state, words, tmp_path):
    program = lambda inside: leaves(inside, make)  # noqa: E731
    found = findings(FLARE_CHECKS, program, WANTED, tmp_path)
    assert found["readable_output"].state == state
    assert words in found["readable_output"].reason


def test_what_this_user_cannot_read_is_named_and_opened_to_be_judged(tmp_path, monkeypatch):
    def program(inside):
        segment(inside)
        (inside.path("/output") / "images" / "mask" / "a.mha").chmod(0o000)

    class Opens(FakeSandbox):
        def open_up(self, folder):
            for path in folder.rglob("*"):
                path.chmod(0o777)
            return True

    may = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: may(path, mode) and path.stat().st_mode & 0o444 > 0
    )
    image = image_under_test(FLARE_CHECKS, program, WANTED, tmp_path)
    image.sandbox = Opens(program)
    found = {each.check.name: each.finding for each in _verdicts(image, RUNS)}
    assert failed(found) == {"readable_output"}
    assert "a.mha (----------, of user" in found["readable_output"].reason


def test_names_that_are_no_utf_8_can_be_printed(tmp_path):
    def program(inside):
        segment(inside)
        (inside.path("/output") / os.fsdecode(b"\xb7\xd6.txt")).write_text(str(os.urandom(4)))

    found = findings(FLARE_CHECKS, program, WANTED, tmp_path)
    assert r"\xb7\xd6.txt differs" in found["same_twice"].reason
    found["same_twice"].reason.encode()


def test_pipes_and_sockets_in_the_output_are_files_that_nobody_asked_for(tmp_path):
    program = lambda inside: leaves(inside, lambda out: os.mkfifo(out / "pipe"))  # noqa: E731
    image = image_under_test(FLARE_CHECKS, program, WANTED, tmp_path)
    assert "pipe" in image.base().files


class Stops(FakeSandbox):
    """An image that is sent SIGTERM; what it does then is for a test to say."""

    def __init__(self, program, after_s, exit_code, *, hears_from=0.0):
        super().__init__(program)
        self.after_s, self.exit_code, self.hears_from = after_s, exit_code, hears_from

    def run(self, run):
        if run.terminate_after_s is None:
            return super().run(run)
        hears = run.terminate_after_s >= self.hears_from
        if not hears or not self.exit_code:
            super().run(replace(run, terminate_after_s=None))
        return ProcessResult(
            exit_code=self.exit_code if hears else 0,
            stdout="",
            stderr="",
            seconds=run.terminate_after_s + self.after_s,
            stopped_after_s=self.after_s,
        )


@pytest.mark.parametrize(
    ("after_s", "exit_code", "state"),
    [(0.1, 143, "pass"), (0.1, 0, "skip"), (4.9, 0, "skip"), (5.1, 0, "fail"), (6, 143, "fail")],
)
def test_a_run_that_went_to_its_end_says_nothing_of_signals(after_s, exit_code, state, tmp_path):
    image = image_under_test(FLARE_CHECKS, segment, WANTED, tmp_path)
    image.sandbox = Stops(segment, after_s, exit_code)
    stops = [check for check in RUNS if check.name == "stops"]
    (verdict,) = _verdicts(image, stops)
    assert verdict.finding.state == state


def test_a_run_that_hears_the_signal_only_later_is_judged_by_that(tmp_path):
    image = image_under_test(FLARE_CHECKS, segment, WANTED, tmp_path)
    image.sandbox = Stops(segment, 0.1, 143, hears_from=0.5)
    (verdict,) = _verdicts(image, [check for check in RUNS if check.name == "stops"])
    assert verdict.finding.state == "pass"


def test_what_fails_under_all_conditions_needs_none_of_them(tmp_path):
    def crashes(_inside):
        raise Failure("a fault of its own")

    image = image_under_test(FLARE_CHECKS, crashes, WANTED, tmp_path)
    assert needs_of(image, Conditions(), lambda trial: trial.failure is None) == []


@pytest.mark.parametrize(
    ("words", "lacks"),
    [
        ("needs the network", lambda has: not has.network),
        ("needs more than 64 MB of shared memory (/dev/shm)", lambda has: has.shm_mib <= 64),
        ("needs more than 256 processes and threads", lambda has: has.pids is not None),
        ("needs Linux capabilities", lambda has: not has.capabilities),
        ("needs to raise its privileges", lambda has: not has.new_privileges),
    ],
)
def test_what_one_condition_forbids_is_what_it_needs(words, lacks, tmp_path):
    def program(inside):
        if lacks(inside.conditions):
            raise Failure("it lacks something")

    image = image_under_test(FLARE_CHECKS, program, WANTED, tmp_path)
    assert needs_of(image, Conditions(), lambda trial: trial.failure is None) == [words]


def test_what_two_conditions_forbid_together_needs_both(tmp_path):
    def program(inside):
        if not inside.conditions.network or not inside.conditions.capabilities:
            raise Failure("it lacks something")

    image = image_under_test(FLARE_CHECKS, program, WANTED, tmp_path)
    needs = needs_of(image, Conditions(), lambda trial: trial.failure is None)
    assert needs == ["needs the network", "needs Linux capabilities"]


def test_the_strictest_run_has_the_memory_that_flare_gives(tmp_path):
    image = image_under_test(PLATFORM_CHECKS, segment, WANTED, tmp_path)
    assert image.strictest.memory_mib == FLARE.conditions.memory_mib


@pytest.mark.parametrize(
    ("count", "reason"), [(3, "0; 1; 2"), (4, "0; 1; 2 (and 1 more)"), (5, "0; 1; 2 (and 2 more)")]
)
def test_three_faults_are_named_and_more_are_counted(count, reason):
    assert verdict_of([str(number) for number in range(count)]).reason == reason


def test_memory_is_shown_beside_its_limit(tmp_path):
    found = findings(FLARE_CHECKS, segment, replace(WANTED, memory_mib=512), tmp_path)
    assert found["in_memory"].state == "pass"
    assert found["in_memory"].reason == "300 MiB resident, ten samples a second; limit 512 MiB"
    close = findings(FLARE_CHECKS, segment, replace(WANTED, memory_mib=320), tmp_path / "b")
    assert close["in_memory"].state == "warn"


def test_the_limit_that_is_asked_for_is_that_of_every_run(tmp_path):
    seen = []

    def program(inside):
        seen.append(inside.conditions.memory_mib)
        segment(inside)

    findings(FLARE_CHECKS, program, replace(WANTED, memory_mib=512), tmp_path)
    assert set(seen) == {512, None}  # one run is without limits, to be compared with
    assert seen.count(None) == 1


LABELS = [
    ("not json", "is not JSON"),
    ("[1]", "is not a JSON object"),
    ("3", "is not a JSON object"),
    ('{"values": "abc"}', "values are"),
    ('{"values": [1, "2"]}', "values are"),
    ('{"values": [300]}', "values are"),
    ('{"values": [256]}', "values are"),
    ('{"values": [-1]}', "values are"),
    ('{"values": {"liver": 1}}', "values are"),
    ('{"values": 1}', "values are"),
    ('{"settings": []}', "settings are []"),
    ('{"settings": "x"}', "settings are"),
    ('{"settings": {"edition": "III"}}', "edition"),
    ('{"settings": {"edition": [1]}}', "edition"),
    ("[" * 100_000, "is not JSON"),
]


@pytest.mark.parametrize(("label", "words"), LABELS)
def test_a_label_that_somebody_wrote_by_hand_is_left_aside_with_what_is_wrong(
    label, words, tmp_path
):
    config = {**CONFIG, "config": {**CONFIG["config"], "Labels": {FACTS_LABEL: label}}}
    task = stated_task(FakeSandbox(segment, config).facts, "autopet")
    assert (task.values, task.settings) == (None, None)
    assert words in task.faults[0]
    wanted = replace(WANTED, label_faults=task.faults)
    (verdict,) = _verdicts(image_under_test(FLARE_CHECKS, segment, wanted, tmp_path), [facts_label])
    assert verdict.finding.state == "warn"


def test_what_is_right_in_a_label_is_kept_beside_what_is_wrong():
    label = '{"values": "abc", "settings": {"edition": 3}}'
    config = {**CONFIG, "config": {"Labels": {FACTS_LABEL: label}}}
    task = stated_task(FakeSandbox(segment, config).facts, "autopet")
    assert task.settings == {"edition": 3}
    assert len(task.faults) == 1


def test_values_from_0_to_255_are_taken():
    config = {"config": {"Labels": {FACTS_LABEL: '{"values": [0, 1, 255]}'}}}
    task = stated_task(FakeSandbox(segment, config).facts, "flare")
    assert (task.values, task.faults) == ((0, 1, 255), ())


def test_a_config_of_odd_types_is_read():
    config = {"config": {"Entrypoint": "run", "Cmd": None, "Labels": ["x"], "Env": "A=1"}}
    facts = FakeSandbox(segment, config).facts
    assert facts.entrypoint == ("run",)
    assert (facts.command, facts.labels) == ((), {})
    assert FakeSandbox(segment, {"config": []}).facts.user == ""


def test_a_tar_that_is_no_tar_gz_is_not_what_the_evaluator_looks_for(tmp_path):
    image = image_under_test(FLARE_CHECKS, segment, WANTED, tmp_path)
    image.sandbox.facts = replace(image.sandbox.facts, names=("team:latest",))
    for name, state in (("team.tar.gz", "pass"), ("team.tar.xz", "warn"), ("other.tar", "fail")):
        image.sandbox.archive = tmp_path / name
        assert team_name.look(image).state == state
    image.sandbox.facts = replace(image.sandbox.facts, names=())
    image.sandbox.archive = tmp_path / "team.tar.gz"
    assert "named none" in team_name.look(image).reason


class Swallows(FakeSandbox):
    """An image whose ENTRYPOINT runs something else than the command."""

    parts = "sh predict.sh"

    def run(self, run):
        if run.entrypoint == "/bin/bash" and "command -v sh" in run.command[-1]:
            lines = "\n".join(self.parts.split())
            return ProcessResult(exit_code=0, stdout=f"{lines}\n", seconds=0.1)
        return ProcessResult(exit_code=2, stderr="usage: main.py FILE", seconds=0.1)


def test_an_entrypoint_that_swallows_the_command_is_named(tmp_path):
    config = {**CONFIG, "config": {"Entrypoint": ["python", "/main.py"], "Cmd": []}}
    (shells,) = [check for check in conventions.checks_of("flare").checks if check.name == "shells"]
    image = image_under_test(FLARE_CHECKS, segment, WANTED, tmp_path)
    image.sandbox = Swallows(segment, config)
    found = shells.look(image)
    assert 'ENTRYPOINT ["python", "/main.py"]' in found.reason
    assert 'exec "$@"' in found.fix
    image.sandbox.parts = "sh"
    assert "no predict.sh" in shells.look(image).reason
    image.sandbox.parts = "predict.sh"
    assert "no sh" in shells.look(image).reason


def test_what_would_control_a_terminal_is_shown_as_text(tmp_path):
    def program(_inside):
        raise Failure("\x1b[2Jgone\x07 and a bell")

    found = findings(FLARE_CHECKS, program, WANTED, tmp_path)
    assert r"\x1b[2Jgone\x07 and a bell" in found["ends_well"].reason


@pytest.mark.long
def test_by_how_much_a_mask_is_another_is_told_in_percent(tmp_path):
    def program(inside):
        image = read(inside.image_of("/input/images/ct"))
        mask = SimpleITK.GetArrayFromImage(image) > 0
        if not inside.conditions.network:
            mask[3:] = False
        inside.write("/output/images/mask/a.mha", mask.astype(np.uint8), image)

    found = findings(FLARE_CHECKS, program, WANTED, tmp_path)
    words = found["strict_sandbox"].reason
    counts = [int(part.split()[-1]) for part in words.split(" labelled voxels")[:2]]
    share = 100 * counts[0] / counts[1]
    assert 40 < share < 60
    assert f"(the same in {share:.0f} % of them)" in words


class Interrupted(Stops):
    """An image that leaves something when it is stopped."""

    def __init__(self, leave):
        super().__init__(segment, 0.1, 143)
        self.leave, self.asked = leave, []

    def run(self, run):
        if run.terminate_after_s is not None:
            self.asked.append(run.terminate_after_s)
            self.leave(Inside(run).path("/output"))
        return super().run(run)


def half(out):
    (out / "images" / "mask").mkdir(parents=True)
    (out / "images" / "mask" / "a.mha").write_bytes(b"half")


@pytest.mark.parametrize(
    ("leave", "words"),
    [
        (half, "left half of images/mask/a.mha"),
        (lambda out: (out / "a.part").write_text("x"), "left a.part behind"),
        (lambda out: (out / "images" / "mask").mkdir(parents=True), ""),
        (lambda out: (out / "other").mkdir(), "left other/ behind"),
        (lambda _: None, ""),
    ],
)
def test_what_a_stopped_run_leaves_is_judged(leave, words, tmp_path):
    image = image_under_test(FLARE_CHECKS, segment, WANTED, tmp_path)
    image.sandbox = Interrupted(leave)
    (verdict,) = _verdicts(image, [check for check in RUNS if check.name == "stops"])
    assert verdict.finding.reason == words
    assert image.sandbox.asked == [pytest.approx(0.4 * image.base().outcome.seconds)]


def test_only_what_works_with_writable_inputs_writes_into_them(tmp_path):
    def writes(inside):
        (mount,) = [each for each in inside.run.mounts if each.there == "/input"]
        if not mount.writable:
            raise Failure("OSError: [Errno 30] Read-only file system: '/input/cache'")
        segment(inside)

    found = findings(PLATFORM_CHECKS, writes, WANTED, tmp_path / "a")
    assert "writes into /input" in found["ends_well"].reason

    def crashes(_inside):
        raise Failure("ValueError: nothing to do with it")

    found = findings(PLATFORM_CHECKS, crashes, WANTED, tmp_path / "b")
    assert "writes into" not in found["ends_well"].reason
