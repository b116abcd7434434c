"""Images that are Python functions: no engine, no process, the same checks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK

from flarekit import conventions
from flarekit.containers import ProcessResult
from flarekit.containers.saved_image import facts_of
from flarekit.images.verify import _verdicts
from flarekit.verification.trials import ImageUnderTest

FLARE = conventions.facts_of("flare").run_line
PLATFORM = conventions.facts_of("grandchallenge").run_line
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"User": "1000:1000", "Cmd": ["python", "/main.py"]},
}


def sample(folder, _task):
    """Write the inputs of a made-up convention: an image and a note."""
    (folder / "images" / "ct").mkdir(parents=True)
    voxels = np.random.default_rng(0).integers(-100, 100, (6, 8, 9)).astype(np.int16)
    image = SimpleITK.GetImageFromArray(voxels)
    SimpleITK.WriteImage(image, str(folder / "images" / "ct" / "a.mha"), useCompression=True)
    (folder / "note.json").write_text("[1]")


class Failure(Exception):  # noqa: N818 - an end, not a fault of the fake
    """The program ends like this."""

    def __init__(self, stderr, exit_code=1):
        super().__init__(stderr)
        self.stderr, self.exit_code = stderr, exit_code


@dataclass
class Inside:
    """What a program sees of its run; it may say how much time and memory it took."""

    run: object
    seconds: float = 1.0
    peak_mib: float | None = 300.0

    @property
    def conditions(self):
        return self.run.conditions

    def path(self, there):
        """Return where a path of the container lies here; None where nothing is mounted."""
        for link, target in self.run.linked.items():
            if there == link or there.startswith(f"{link}/"):
                there = target + there.removeprefix(link)
        for mount in self.run.mounts:
            if there == mount.there or there.startswith(f"{mount.there}/"):
                return mount.here / there.removeprefix(mount.there).lstrip("/")
        return None

    def image_of(self, folder):
        """Return the only image below a folder of the inputs."""
        place = self.path(folder)
        found = sorted(place.glob("*.mha")) if place.is_dir() else []
        if len(found) != 1:
            raise Failure(f"{folder} has to hold one image, and holds {len(found)}")
        return found[0]

    def write(self, there, voxels, like, **origin):
        """Write a mask on another image's grid."""
        path = self.path(there)
        path.parent.mkdir(parents=True, exist_ok=True)
        image = SimpleITK.GetImageFromArray(voxels, isVector=voxels.ndim == 4)
        if image.GetSize() == like.GetSize():
            image.CopyInformation(like)
        for key, value in origin.items():
            getattr(image, f"Set{key}")(value)
        SimpleITK.WriteImage(image, str(path), useCompression=True)


def read(path):
    """Read an image; damage ends the program with a sentence."""
    try:
        return SimpleITK.ReadImage(str(path))
    except RuntimeError:
        raise Failure(f"Error: {path.name} is not an image that can be read") from None


class FakeSandbox:
    """Runs a function `program(inside)` instead of an image."""

    name = "fake"

    archive = None

    def __init__(self, program, config=CONFIG, *, shell=True):
        self.program, self.shell = program, shell
        self.facts = facts_of(config, ("fake:latest",), size_bytes=10**9)

    def refuses(self, _run):
        return None

    def run(self, run):
        inside = Inside(run)
        if run.entrypoint is not None:
            found = run.entrypoint == "/bin/sh" and self.shell
            stderr = "" if found else f"no such file: {run.entrypoint}"
            return ProcessResult(exit_code=0 if found else 127, stderr=stderr, seconds=0.1)
        if run.terminate_after_s is not None:
            return ProcessResult(exit_code=143, seconds=0.5, stopped_after_s=0.1)
        try:
            self.program(inside)
        except Failure as end:
            code, stderr = end.exit_code, end.stderr
        else:
            code, stderr = 0, ""
        return ProcessResult(
            exit_code=code,
            stdout="",
            stderr=stderr,
            seconds=inside.seconds,
            peak_mib=inside.peak_mib,
            network_tries=0,
        )

    def open_up(self, _folder):
        return False

    def remove(self, _folder):
        pass

    def close(self):
        pass


def image_under_test(checks, program, wanted, folder, **options):
    """Return an image for the checks of a convention."""
    sandbox = FakeSandbox(program)
    return ImageUnderTest(
        sandbox, checks.run_line, wanted, checks.write_sample, folder / "work", **options
    )


def findings(checks, program, wanted, folder, **options):
    """Run all checks; return the findings by the names of their checks."""
    image = image_under_test(checks, program, wanted, folder, **options)
    return {each.check.name: each.finding for each in _verdicts(image, checks.checks)}


def failed(found):
    """Return the names of the checks that failed."""
    return {name for name, finding in found.items() if finding.state == "fail"}
