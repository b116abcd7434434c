"""An upload as a scan that a segmenter takes: volumes by channel, or a DICOM series."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flarekit import conventions
from flarekit.conventions import Case, Convention
from flarekit.core.archive_members import UnpackLimits
from flarekit.core.archives import is_archive, unpack_archive
from flarekit.core.errors import InputError
from flarekit.core.names import safe_name
from flarekit.core.spec import PredictorSpec
from flarekit.segmentation.inputs import convention_of
from flarekit.segmentation.memory import reading_mib
from flarekit.segmentation.scans import ScanInput, scan_input
from flarekit.service.uploads import UploadedFile

_VOLUMES = (".nii", ".nii.gz", ".mha", ".nrrd")
_HEADERS_ALONE = (".mhd", ".nhdr")
_NUMBERED = re.compile(r"_(\d{4})\.(?:nii|nii\.gz|mha|nrrd)$", re.IGNORECASE)
DICOM = "dicom"


def arrange(
    files: Sequence[UploadedFile], folder: Path, spec: PredictorSpec, limits: UnpackLimits
) -> dict[str, Any]:
    """Give uploaded files their places and names, archives unpacked.

    Args:
        files: as they came.
        folder: of the case; what is kept is put into it.
        spec: of the predictor.
        limits: what an archive may unpack to.

    Returns:
        Channel -> name of its file; or `dicom` -> name of the folder with a series' files.

    Raises:
        InputError: it is not clear which file is which channel, or an archive is damaged or holds
            too much.
    """
    if not files:
        raise InputError("the request brings no file", fix="send the scan as a file")
    if len(files) == 1 and is_archive(files[0].path):
        files = _unpacked(files[0], folder, limits)
    inner = next((each for each in files if is_archive(each.path)), None)
    if inner is not None:
        raise InputError(
            "an archive lies within the upload's files or its archive",
            fix="send one archive alone, with the files of one scan in it",
        )
    if any(each.suffix in _HEADERS_ALONE for each in files):
        raise InputError(
            "a header without its voxels (.mhd, .nhdr)", fix="save the scan as one .mha or .nrrd"
        )
    volumes = [each for each in files if each.suffix in _VOLUMES]
    if not volumes:
        return _as_series(files, folder)
    if len(volumes) < len(files) and len(volumes) != len(spec.channels):
        raise InputError(
            "volumes and other files are mixed", fix="send volumes, or one DICOM series, or a zip"
        )
    kept = {}
    for channel, file in _by_channel(volumes, spec).items():
        name = f"{safe_name(channel, otherwise='channel')}{file.suffix}"
        file.path.replace(folder / name)
        kept[channel] = name
    return kept


def _unpacked(file: UploadedFile, folder: Path, limits: UnpackLimits) -> list[UploadedFile]:
    """Unpack an archive and call its files by numbers: what they were called may name a patient."""
    root = folder / "unpacked"
    try:
        paths = unpack_archive(file.path, root, limits)
    finally:
        file.path.unlink()
    if not paths:
        raise InputError("the archive is empty", fix="pack the scan again")
    numbered = []
    for number, path in enumerate(paths, start=1):
        each = UploadedFile(field=file.field, path=path, called=path.name)
        target = folder / f"{number:06d}{each.suffix}"
        path.replace(target)
        numbered.append(replace(each, path=target))
    shutil.rmtree(root)
    return numbered


def _as_series(files: Sequence[UploadedFile], folder: Path) -> dict[str, Any]:
    series = folder / DICOM
    series.mkdir()
    for file in files:
        file.path.replace(series / file.path.name)
    return {DICOM: DICOM}


def _by_channel(files: Sequence[UploadedFile], spec: PredictorSpec) -> dict[str, UploadedFile]:
    """Tell which file is which channel: by field, by nnU-Net's number, by name, or the only one."""
    names = [channel.name for channel in spec.channels]
    if len(files) != len(names):
        raise InputError(
            f"{len(files)} volumes given, {spec.name} takes {len(names)} ({', '.join(names)})",
            fix="send one file per channel, each in a form field of the channel's name",
        )
    found = {name: _matching(files, name, number) for number, name in enumerate(names)}
    if len(names) == 1:
        return {names[0]: files[0]}
    chosen = [each for each in found.values() if each is not None]
    if len(chosen) != len(names) or len({each.path for each in chosen}) != len(names):
        raise InputError(
            f"it is not clear which volume is which channel ({', '.join(names)})",
            fix="send each in a form field of the channel's name",
        )
    return dict(zip(names, chosen, strict=True))


def _matching(files: Sequence[UploadedFile], name: str, number: int) -> UploadedFile | None:
    lowered = name.lower()
    rules = (
        lambda file: file.field.lower() == lowered,
        lambda file: (match := _NUMBERED.search(file.called)) and int(match[1]) == number,
        lambda file: lowered in re.split(r"[^a-z0-9]+", file.called.lower()),
    )
    for rule in rules:
        matching = [file for file in files if rule(file)]
        if len(matching) == 1:
            return matching[0]
    return None


@dataclass(frozen=True, kw_only=True)
class UploadedScan:
    """A scan that can be read.

    Attributes:
        source: what a segmenter takes.
        notes: what was chosen or left out, a sentence each.
        convention: DICOM's, and `case` the series; None where volumes were uploaded.
    """

    source: ScanInput
    notes: tuple[str, ...] = ()
    convention: Convention | None = None
    case: Case | None = None


def uploaded_scan(
    folder: Path, files: dict[str, Any], spec: PredictorSpec, most_bytes: int
) -> UploadedScan:
    """Return the scan of a case.

    Args:
        folder: of the case.
        files: from `arrange`.
        spec: of the predictor.
        most_bytes: that it may take in memory once it is read.

    Raises:
        InputError: nothing in it can be segmented, or it is larger than is taken.
    """
    if DICOM in files:
        return _series(folder / files[DICOM], spec, most_bytes)
    paths = [folder / files[channel.name] for channel in spec.channels]
    _check_size(reading_mib(paths) * 2**20, most_bytes)
    source = scan_input(paths if len(paths) > 1 else paths[0], spec)
    return UploadedScan(source=source)


def _series(folder: Path, spec: PredictorSpec, most_bytes: int) -> UploadedScan:
    convention = convention_of(DICOM, spec)
    cases = convention.find_cases(folder, len(spec.channels))
    case = max(cases, key=_voxels_of)
    notes = conventions.left_out_of(cases)
    if len(cases) > 1:
        notes = (f"of {len(cases)} series that could be segmented, the largest was taken", *notes)
    _check_size(4.0 * sum(map(_voxels_of, cases)), most_bytes)
    source = ScanInput(read=lambda: convention.read_case(case), axes="xyz")
    return UploadedScan(source=source, notes=notes, convention=convention, case=case)


def _voxels_of(case: Case) -> int:
    z, y, x = case.grid.shape_ZYX  # type: ignore[attr-defined]  # of DicomCase
    return int(z * y * x)


def _check_size(size: float, most_bytes: int) -> None:
    if size > most_bytes:
        raise InputError(
            f"the scan takes {size / 2**30:.1f} GiB once it is read, more than the "
            f"{most_bytes / 2**30:.3g} GiB that are taken",
            fix="crop the scan, or start the service with a larger --max-upload-gb",
        )
