"""FLARE (21 to 26): `X_0000.nii.gz` in, `X.nii.gz` out, every file of the folder.

Scoring compares arrays in stored order and ignores affines; a missing mask scores zero with the
worst time, so a failed case still gets a valid mask of background.
"""

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Case
from flarekit.conventions._arranging import MANIFEST
from flarekit.conventions._case import check_folder
from flarekit.core.content import could_hold
from flarekit.core.errors import InputError, UnreadableVolumeError
from flarekit.core.nifti import blank_geometry, read_geometry, read_nifti
from flarekit.core.scan_files import write_mask as write_mask_file
from flarekit.core.volume import Geometry, Volume

_LOG = logging.getLogger(__name__)
_FIRST_CHANNEL = "_0000.nii.gz"
_NUMBERED = re.compile(r"_\d{4}\.nii\.gz$")
_MOST_VOXELS = 2**29  # a header that claims more is not believed


def find_cases(input_dir: Path, channel_count: int) -> Sequence[Case]:
    """Return one case per `X_0000.nii.gz`, sorted; X is anything, even with `_0000` in it.

    Further channels are `X_0001.nii.gz` and so on. Other files are left out, and the log says so.

    Raises:
        InputError: no such folder, or no such file in it.
    """
    check_folder(input_dir)
    cases, others = [], []
    for path in sorted(input_dir.iterdir()):
        case_id = path.name.removesuffix(_FIRST_CHANNEL)
        if path.is_dir() or path.name.startswith(".") or case_id in ("", path.name):
            others.append(path.name)
            continue
        channels = tuple(input_dir / f"{case_id}_{k:04d}.nii.gz" for k in range(channel_count))
        cases.append(Case(case_id=case_id, channels=channels, mask=Path(f"{case_id}.nii.gz")))
    known = {channel.name for case in cases for channel in case.channels}
    foreign = [name for name in others if name not in known and name != MANIFEST]
    if not cases:
        raise InputError(f"{input_dir}: no file named *{_FIRST_CHANNEL}", fix=_hint(foreign))
    ids = {case.case_id for case in cases}
    further = [name for name in foreign if _NUMBERED.sub("", name) in ids]
    foreign = [name for name in foreign if name not in further]
    if further:
        _LOG.warning(
            "%s: channels that the predictor does not take, left out: %s (it takes %d)",
            input_dir,
            ", ".join(further),
            channel_count,
        )
    if foreign:
        _LOG.info("%s: not scans, left out: %s", input_dir, ", ".join(foreign))
    return cases


def _hint(others: Sequence[str]) -> str:
    scans = [name for name in others if re.search(r"\.nii(\.gz)?$", name, re.IGNORECASE)]
    if scans:
        stem = re.sub(r"\.nii(\.gz)?$", "", scans[0], flags=re.IGNORECASE)
        return f"rename {scans[0]} to {stem}{_FIRST_CHANNEL} (gzip-compressed)"
    return f"put scans named CASE{_FIRST_CHANNEL} there"


def read_case(case: Case) -> list[Volume]:
    """Read all channels of a case.

    Raises:
        InputError: a channel is missing or unreadable.
    """
    for path in case.channels:
        if not path.exists():
            raise InputError(f"case {case.case_id!r} has no file {path}", fix="add that channel")
    return [read_nifti(path) for path in case.channels]


def write_mask(
    case: Case, label_map_ZYX: NDArray[np.uint8], geometry: Geometry, output_dir: Path
) -> Path:
    """Write a uint8 mask with the header and array order of the first channel.

    Raises:
        OutputError: it could not be written.
    """
    path = output_dir / case.mask
    write_mask_file(path, label_map_ZYX, geometry)
    return path


def write_empty_mask(case: Case, output_dir: Path) -> Path:
    """Write all background, in the first channel's geometry where that can be read.

    Raises:
        OutputError: it could not be written.
    """
    try:
        geometry = read_geometry(case.channels[0])
        voxels = math.prod(geometry.shape_ZYX)
        if voxels > _MOST_VOXELS or not could_hold(case.channels[0], voxels):
            geometry = blank_geometry()
    except UnreadableVolumeError:
        geometry = blank_geometry()
    path = output_dir / case.mask
    write_mask_file(path, np.zeros(geometry.shape_ZYX, np.uint8), geometry)
    return path
