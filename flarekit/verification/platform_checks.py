"""What grand-challenge.org's sandbox does and others do not: the checks of all its conventions."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from flarekit.containers import Mount, SandboxError
from flarekit.verification.check import PASS, Check, Finding, check, fail, skip, verdict_of, warn
from flarekit.verification.contents import listed, unlike_usual
from flarekit.verification.explanations import explained
from flarekit.verification.image_checks import (
    amd64,
    facts_label,
    not_root,
    one_image,
    size,
    starts_something,
)
from flarekit.verification.platform_inputs import IMAGES, INPUTS_JSON, write_inputs_json
from flarekit.verification.run_checks import loud_failure
from flarekit.verification.trials import MODEL, ImageUnderTest, TrialResult

_LINK_TARGET = "/mnt/platform/input"
_KEPT_BACK_MIB = 1024  # of the memory, before the platform sets RLIMIT_DATA


@check(
    fix="build from an image with a shell (python:3.11-slim, not distroless), and leave it there",
    runs=False,
)
def shell(image: ImageUnderTest) -> Finding:
    """/bin/sh is in the image, through which the platform starts it."""
    trial = image.trial(image.usual_inputs(), entrypoint="/bin/sh", command=("-c", "true"))
    return PASS if trial.failure is None else fail(f"/bin/sh does not start ({trial.failure})")


def as_usual(image: ImageUnderTest, trial: TrialResult, where: str) -> Finding:
    """Return whether a trial ended well and wrote what the usual one writes.

    Args:
        image: whose usual trial ended well.
        trial: of inputs that have to give the same files.
        where: how it differs from the usual one, which begins the reason.
    """
    if trial.failure is not None:
        return fail(f"{where}: {trial.failure}")
    if trial.files != image.base().files:
        return fail(f"{where} it writes {listed(trial.files)}")
    return verdict_of([f"{where} {fault}" for fault in unlike_usual(image, trial)])


@check(fix="open paths as they are; compare no resolved path with /input")
def linked_input(image: ImageUnderTest) -> Finding:
    """/input may be a symbolic link, as it is on the platform."""
    link = {image.run_line.inputs: _LINK_TARGET}
    try:
        trial = image.trial(image.usual_inputs(), linked=link)
    except SandboxError as error:  # the image has no shell to make the link with, say
        return skip(error.message)
    return as_usual(image, trial, f"with {image.run_line.inputs} as a link to {_LINK_TARGET}")


@check(fix="put nothing into /tmp while building; make folders there when they are needed")
def empty_tmp(image: ImageUnderTest) -> Finding:
    """It runs where /tmp is an empty volume."""
    trial = image.trial(
        image.usual_inputs(),
        mounts=(Mount(here=_opened(image, "empty_tmp"), there="/tmp", writable=True),),  # noqa: S108
    )
    return as_usual(image, trial, "with an empty /tmp")


def _opened(image: ImageUnderTest, name: str) -> Path:
    """Return an empty folder that every user can write."""
    folder = image.inputs(name, lambda _: None)
    folder.chmod(0o777)
    return folder


@check(
    fix="bring the weights in the image, and look there only where the folder exists", runs=False
)
def model_absent(image: ImageUnderTest) -> Finding:
    """It runs without /opt/ml/model, which is there only where a model was uploaded."""
    usual = image.base()
    if usual.failure is None:
        return PASS
    if _with_model(image, "model_empty", lambda _: None).failure is None:
        return fail(f"needs the folder {MODEL} ({usual.failure})")
    said = [line.strip() for line in usual.outcome.stderr.splitlines() if MODEL in line]
    if said:
        return fail(f"needs what is in {MODEL}: {said[-1][:300]}")
    return skip("the usual run fails for another reason")


@check(fix=f"install nothing into {MODEL}; use the image's own weights where nothing is there")
def model_empty(image: ImageUnderTest) -> Finding:
    """It runs where /opt/ml/model is an empty folder."""
    trial = _with_model(image, "model_empty", lambda _: None)
    return as_usual(image, trial, f"with an empty {MODEL}")


@check(fix="open the files that are needed by their names")
def model_filled(image: ImageUnderTest) -> Finding:
    """Files in /opt/ml/model that it does not know do not disturb it."""
    trial = _with_model(image, "model_filled", _unrelated)
    return as_usual(image, trial, f"with a {MODEL} that holds notes.txt and extra/table.csv")


def _with_model(image: ImageUnderTest, name: str, write: Callable[[Path], None]) -> TrialResult:
    folder = image.inputs(name, write)
    mount = Mount(here=folder, there=MODEL)
    return image.trial(image.usual_inputs(), mounts=(mount,))


def _unrelated(folder: Path) -> None:
    (folder / "extra").mkdir()
    (folder / "extra" / "table.csv").write_text("fold,dice\n0,0.9\n")
    (folder / "notes.txt").write_text("nothing that an algorithm needs\n")


@check(fix="fall back on the folders below /input/images where the list is missing")
def inputs_json(image: ImageUnderTest) -> Finding:
    """It runs with inputs.json, which the platform writes, and without it.

    Run with the list of sockets where the usual inputs have none, and without it otherwise.

    The platform always writes it: to need it deserves a warning, to be disturbed by it is a fault.
    """
    usual = image.usual_inputs()
    if (usual / INPUTS_JSON).exists():
        inputs = image.inputs("inputs_json", lambda folder: _without_list(usual, folder))
        finding = as_usual(image, image.trial(inputs), f"without {INPUTS_JSON}")
        return warn(finding.reason) if finding.state == "fail" else finding
    inputs = image.inputs("inputs_json", lambda folder: _with_list(usual, folder))
    return as_usual(image, image.trial(inputs), f"with {INPUTS_JSON}")


def _without_list(usual: Path, folder: Path) -> None:
    shutil.copytree(usual, folder, dirs_exist_ok=True)
    (folder / INPUTS_JSON).unlink()


def _with_list(usual: Path, folder: Path) -> None:
    shutil.copytree(usual, folder, dirs_exist_ok=True)
    write_inputs_json(folder)


@check(fix="reserve no address space that is not used: fewer threads, no large arenas")
def data_limit(image: ImageUnderTest) -> Finding:
    """It runs under RLIMIT_DATA of its memory less 1 GB, which is how memory is limited."""
    memory_mib = image.conditions.memory_mib
    if memory_mib is None:
        return skip("the organiser's line has no memory limit")
    conditions = replace(image.conditions, data_mib=memory_mib - _KEPT_BACK_MIB)
    trial = image.trial(image.usual_inputs(), conditions=conditions)
    if trial.failure is not None:
        return explained(image, conditions, failed=trial)
    return as_usual(image, trial, f"under RLIMIT_DATA of {conditions.data_mib} MiB")


@check(fix="let the exception end the process; print one sentence with the file's name to stderr")
def corrupt_input(image: ImageUnderTest) -> Finding:
    """Damaged images end it with an exit code other than 0 and a last line that says why."""
    faults = []
    for words, damage in (
        ("images cut off in the middle", lambda content: content[: len(content) // 2]),
        (
            "text files in place of images",
            lambda _: b"version https://git-lfs.github.com/spec/v1\n",
        ),
    ):
        name = words.replace(" ", "_")
        usual = image.usual_inputs()
        inputs = image.inputs(name, _damaged(usual, damage))
        finding = loud_failure(image.trial(inputs))
        if finding.state != "pass":
            faults.append(f"{words}: {finding.reason}")
    return verdict_of(faults)


def _damaged(usual: Path, damage: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        shutil.copytree(usual, folder, dirs_exist_ok=True)
        for path in _images_below(folder):
            path.write_bytes(damage(path.read_bytes()))

    return write


def _images_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)


@check(fix="count the images that were found, and fail where there are none")
def no_input(image: ImageUnderTest) -> Finding:
    """An empty input folder ends it with an exit code other than 0 and a reason as last line."""
    return loud_failure(image.trial(image.inputs("nothing", lambda _: None)))


PLATFORM_IMAGE: Sequence[Check] = (
    one_image,
    amd64,
    size,
    not_root,
    starts_something,
    facts_label,
    shell,
    model_absent,
)
PLATFORM_RUNS: Sequence[Check] = (  # to stand behind the RUNS of all organisers
    linked_input,
    empty_tmp,
    model_empty,
    model_filled,
    inputs_json,
    data_limit,
    corrupt_input,
    no_input,
)
