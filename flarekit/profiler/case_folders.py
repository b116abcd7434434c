"""What a run gets to see of one case, and what it left there."""

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from flarekit.core.errors import InputError, OutputError, UnreadableVolumeError
from flarekit.core.files import below, locked_below, make_folder, printable, write_atomically
from flarekit.core.names import safe_name
from flarekit.profiler.job_folders import (
    copy_job,
    job_failures,
    job_folders,
    job_leftovers,
    keep_job,
    shape_of_job,
)
from flarekit.profiler.scan_kinds import (
    ENDINGS,
    case_id_of,
    ending_of,
    mask_name,
    shape_of_mask,
    shape_of_scan,
)

_LOG = logging.getLogger(__name__)
_NAMED = 8  # leftovers that a failure names; the report lists all


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One file of the input folder, or one job of a platform.

    Attributes:
        path: `X_0000.nii.gz` or `X.npz`; the folder of a platform's job.
        name: of the official JSON, `X_0000` or `X`, as it can be printed.
        case_id: of the mask, `X`, as it can be printed.
        shape_XYZ: None where its header cannot be read.
    """

    path: Path
    name: str
    case_id: str
    shape_XYZ: tuple[int, int, int] | None

    @property
    def output(self) -> str:
        """What it leaves in the folder of masks: the mask's name, or that of a job's folder."""
        return self.case_id if self.path.is_dir() else mask_name(self.path)


@dataclass(frozen=True, kw_only=True)
class CaseFolders:
    """What a run sees of one case; made anew for each.

    Attributes:
        inputs: holds a copy of the scan and nothing else.
        outputs: empty, anyone may write.
        record: for the record of a run, with its step times; empty.
    """

    inputs: Path
    outputs: Path
    record: Path

    def volumes(self, inputs: str, outputs: str, inside: str | None = None) -> dict[Path, str]:
        """Return the organisers' mounts, and one for step times: folder here -> in the container.

        Args:
            inputs: the organisers' folder for inputs.
            outputs: and for outputs.
            inside: where a run of flarekit leaves its ledger; others leave that folder alone.
        """
        mounts = {self.inputs: inputs, self.outputs: outputs}
        if inside is not None:
            mounts[self.record] = inside
        return {here.resolve(): there for here, there in mounts.items()}


def find_scans(input_dir: Path) -> list[Scan]:
    """Return the scans of a folder, as the organisers list them.

    Raises:
        InputError: no such folder, none in it, or of two kinds.
    """
    if not input_dir.is_dir():
        raise InputError(f"{input_dir}: no such folder", fix="check --input")
    paths = sorted(path for path in input_dir.iterdir() if ending_of(path) is not None)
    if not paths:
        raise InputError(f"{input_dir}: no *{' or *'.join(ENDINGS)} in it", fix="check --input")
    kinds = sorted({str(ending_of(path)) for path in paths})
    if len(kinds) > 1:
        raise InputError(
            f"{input_dir}: holds files of two kinds, *{' and *'.join(kinds)}",
            fix="give each a folder of its own: no organiser takes both",
        )
    return [_scan(path) for path in paths]


def find_jobs(input_dir: Path) -> list[Scan]:
    """Return the jobs of a folder: itself, or the folders in it.

    Raises:
        InputError: there is none.
    """
    jobs = job_folders(input_dir)
    if not jobs:
        raise InputError(f"{input_dir}: no job with images/SOCKET/*.mha", fix="check --input")
    names = [safe_name(job.resolve().name) for job in jobs]
    return [
        Scan(path=job, name=name, case_id=name, shape_XYZ=shape_of_job(job))
        for job, name in zip(jobs, names, strict=True)
    ]


def _scan(path: Path) -> Scan:
    name = printable(path.name.removesuffix(ending_of(path) or ""))
    try:
        shape = shape_of_scan(path)
    except InputError as error:
        _LOG.warning("%s: size unknown: %s", path, error.message)
        shape = None
    return Scan(path=path, name=name, case_id=case_id_of(name), shape_XYZ=shape)


def prepare(scan: Scan, root: Path) -> CaseFolders:
    """Make the folders of a case with a copy of its scan; what a crash left there goes.

    Raises:
        OutputError: they cannot be made, or what is there cannot be removed.
    """
    shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        raise OutputError(
            f"{root}: an earlier profile's container left files that cannot be removed",
            fix="remove the folder as root, or name another report folder",
        )
    folders = CaseFolders(inputs=root / "inputs", outputs=root / "outputs", record=root / "inside")
    for path in (folders.inputs, folders.outputs, folders.record):
        make_folder(path)
    for path in (folders.outputs, folders.record):
        path.chmod(0o777)  # the container may run as anyone
    if scan.path.is_dir():
        copy_job(scan.path, folders.inputs)
    else:
        shutil.copy2(scan.path, folders.inputs)
    return folders


def locked_failures(folders: CaseFolders) -> list[str]:
    """Return what the run has left that this user cannot read; to be asked before it is opened."""
    return [
        f"{folder.name}/{words} cannot be read by the user who measures"
        for folder in (folders.inputs, folders.outputs)
        for words in locked_below(folder).values()
    ]


def leftovers_of(scan: Scan, folders: CaseFolders) -> tuple[str, ...]:
    """Return what is there besides the scan, as it was, and its mask."""
    if scan.path.is_dir():
        return job_leftovers(scan.path, folders.inputs)
    own = (folders.inputs / scan.path.name, folders.outputs / mask_name(scan.path))
    found = [
        path
        for folder in (folders.inputs, folders.outputs)
        for path in below(folder)
        if path not in own and (path.is_symlink() or not path.is_dir() or _shows_nothing(path))
    ]
    found.sort(key=lambda path: (path.is_dir(), path.relative_to(folders.inputs.parent)))
    return tuple(printable(str(path.relative_to(folders.inputs.parent))) for path in found)


def _shows_nothing(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except OSError:
        return True


def leftover_failures(leftovers: tuple[str, ...]) -> list[str]:
    """Return what is wrong about them: the first few by name."""
    failures = []
    inputs = [name for name in leftovers if name.startswith("inputs")]
    outputs = [name for name in leftovers if not name.startswith("inputs")]
    if inputs:
        failures.append(f"left in the inputs folder: {_listed(inputs)}")
    if outputs:
        failures.append(f"left in the outputs folder besides the mask: {_listed(outputs)}")
    return failures


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def mask_failures(scan: Scan, folders: CaseFolders) -> list[str]:
    """Return what is wrong about the mask, and about the scan, which must be as it was."""
    if scan.path.is_dir():
        return job_failures(scan.path, folders.inputs, folders.outputs)
    failures = []
    copy, mask = folders.inputs / scan.path.name, folders.outputs / mask_name(scan.path)
    there, name = printable(f"inputs/{copy.name}"), printable(f"outputs/{mask.name}")
    change = _change(copy, scan.path)
    if change:
        failures.append(f"{there} {change}")
    if mask.is_symlink():
        return [*failures, f"the mask {name} is a symbolic link to {mask.readlink()}"]
    if not os.path.lexists(mask):
        return [*failures, f"no mask: {name} is missing"]
    try:
        shape = shape_of_mask(mask)
    except UnreadableVolumeError as error:
        return [*failures, f"the mask {name} cannot be read: {error.fault}"]
    if scan.shape_XYZ is not None and shape != scan.shape_XYZ:
        failures.append(f"the mask is {shape} voxels, the scan {scan.shape_XYZ}")
    return failures


def _change(copy: Path, scan: Path) -> str:
    """Return what became of a scan's copy; empty where it is as it was."""
    try:
        if not copy.is_symlink() and copy.is_file():
            return "" if copy.read_bytes() == scan.read_bytes() else "was changed"
    except OSError as error:
        return f"cannot be read any more: {error.strerror}"
    return "was removed"


def keep_mask(scan: Scan, folders: CaseFolders, output_dir: Path) -> None:
    """Copy the mask to where all of them go.

    Raises:
        OutputError: it cannot be copied.
    """
    if scan.path.is_dir():
        keep_job(folders.outputs, output_dir / scan.name)
        return
    mask = folders.outputs / mask_name(scan.path)
    try:
        if mask.is_file() and not mask.is_symlink():
            write_atomically(output_dir / mask.name, mask.read_bytes())
    except PermissionError:
        _LOG.warning("%s: cannot be read, and is not kept", printable(str(mask)))


def remove(folders: CaseFolders) -> bool:
    """Remove the folders of a case; False where that is not allowed."""
    root = folders.inputs.parent
    shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        return False
    if not any(root.parent.iterdir()):
        root.parent.rmdir()
    return True


def warn_of_remains(folders: CaseFolders) -> None:
    """Say so where the folders of a case are still there."""
    root = folders.inputs.parent
    if root.exists():
        _LOG.warning("%s cannot be removed: the container left files of another user", root)
