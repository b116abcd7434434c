"""PET/CTs laid out for autoPET: a job each, the CT on the PET's voxels, as theirs is."""

from collections.abc import Sequence
from pathlib import Path

from flarekit.conventions._arranging import Grid, Placed, ScanToPlace, job_folders
from flarekit.core.files import make_folder
from flarekit.core.scan_files import write_scan

CHANNELS = ("CT", "PET")


def arrange(scans: Sequence[ScanToPlace], folder: Path) -> list[Placed]:
    """Lay PET/CTs out: `images/ct/NAME.mha` and `images/pet/NAME.mha`, PETs in SUV.

    Raises:
        InputError: a scan cannot be read.
        OutputError: one cannot be written.
    """
    placed = []
    for scan, job, name in job_folders(scans, folder):
        for modality, volume in zip(map(str.lower, CHANNELS), scan.read(), strict=True):
            make_folder(job / "images" / modality)
            write_scan(job / "images" / modality / f"{scan.name}.mha", volume)
        grid = Grid.of_file(job / "images" / CHANNELS[0].lower() / f"{scan.name}.mha")
        placed.append(Placed(mask=scan.mask.as_posix(), job=name, stem=scan.name, grid=grid))
    return placed
