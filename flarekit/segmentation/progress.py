"""How far a run is, for whoever wants to know, told by one device at a time."""

import logging
import threading
from dataclasses import dataclass, field
from typing import Protocol

from flarekit.conventions import Case
from flarekit.core.records import CaseRecord
from flarekit.core.spec import PredictorSpec
from flarekit.segmentation.memory import drawing_mib
from flarekit.segmentation.report import Report
from flarekit.segmentation.segmented import Segmented

_LOG = logging.getLogger(__name__)


class Progress(Protocol):
    """Who wants to know how far the run is."""

    def start_case(self, case_id: str, index: int, total: int) -> None:
        """Case `index` (from 0) of `total` begins."""
        ...

    def tiles(self, done: int, total: int) -> None:
        """So many tiles of this case are done."""
        ...

    def end_case(self, record: CaseRecord) -> None:
        """The case is over, one way or the other."""
        ...


class Silent:
    """Progress that is not shown anywhere."""

    def start_case(self, case_id: str, index: int, total: int) -> None:
        """Do nothing."""

    def tiles(self, done: int, total: int) -> None:
        """Do nothing."""

    def end_case(self, record: CaseRecord) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class SharedProgress:
    """What the runs of several devices have in common; it is told by one of them at a time."""

    progress: Progress
    report: Report | None
    total: int
    stopped: threading.Event = field(default_factory=threading.Event)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def draws(self) -> bool:
        """Whether a picture of every case is wanted."""
        return self.report is not None and self.report.draws

    @property
    def measures(self) -> bool:
        """Whether statistics of every label are wanted."""
        return self.report is not None and self.report.measures

    def start_case(self, case: Case, number: int) -> None:
        """Tell that a case begins."""
        with self._turn:
            self.progress.start_case(case.case_id, number, self.total)

    def tiles(self, done: int, total: int) -> None:
        """Tell how many of its tiles are done."""
        with self._turn:
            self.progress.tiles(done, total)

    def end_case(self, record: CaseRecord) -> None:
        """Keep the record of a case that is over, and tell of it."""
        with self._turn:
            if self.report is not None:
                self.report.add(record)
            self.progress.end_case(record)

    def draw(
        self, case: Case, done: Segmented, spec: PredictorSpec, usable_mib: float
    ) -> tuple[str, ...]:
        """Draw a case into the report, where there is one and memory for it.

        Returns:
            Why there is no picture, where one was wanted.
        """
        if self.report is None or not self.draws:
            return ()
        needed_mib = drawing_mib(done.label_map_ZYX.size)
        if usable_mib < needed_mib:
            note: str | None = f"no picture of {case.case_id}: it takes {needed_mib:.0f} MiB"
        else:
            with self._turn:
                shown = next(iter(done.kept.values()))
                note = self.report.draw(case.case_id, shown, done.label_map_ZYX, spec.mask_labels)
        if note is None:
            return ()
        _LOG.warning(note)
        return (note,)
