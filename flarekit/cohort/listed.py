"""Scans that a list names, wherever they lie; each gets a mask of its own name."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.cohort.stores import copy_of
from flarekit.conventions import Case
from flarekit.conventions._case import own_case
from flarekit.core import nifti
from flarekit.core.errors import FlarekitError, InputError
from flarekit.core.names import safe_name
from flarekit.core.scan_files import SCAN_ENDINGS, ending_of, read_geometry, read_scan, write_mask
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Geometry, Volume
from flarekit.segmentation.scans import leading_channel, on_one_grid

_MOST_VOXELS = 2**29  # a header that claims more is not believed


@dataclass(frozen=True, kw_only=True)
class ListedCase(Case):
    """A case that a list names.

    Attributes:
        places: file or URI of each channel.
    """

    places: tuple[str, ...]

    @classmethod
    def of(
        cls, *, name: str, places: Sequence[str], tags: Sequence[str] | None = None
    ) -> ListedCase:
        """Return a case.

        Args:
            name: its own; that of its mask is made of it.
            places: file or URI of each channel.
            tags: what tells their versions, where they are behind URIs.
        """
        case_id = safe_name(name, otherwise="case")
        ending = ".mha" if places[0].endswith(".mha") else ".nii.gz"
        identity = None
        if tags is not None:
            identity = hashlib.sha256(json.dumps([*places, *tags]).encode()).hexdigest()
        return cls(
            case_id=case_id,
            channels=tuple(Path(place) for place in places),
            mask=Path(f"{case_id}{ending}"),
            identity=identity,
            places=tuple(places),
        )


@dataclass(frozen=True)
class Listed:
    """Reads listed scans and writes their masks, as any convention does.

    Attributes:
        spec: of the predictor.
    """

    spec: PredictorSpec

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Refuse: cases are listed, not found.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{input_dir}: the cases of {channel_count} channels are listed, not found in a folder",
            fix="take the cases from the list",
        )

    def read_case(self, case: Case) -> list[Volume]:
        """Read all channels of a case, one after the other, and bring them onto one grid.

        Raises:
            InputError: a channel is missing or unreadable.
        """
        channels = self.spec.channels
        readers = [
            partial(_read, place, channel.air)
            for place, channel in zip(own_case(case, ListedCase).places, channels, strict=True)
        ]
        return on_one_grid(readers, channels, leading_channel(channels))

    def write_mask(
        self, case: Case, label_map_ZYX: NDArray[np.uint8], geometry: Geometry, output_dir: Path
    ) -> Path:
        """Write a uint8 mask with the header and array order of the first channel.

        Raises:
            OutputError: it could not be written.
        """
        path = output_dir / case.mask
        write_mask(path, label_map_ZYX, geometry)
        return path

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Write all background, in the first channel's geometry where that can be read.

        Raises:
            OutputError: it could not be written.
        """
        place = own_case(case, ListedCase).places[leading_channel(self.spec.channels)]
        geometry = nifti.blank_geometry()
        try:
            with ExitStack() as stack:
                path = _here(place, stack)
                found = read_geometry(path)
            if math.prod(found.shape_ZYX) <= _MOST_VOXELS:
                geometry = found
        except FlarekitError:
            pass  # what is wrong with it is the case's error
        return self.write_mask(case, np.zeros(geometry.shape_ZYX, np.uint8), geometry, output_dir)


def _read(place: str, air: float) -> Volume:
    if not ending_of(Path(place)):
        raise InputError(
            f"{place}: is none of {', '.join(SCAN_ENDINGS)}", fix="convert it, or correct the list"
        )
    with ExitStack() as stack:
        path = _here(place, stack)
        try:
            return read_scan(path, air=air)
        except FlarekitError as error:
            error.message = error.message.replace(str(path), place)
            raise


def _here(place: str, stack: ExitStack) -> Path:
    """Return a file of this machine; one behind a URI is there until the stack is closed."""
    if "://" not in place:
        return Path(place)
    return stack.enter_context(copy_of(place, f"scan{ending_of(Path(place))}"))
