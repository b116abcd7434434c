"""A labelled scan's files as training reads them: what is odd is told or refused, never passed on.

A channel gets the value of its own air where a voxel is no number, as in prediction; a label that
is no number is none, and is refused.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.channels import UPTAKE_NAMES, Channel
from flarekit.core.errors import InputError
from flarekit.core.nifti import AIR_HU, read_nifti
from flarekit.core.plausible import with_doubts
from flarekit.core.same_grid import grid_difference
from flarekit.core.volume import Geometry, Volume
from flarekit.training.survey import label_values

_LOG = logging.getLogger(__name__)


def read_channel(path: Path, channel: Channel | str) -> Volume:
    """Read a channel of a scan; what is odd about it is told.

    Args:
        path: of a NIfTI file.
        channel: of the predictor, or its name where there is no predictor yet.

    Raises:
        InputError: it cannot be read, or is none of a scan.
    """
    name = channel if isinstance(channel, str) else channel.name
    by_name = 0.0 if name.upper() in UPTAKE_NAMES else AIR_HU
    air = by_name if isinstance(channel, str) else channel.air
    volume = with_doubts(read_nifti(path, air=air), name)
    for note in volume.warnings:
        _LOG.warning("%s: %s", path, note)
    return volume


def read_labels(path: Path, scan: Volume) -> tuple[NDArray[np.uint8], Geometry]:
    """Read the label map of a scan: its values, (Z, Y, X) as stored, and where they lie.

    Args:
        path: of a NIfTI file.
        scan: its first channel.

    Raises:
        InputError: it cannot be read, a voxel is not a whole number from 0 to 255, or it lies on
            another grid than the scan, by half a voxel or more.
    """
    stored = read_nifti(path, air=math.nan)
    most_mm = min(scan.geometry.spacing_mm_ZYX) / 2
    if difference := grid_difference(stored.geometry, scan.geometry, most_mm):
        raise InputError(
            f"{path}: lies on another grid than {scan.path}: {difference}",
            fix="resample the labels to the image",
        )
    return label_values(stored.voxels_ZYX, path), stored.geometry
