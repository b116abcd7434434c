"""Jobs of a platform as cases to measure: a folder each, and what a run left of one."""

import logging
import shutil
from pathlib import Path

from flarekit.core.errors import OutputError, UnreadableVolumeError
from flarekit.core.files import below, printable
from flarekit.core.metaheader import read_header
from flarekit.core.metaimage import read_metaimage

_LOG = logging.getLogger(__name__)
_IMAGES = "images/*/*.mha"
MANIFEST = "arranged.json"  # of `flarekit arrange`, which no platform puts there


def job_folders(input_dir: Path) -> list[Path]:
    """Return the jobs: the folder, or those in it, that hold `images/SOCKET/*.mha`."""
    if not input_dir.is_dir():
        return []
    if any(input_dir.glob(_IMAGES)):
        return [input_dir]
    return [path for path in sorted(input_dir.iterdir()) if any(path.glob(_IMAGES))]


def shape_of_job(job: Path) -> tuple[int, int, int] | None:
    """Return the voxels (x, y, z) of a job's first image; None where its header is damaged."""
    try:
        z, y, x = read_header(min(job.glob(_IMAGES))).shape_ZYX
    except UnreadableVolumeError as error:
        _LOG.warning("%s: size unknown: %s", job, error.message)
        return None
    return x, y, z


def copy_job(job: Path, inputs: Path) -> None:
    """Copy a job to where a run sees it.

    Raises:
        OutputError: it cannot be copied.
    """
    try:
        shutil.copytree(
            job, inputs, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, ".*")
        )
    except (OSError, shutil.Error) as error:
        raise OutputError(
            f"{inputs}: {job} cannot be copied: {error}", fix="free some space"
        ) from error


def job_leftovers(job: Path, inputs: Path) -> tuple[str, ...]:
    """Return what a run put into the inputs; every file of the outputs is the platform's."""
    found = [path for path in below(inputs) if not (job / path.relative_to(inputs)).exists()]
    return tuple(printable(str(path.relative_to(inputs.parent))) for path in sorted(found))


def job_failures(job: Path, inputs: Path, outputs: Path) -> list[str]:
    """Return what is wrong about the masks, and about the inputs, which must be as they were."""
    failures = []
    for original in below(job):
        place = original.relative_to(job)
        if not original.is_file() or place.name == MANIFEST or place.name.startswith("."):
            continue
        copy, name = inputs / place, printable(f"{inputs.name}/{place}")
        if not copy.is_file() or copy.is_symlink():
            failures.append(f"{name} was removed")
        elif copy.read_bytes() != original.read_bytes():
            failures.append(f"{name} was changed")
    masks = sorted(outputs.glob(_IMAGES))
    if not masks:
        failures.append("no mask: outputs/images/*/*.mha is missing")
    for mask in masks:
        try:
            read_metaimage(mask, air=0.0)
        except UnreadableVolumeError as error:
            name = printable(str(mask.relative_to(outputs.parent)))
            failures.append(f"the mask {name} cannot be read: {error.fault}")
    return failures


def keep_job(outputs: Path, folder: Path) -> None:
    """Copy the outputs of a job to where all of them go; links are left behind.

    Raises:
        OutputError: they cannot be copied.
    """
    try:
        for path in below(outputs):
            if path.is_file() and not path.is_symlink():
                target = folder / path.relative_to(outputs)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    except OSError as error:
        raise OutputError(
            f"{folder}: outputs cannot be copied there: {error.strerror}", fix="free some space"
        ) from error
