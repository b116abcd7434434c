"""What a run leaves in writing beside its masks: ledger, statistics, a picture of every case."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import OutputError
from flarekit.core.records import CaseRecord, RunRecord
from flarekit.core.volume import Volume
from flarekit.report.ledger import LEDGER, RUN, Ledger
from flarekit.report.picture import write_picture
from flarekit.report.statistics import STATISTICS, add_statistics, begin_statistics

_LOG = logging.getLogger(__name__)


class Report:
    """The record of a run, its statistics and pictures, in a folder.

    No picture that fails ends a run.
    """

    FILES = (RUN, LEDGER, STATISTICS)

    def __init__(self, folder: Path, *, pictures: bool = True) -> None:
        """Remember the folder.

        Args:
            folder: made where it is missing.
            pictures: draw every case that has a mask.
        """
        self.folder = folder
        self._ledger: Ledger | None = None
        self.draws = pictures and find_spec("matplotlib") is not None
        if pictures and not self.draws:
            _LOG.warning("no pictures: matplotlib is not installed (pip install flarekit[picture])")

    def begin(self) -> None:
        """Make the folder, an empty ledger and a table of statistics without lines.

        Raises:
            OutputError: they cannot be made.
        """
        self._ledger = Ledger(self.folder)
        begin_statistics(self.folder)

    def add(self, record: CaseRecord) -> None:
        """Add a case that is over; what cannot be written is said, and the run goes on."""
        if self._ledger is None:
            return
        try:
            self._ledger.add(record)
            add_statistics(self.folder, record.case_id, record.statistics)
        except OSError as error:
            _LOG.warning("%s: %s is not in the record: %s", self.folder, record.case_id, error)

    def draw(
        self,
        case_id: str,
        volume: Volume,
        label_map_ZYX: NDArray[np.uint8],
        labels: Mapping[str, int],
    ) -> None:
        """Draw a case while its scan and labels are in hand.

        Args:
            case_id: names the picture.
            volume: the first channel, as the network saw it.
            label_map_ZYX: uint8, on its grid.
            labels: label name -> value.
        """
        path = self.folder / f"{case_id.replace('/', '_')}.png"
        try:
            write_picture(path, volume, label_map_ZYX, labels)
        except Exception as error:  # noqa: BLE001 - a picture is never worth a run
            _LOG.warning("no picture of %s: %s: %s", case_id, type(error).__name__, error)
            _LOG.debug("picture of %s", case_id, exc_info=True)

    def close(self, record: RunRecord) -> None:
        """Write what holds for the whole run.

        Raises:
            OutputError: it cannot be written.
        """
        if self._ledger is None:
            raise OutputError(f"{self.folder}: no run has begun", fix="begin one")
        self._ledger.close(record)
