"""What is asserted of FLARE's images: a program that behaves passes, each fault is named."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import nibabel
import numpy as np
import pytest
from isal import igzip

from flarekit import conventions
from flarekit.containers import ProcessResult
from flarekit.conventions.flare import samples
from flarekit.images import verify as verifying
from flarekit.images.verify import VerifyRequest, _verdicts, verify
from flarekit.verification.trials import ImageUnderTest, TaskFacts
from tests.verification.fake_images import Failure, FakeSandbox, failed

ROOT = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Cmd": ["sh", "predict.sh"], "WorkingDir": "/workspace"},
}
FLARE = conventions.checks_of("flare")
WANTED = TaskFacts(values=frozenset({0, 1}), time_s=15.0)


class Shells(FakeSandbox):
    """A fake image with bash, sh and predict.sh."""

    def __init__(self, program, config=ROOT, names=("team:latest",)):
        super().__init__(program, config)
        self.facts = replace(self.facts, names=names)

    def run(self, run):
        if run.command is not None and "predict.sh &&" in run.command[-1]:
            return ProcessResult(exit_code=0, stdout="here\n", seconds=0.1)
        if run.command is not None and "-n predict.sh" in run.command[-1]:
            return ProcessResult(exit_code=0, seconds=0.1)
        return super().run(run)


def save(path, mask, affine):
    image = nibabel.Nifti1Image(mask, affine)
    image.header.set_xyzt_units("mm")
    path.write_bytes(igzip.compress(image.to_bytes(), 0))


def behave(
    inside,
    *,
    change=lambda _image, mask: mask,
    name=lambda scan: scan,
    most=None,
    replaces=True,
    finish=lambda _path: None,
):
    """Write masks of all that is bright; everything else lets a test misbehave."""
    inputs, outputs = inside.path("/workspace/inputs"), inside.path("/workspace/outputs")
    for scan in sorted(inputs.glob("*_0000.nii.gz"))[:most]:
        image = nibabel.load(scan)
        try:
            hu = np.asarray(image.dataobj)
        except Exception:  # noqa: BLE001 - whatever a damaged file raises
            hu = np.zeros(image.shape)
        mask = change(image, ((hu > 60) & (hu < 1000)).astype(np.uint8))
        out = name(scan.name).removesuffix("_0000.nii.gz") + ".nii.gz"
        if replaces or not (outputs / out).exists():
            save(outputs / out, mask, image.affine)
            finish(outputs / out)


def verdicts(program, folder, *only, **options):
    image = ImageUnderTest(
        Shells(program, **options), FLARE.run_line, WANTED, FLARE.write_sample, folder / "work"
    )
    checks = [check for check in FLARE.checks if not only or check.name in only]
    return {each.check.name: each.finding for each in _verdicts(image, checks)}


@pytest.mark.slow
def test_a_program_that_behaves_passes_everything(tmp_path):
    found = verdicts(behave, tmp_path)
    assert failed(found) == set()
    skipped = {name for name, each in found.items() if each.state == "skip"}
    assert skipped == {"given_inputs"}


def only_flipped(image, mask):
    return mask if image.affine[0, 0] > 0 else mask[::-1]


def until_the_first_dot(scan):
    return scan.removesuffix("_0000.nii.gz").split(".")[0] + "_0000.nii.gz"


def leave_a_log(inside):
    behave(inside)
    inside.path("/workspace/outputs/log.txt").write_text("done")


def leave_a_folder(inside):
    behave(inside)
    logs = inside.path("/workspace/outputs/logs/deep")
    logs.mkdir(parents=True)
    (logs / "x.txt").write_text("done")


def write_into_inputs(inside):
    behave(inside)
    inside.path("/workspace/inputs/cache.npy").write_text("x")


def crash_on_damage(inside):
    for scan in inside.path("/workspace/inputs").glob("*_0000.nii.gz"):
        try:
            np.asarray(nibabel.load(scan).dataobj)
        except Exception:  # noqa: BLE001 - whatever a damaged file raises
            raise Failure("zlib.error: Error -3 while decompressing data") from None
    behave(inside)


def need_network(inside):
    if not inside.conditions.network:
        raise Failure("urllib.error.URLError: Temporary failure in name resolution")
    behave(inside)


def write_to_the_root_as_root(inside):
    if inside.conditions.read_only or inside.conditions.user not in (None, "0:0"):
        raise Failure("OSError: [Errno 30] Read-only file system: '/workspace/log.txt'")
    behave(inside)


def turn_into_whole_numbers_by_a_slope(path):
    mask = nibabel.load(path)
    scaled = nibabel.Nifti1Image(np.asarray(mask.dataobj) * np.float32(0.3), mask.affine)
    scaled.set_data_dtype(np.uint8)
    path.write_bytes(igzip.compress(scaled.to_bytes(), 0))


def forget_where_it_lies(path):
    save(path, np.asarray(nibabel.load(path).dataobj), np.eye(4))


def leave_a_link(path):
    path.unlink()
    path.symlink_to("/etc/passwd")


def take_every_file_for_a_scan(inside):
    behave(inside)
    for file in inside.path("/workspace/inputs").glob("*.json"):
        inside.path(f"/workspace/outputs/{file.stem}.nii.gz").touch()


def of_chance(_image, mask):
    return (np.random.default_rng().random(mask.shape) > 0.5).astype(np.uint8)


def crash(_inside):
    raise Failure("RuntimeError: weights not found")


FAULTS = {
    "leaves a log": (leave_a_log, {"output_tree", "other_files", "overwrites", "no_inputs"}),
    "leaves a folder": (
        leave_a_folder,
        {"output_tree", "other_files", "overwrites", "no_inputs"},
    ),
    "writes into inputs": (write_into_inputs, {"inputs_unchanged"}),
    "crashes on damage": (crash_on_damage, {"damaged_input"}),
    "needs the network": (need_network, {"strict_sandbox", "unprivileged"}),
    "writes to the root as root": (write_to_the_root_as_root, {"unprivileged"}),
    "flips": (lambda inside: behave(inside, change=only_flipped), {"orientations"}),
    "is signed": (
        lambda inside: behave(inside, change=lambda _, mask: mask.astype(np.int16)),
        {"stored_type", "overwrites", "damaged_input"},
    ),
    "has another label": (
        lambda inside: behave(inside, change=lambda _, mask: mask * 9),
        {"labels"},
    ),
    "cuts a slice": (
        lambda inside: behave(inside, change=lambda _, mask: mask[..., 1:]),
        {"geometry", "damaged_input"},
    ),
    "names masks as scans": (
        lambda inside: behave(inside, name=lambda scan: scan.removesuffix(".nii.gz")),
        {"output_tree", "other_files", "odd_names", "overwrites", "damaged_input"},
    ),
    "scales its masks": (
        lambda inside: behave(inside, finish=turn_into_whole_numbers_by_a_slope),
        {"stored_type", "labels", "overwrites"},
    ),
    "forgets the affine": (
        lambda inside: behave(inside, finish=forget_where_it_lies),
        {"geometry", "damaged_input"},
    ),
    "leaves links": (
        lambda inside: behave(inside, finish=leave_a_link),
        {"readable_output", "output_tree", "odd_names", "damaged_input"},
    ),
    "stops after the first": (lambda inside: behave(inside, most=1), {"odd_names"}),
    "takes every file for a scan": (take_every_file_for_a_scan, {"other_files"}),
    "keeps what is there": (lambda inside: behave(inside, replaces=False), {"overwrites"}),
    "leaves it to chance": (
        lambda inside: behave(inside, change=of_chance),
        {"same_twice", "odd_names", "damaged_input"},
    ),
    "cuts names at the first dot": (
        lambda inside: behave(inside, name=until_the_first_dot),
        {"odd_names", "other_files"},
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_checks_meant_for_it(fault, tmp_path):
    program, expected = FAULTS[fault]
    quick = [check.name for check in FLARE.checks if check.name != "orientations"]  # 48 scans
    found = verdicts(program, tmp_path, *(() if "orientations" in expected else quick))
    assert failed(found) <= expected
    assert failed(found)


@pytest.mark.long
def test_a_leftover_is_named_as_such_by_every_check(tmp_path):
    found = verdicts(leave_a_folder, tmp_path, "output_tree", "overwrites")
    assert {each.reason for each in found.values()} == {"wrote logs/deep/x.txt too"}


@pytest.mark.long
def test_what_an_image_needs_is_named(tmp_path):
    found = verdicts(need_network, tmp_path / "a", "strict_sandbox")
    assert "needs the network" in found["strict_sandbox"].reason
    found = verdicts(write_to_the_root_as_root, tmp_path / "b", "unprivileged")
    reason = found["unprivileged"].reason
    assert "writes outside" in reason
    assert "needs to be root" in reason


@pytest.mark.long
def test_where_the_usual_run_fails_the_others_are_left_out(tmp_path):
    found = verdicts(crash, tmp_path)
    assert failed(found) == {"ends_well"}
    assert "weights not found" in found["ends_well"].reason
    assert found["geometry"].state == "skip"


@pytest.mark.long
def test_the_config_is_looked_at(tmp_path):
    config = {**ROOT, "config": {**ROOT["config"], "User": "7", "Env": ["CUDA_VISIBLE_DEVICES=0"]}}
    static = [check.name for check in FLARE.checks if not check.runs]
    found = verdicts(behave, tmp_path, *static, config={**config, "architecture": "arm64"})
    assert failed(found) == {"root", "amd64", "devices_left_alone"}


@pytest.mark.parametrize(
    ("names", "state"),
    [(("team-a:latest",), "pass"), (("Team.A:latest",), "fail"), (("team:v2",), "warn")],
)
def test_a_team_has_a_name_that_the_evaluator_can_call(names, state, tmp_path):
    assert verdicts(behave, tmp_path, "team_name", names=names)["team_name"].state == state


@pytest.mark.long
def test_turning_a_scan_back_gives_the_same_scan(tmp_path):
    for axes in permutations((0, 1, 2)):
        samples.turned(tmp_path, axes)
    scans = {}
    for name, order, flips in samples.orientations():
        image = nibabel.load(tmp_path / f"{name}_0000.nii.gz")
        assert "".join(nibabel.aff2axcodes(image.affine)) == name
        scans[name] = samples.as_canonical(np.asarray(image.dataobj), order, flips)
    assert len(scans) == 48
    assert all(np.array_equal(scan, scans["RAS"]) for scan in scans.values())


def number_lesions(_image, mask):
    numbered = mask.copy()
    numbered[mask.shape[0] // 2 :] *= 2
    return numbered


def take_too_long(inside):
    behave(inside)
    inside.seconds = 61.0


def fill_the_memory(inside):
    behave(inside)
    inside.peak_mib = 28_000.0


def share_memory_between_workers(inside):
    if inside.conditions.shm_mib <= 64:
        raise Failure("RuntimeError: DataLoader worker is killed by signal: Bus error")
    behave(inside)


def need_32_gb(inside):
    if inside.conditions.memory_mib is not None:
        raise Failure("Killed", 137)
    behave(inside)


OF_FLARE26 = {
    "behaves": (behave, "in_time", "pass", "limit 60 s"),
    "marks organs": (
        lambda inside: behave(inside, change=lambda _, mask: mask * 13),
        "labels",
        "fail",
        "holds 13",
    ),
    "numbers its lesions": (
        lambda inside: behave(inside, change=number_lesions),
        "labels",
        "fail",
        "holds 2",
    ),
    "takes more than a minute": (take_too_long, "in_time", "fail", "61.0 s for one case"),
    "fills its 28 GB": (fill_the_memory, "in_memory", "warn", "limit 28672 MiB"),
    "needs more than 28 GB": (need_32_gb, "ends_well", "fail", "needs more memory"),
    "shares memory between workers": (
        share_memory_between_workers,
        "ends_well",
        "fail",
        "needs more than 64 MB of shared memory",
    ),
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("program", OF_FLARE26)
def test_what_flare26_asks_for_more_strictly_is_caught_with_its_preset(program, monkeypatch):
    run, name, state, words = OF_FLARE26[program]
    monkeypatch.setattr(verifying, "_open_docker", lambda _image: Shells(run))
    request = VerifyRequest(image="team:latest", convention="flare", backend="docker", only=(name,))
    (verdict,) = verify(replace(request, preset="flare26")).verdicts
    assert (verdict.finding.state, words in verdict.finding.reason) == (state, True)


@pytest.mark.parametrize("program", ["marks organs", "takes more than a minute"])
def test_flare22_allows_organs_and_no_minute(program, monkeypatch):
    run, name, _, _ = OF_FLARE26[program]
    monkeypatch.setattr(verifying, "_open_docker", lambda _image: Shells(run))
    request = VerifyRequest(image="team:latest", convention="flare", backend="docker", only=(name,))
    (verdict,) = verify(replace(request, preset="flare22")).verdicts
    assert verdict.finding.state == ("pass" if name == "labels" else "fail")
