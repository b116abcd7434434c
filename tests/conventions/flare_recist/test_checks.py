"""What is asserted of images for lines across lesions: each fault is named."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest

from flarekit import conventions
from flarekit.containers import ProcessResult
from flarekit.conventions.flare_recist import samples
from flarekit.core.line import body_of_line
from flarekit.images.verify import _verdicts
from flarekit.verification.trials import ImageUnderTest, TaskFacts
from tests.verification.fake_images import Failure, FakeSandbox, failed

ROOT = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Cmd": ["sh", "predict.sh"], "WorkingDir": "/workspace"},
}
RECIST = conventions.checks_of("flare_recist")
WANTED = TaskFacts(values=frozenset({0, 1}), time_s=15.0)


class Shells(FakeSandbox):
    """A fake image with bash, sh and predict.sh."""

    def __init__(self, program):
        super().__init__(program, ROOT)
        self.facts = replace(self.facts, names=("team:latest",))

    def run(self, run):
        if run.command is not None and "predict.sh &&" in run.command[-1]:
            return ProcessResult(exit_code=0, stdout="here\n", seconds=0.1)
        if run.command is not None and "-n predict.sh" in run.command[-1]:
            return ProcessResult(exit_code=0, seconds=0.1)
        return super().run(run)


@dataclass
class Program:
    """A program that segments well; each fault that is named spoils one thing."""

    fault: str = ""

    def __call__(self, inside):
        inputs, outputs = inside.path("/workspace/inputs"), inside.path("/workspace/outputs")
        paths = [path for path in sorted(inputs.glob("*.npz")) if path.name[0] != "."]
        if not paths:
            raise Failure("there is nothing to do in this folder")
        for path in paths:
            given = self.read(path, outputs)
            if given is not None:
                self.write(path, outputs, given)

    def read(self, path, outputs):
        pickled = self.fault == "unpickles"
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=pickled) as content:
                given = {name: content[name] for name in content.files}
        except FileNotFoundError:  # what the trap makes is not there outside a container
            (outputs / samples.MARK).mkdir()
            return None
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            if self.fault == "stops at damage":
                raise Failure(f"{path.name} is damaged and cannot be read") from error
            return None
        given.setdefault("spacing", np.ones(3))
        if self.fault == "needs directions" and "direction" not in given:
            given["recist"] = given["recist"][::-1].copy()
        return given

    def write(self, path, outputs, given):
        named = {"segs": self.masks(given), "spacing": given["spacing"]}
        if self.fault == "other array":
            named["mask"] = named.pop("segs")
        if self.fault == "no masks beside damage" and (path.parent / "damaged.npz").exists():
            del named["segs"]
        if self.fault == "no spacing":
            del named["spacing"]
        if self.fault == "spacing turned":
            named["spacing"] = named["spacing"][::-1]
        name = f"{path.stem}_mask.npz" if self.fault == "other names" else path.name
        np.savez_compressed(outputs / name, **named)

    def masks(self, given):
        lines = given["recist"].astype(int)
        segs = np.zeros(lines.shape, np.uint8)
        spacing = tuple(given["spacing"].astype(float)[::-1])
        for value in np.unique(lines[lines > 0]):
            body = body_of_line(lines.shape, spacing, np.argwhere(lines == value))
            segs[body & (segs == 0)] = value
        segs[lines > 0] = lines[lines > 0]
        changes = {
            "one lesion only": lambda: segs * (segs == 1),
            "64 bits": lambda: segs.astype(np.int64),
            "turned": lambda: segs.transpose(2, 1, 0),
            "255": lambda: segs * np.uint8(255),
            "elsewhere": lambda: np.roll(segs, (9, 40), axis=(0, 1)),
            "far too large": lambda: np.where(given["imgs"] > 100, np.uint8(1), segs),
        }
        return changes.get(self.fault, lambda: segs)()


def verdicts(fault, folder, *only, given=None):
    task = replace(WANTED, user_inputs=given)
    image = ImageUnderTest(
        Shells(Program(fault)), RECIST.run_line, task, RECIST.write_sample, folder / "work"
    )
    checks = [check for check in RECIST.checks if not only or check.name in only]
    return {each.check.name: each.finding for each in _verdicts(image, checks)}


@pytest.mark.long
def test_a_program_that_behaves_passes_everything(tmp_path):
    found = verdicts("", tmp_path)
    assert failed(found) == set()
    assert {name for name, each in found.items() if each.state == "warn"} == set()
    assert {name for name, each in found.items() if each.state == "skip"} == {"given_inputs"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("other names", {"output_tree"}),
        ("other array", {"stored_type"}),
        ("64 bits", {"stored_type"}),
        ("no spacing", {"geometry"}),
        ("spacing turned", {"geometry"}),
        ("turned", {"geometry"}),
        ("255", {"lesion_at_its_line"}),
        ("elsewhere", {"lesion_at_its_line"}),
        ("one lesion only", {"odd_lesions"}),
        ("needs directions", {"ways_to_store"}),
        ("stops at damage", {"damaged_input"}),
        ("unpickles", {"no_pickles"}),
    ],
)
def test_each_fault_is_found_by_its_check(fault, names, tmp_path):
    assert names <= failed(verdicts(fault, tmp_path))


@pytest.mark.slow
def test_a_mask_that_is_far_longer_than_its_line_gets_a_warning(tmp_path):
    found = verdicts("far too large", tmp_path)["diameters"]
    assert found.state == "warn"
    assert "the line is" in found.reason


def test_a_file_without_masks_beside_a_damaged_one_is_named(tmp_path):
    found = verdicts("no masks beside damage", tmp_path, "damaged_input")["damaged_input"]
    assert (found.state, found.reason) == ("fail", "phantom.npz has no array segs")


def given_files(folder, **changes):
    folder.mkdir()
    content = {**samples.arrays(samples.ONE), **changes}
    stored = {name: array for name, array in content.items() if array is not None}
    np.savez_compressed(folder / "own.npz", **stored)
    return folder


def test_inputs_of_a_user_may_leave_the_spacing_out(tmp_path):
    given = given_files(tmp_path / "given", spacing=None)
    assert verdicts("", tmp_path, "given_inputs", given=given)["given_inputs"].state == "pass"
    found = verdicts("no spacing", tmp_path / "other", "given_inputs", given=given)["given_inputs"]
    assert "own.npz has no array spacing" in found.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recist": None}, "own.npz has no array recist"),
        ({"imgs": None}, "own.npz has no array imgs"),
        ({"spacing": np.ones(2)}, "own.npz: spacing is [1.0, 1.0], not x, y and z"),
        ({"imgs": np.array([{}], object)}, "own.npz cannot be read"),
    ],
)
def test_inputs_of_a_user_that_are_none_of_the_task_are_named_not_the_image(
    changes, words, tmp_path
):
    given = given_files(tmp_path / "given", **changes)
    found = verdicts("", tmp_path, "given_inputs", given=given)["given_inputs"]
    assert found.state == "fail"
    assert f"{given}/{words}" in found.reason
