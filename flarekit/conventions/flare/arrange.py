"""Scans laid out for FLARE: `X_0000.nii.gz`, and so on for further channels, in one folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from flarekit.conventions._arranging import Grid, Placed, ScanToPlace
from flarekit.core.errors import OutputError
from flarekit.core.scan_files import write_scan

CHANNELS: tuple[str, ...] = ()


def arrange(scans: Sequence[ScanToPlace], folder: Path) -> list[Placed]:
    """Lay scans out; what is .nii.gz already is copied byte for byte.

    Raises:
        InputError: a scan cannot be read.
        OutputError: one cannot be written.
    """
    for scan in scans:
        if scan.files and all(path.name.endswith(".nii.gz") for path in scan.files):
            for k, path in enumerate(scan.files):
                _copy(path, _channel(folder, scan, k))
            continue
        for k, volume in enumerate(scan.read()):
            write_scan(_channel(folder, scan, k), volume)
    return [
        Placed(
            mask=scan.mask.as_posix(),
            stem=scan.name,
            grid=Grid.of_file(_channel(folder, scan, 0)),
        )
        for scan in scans
    ]


def _channel(folder: Path, scan: ScanToPlace, k: int) -> Path:
    return folder / f"{scan.name}_{k:04d}.nii.gz"


def _copy(path: Path, target: Path) -> None:
    try:
        shutil.copyfile(path, target)
    except OSError as error:
        raise OutputError(
            f"{target}: {path} cannot be copied there: {error.strerror}",
            fix="name a folder with space that can be written",
        ) from error
