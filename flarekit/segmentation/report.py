"""What a run leaves in writing beside its masks: ledger, statistics, a picture of every case."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.apart import keep_inputs
from flarekit.core.errors import OutputError, UsageError
from flarekit.core.extras import can_draw
from flarekit.core.records import CaseRecord, RunRecord
from flarekit.core.volume import Volume
from flarekit.report.ledger import LEDGER, RUN, Ledger, Line, ledgers_in, part_of, read_ledgers
from flarekit.report.picture import write_picture
from flarekit.report.statistics import STATISTICS, StatisticsTable

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Resuming:
    """How a run goes on from what earlier ones left.

    Attributes:
        resume: skip the cases that are done.
        retry_failed: skip what is done, as `resume` does, and run the cases again that failed.
    """

    resume: bool = False
    retry_failed: bool = False

    @property
    def wanted(self) -> bool:
        """Whether earlier runs count."""
        return self.resume or self.retry_failed


class Report:
    """The record of a run, its statistics and pictures, in a folder.

    No picture that fails ends a run.
    """

    FILES = (RUN, LEDGER, STATISTICS)

    def __init__(
        self,
        folder: Path,
        *,
        pictures: bool = True,
        only_ledger: bool = False,
        resuming: Resuming | None = None,
    ) -> None:
        """Remember the folder.

        Args:
            folder: made where it is missing.
            pictures: draw every case that has a mask.
            only_ledger: leave nothing but the ledger and the run's record.
            resuming: how to go on where earlier runs ended, by the ledgers in the folder.
        """
        self.folder = folder
        self.resuming = resuming or Resuming()
        self._ledger: Ledger | None = None
        self._table: StatisticsTable | None = None
        self.measures = not only_ledger
        pictures = pictures and not only_ledger
        self.draws = pictures and can_draw("no pictures")

    def check_place(
        self, inputs: Sequence[Path], outputs: Path | None, case_ids: Iterable[str]
    ) -> None:
        """Refuse a folder where a report would replace inputs, or would be taken for masks.

        Args:
            inputs: which are only read.
            outputs: folder of the masks, whose every file an organiser may take for one; None
                where the mask has a file of its own.
            case_ids: of the cases that will be drawn.

        Raises:
            UsageError: naming the folder, or the file that would be replaced.
        """
        if outputs is not None and self.folder.resolve().is_relative_to(outputs.resolve()):
            raise UsageError(
                f"{self.folder}: lies in the output folder ({outputs}), which holds masks and "
                "nothing else",
                fix="name a folder for the report that is not in the output folder",
            )
        pictures = [self._picture(case_id) for case_id in case_ids]
        keep_inputs(inputs, self.folder, [*map(Path, self.FILES), *pictures])

    @contextmanager
    def begun(self, stamp: Mapping[str, Any], part: str = "") -> Iterator[dict[str, Line]]:
        """Make folder, ledger and table, and keep other runs off the ledger meanwhile.

        Args:
            stamp: what is the same for every case: the predictor's SHA-256, and the settings.
            part: which part of a cohort the run is, for the names of its files; empty for all.

        Yields:
            Case id -> its last line in earlier runs; nothing where the run does not resume.

        Raises:
            OutputError: they cannot be made or read.
            UsageError: another run is writing to the ledger.
        """
        keep = self.resuming.wanted
        self._ledger = Ledger(self.folder, part=part, keep=keep, stamp=stamp)
        try:
            if self.measures:
                self._table = StatisticsTable(part_of(self.folder / STATISTICS, part), keep=keep)
            yield read_ledgers(ledgers_in(self.folder)) if keep else {}
        finally:
            self._ledger.end()

    def for_workers(self, *, pictures: bool) -> Report:
        """Return what other processes need to draw and measure; the ledger stays with this one.

        Args:
            pictures: draw every case that has a mask.
        """
        return Report(self.folder.resolve(), pictures=pictures, only_ledger=not self.measures)

    def forget(self, case_ids: Iterable[str]) -> None:
        """Take cases that are run again out of the statistics of earlier runs.

        Raises:
            OutputError: they cannot be written.
        """
        if self._table is not None and self.resuming.wanted:
            self._table.drop(set(case_ids))

    def add(self, record: CaseRecord) -> None:
        """Add a case that is over; what cannot be written is said, and the run goes on."""
        if self._ledger is None:
            return
        try:
            if self._table is not None:
                self._table.add(record.case_id, record.statistics, record.flags)
            self._ledger.add(record)  # last: what is in it counts as done
        except OSError as error:
            _LOG.warning("%s: %s is not in the record: %s", self.folder, record.case_id, error)

    def draw(
        self,
        case_id: str,
        volume: Volume,
        label_map_ZYX: NDArray[np.uint8],
        labels: Mapping[str, int],
    ) -> str | None:
        """Draw a case while its scan and labels are in hand.

        Args:
            case_id: names the picture.
            volume: the first channel, as the network saw it.
            label_map_ZYX: uint8, on its grid.
            labels: label name -> value.

        Returns:
            Why there is no picture; None where there is one.
        """
        path = self.folder / self._picture(case_id)
        try:
            write_picture(path, volume, label_map_ZYX, labels)
        except Exception as error:  # noqa: BLE001 - Matplotlib, the disk: no picture is worth a run
            _LOG.debug("picture of %s", case_id, exc_info=True)
            return f"no picture of {case_id}: {type(error).__name__}: {error}"
        return None

    @staticmethod
    def _picture(case_id: str) -> Path:
        return Path(f"{case_id.replace('/', '_')}.png")

    def close(self, record: RunRecord) -> None:
        """Write what holds for the whole run.

        Raises:
            OutputError: it cannot be written.
        """
        if self._ledger is None:
            raise OutputError(f"{self.folder}: no run has begun", fix="begin one")
        self._ledger.close(record)
