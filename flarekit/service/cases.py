"""The cases of a service: where they lie, who offers to compute them, and how they go."""

import fcntl
import logging
import secrets
import shutil
from pathlib import Path
from typing import TextIO

import flarekit
from flarekit import engine
from flarekit.core.errors import UsageError
from flarekit.core.files import make_folder
from flarekit.core.spec import Mode, PredictorFolder
from flarekit.segmentation.devices import devices_of
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source
from flarekit.service.outputs import Files
from flarekit.service.problems import Problem
from flarekit.service.scans import UploadedScan, uploaded_scan
from flarekit.service.segmenters import OpenScans
from flarekit.service.settings import Settings
from flarekit.service.store import Store, StoredCase
from flarekit.service.turns import Turns

_LOG = logging.getLogger(__name__)


class Cases:
    """What the threads of a service share.

    Args:
        settings: of the service.

    Raises:
        FlarekitError: a predictor is not there, or its weights are not those that its facts name; a
            device is not there, or does not compute in the precision; or the data folder cannot be
            made.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.predictors: dict[str, PredictorFolder] = {}
        for name in settings.predictors:
            self._offer(name)
        for device in devices_of(settings.device):
            engine.check_available(device, settings.precision)
        make_folder(settings.data / "cases")
        self._kept = keep_others_off(settings.data)
        self.store = Store(settings.data / "cases.sqlite")
        self.turns = Turns(self.store)
        self.opened = OpenScans()
        self.files = Files()
        self.uploads: set[str] = set()  # cases to come, with a place in the queue

    def _offer(self, name: str) -> None:
        """Offer a predictor whose weights are here and whole."""
        predictor = find_predictor(name)
        other = self.predictors.get(predictor.name)
        if other is not None and other.folder.resolve() != predictor.folder.resolve():
            raise UsageError(
                f"{other.folder} and {predictor.folder} are both named {predictor.name}",
                fix="offer one of them, or give one another name in its predictor.toml",
            )
        Source.of_folder(predictor).check()
        self.predictors[predictor.name] = predictor

    def load(self, predictor: str, mode: Mode, device: str) -> Segmenter:
        """Return a segmenter for a predictor, a mode and a device."""
        settings = self.settings
        return flarekit.load(
            self.predictors[predictor],
            mode=mode,
            device=device,
            precision=settings.precision,
            ram_budget_mib=settings.ram_budget_mib,
        )

    def ran(self, case_id: str) -> None:
        """Note that a case runs no longer; of one that was deleted meanwhile nothing is left."""
        self.turns.ran(case_id)
        if not self.turns.are_over and self.store.get(case_id) is None:
            self._clear(case_id)

    def folder_of(self, case_id: str) -> Path:
        """Return where the files of a case lie; its id is one that we made."""
        return self.settings.data / "cases" / case_id

    def scan_of(self, case: StoredCase) -> UploadedScan:
        """Return the scan of a case, to be read.

        Raises:
            Problem: its predictor is no longer offered.
        """
        spec = self.predictor(case.predictor).spec
        most_bytes = self.settings.max_unpacked_bytes
        return uploaded_scan(self.folder_of(case.id), case.files, spec, most_bytes)

    def predictor(self, name: str) -> PredictorFolder:
        """Return a predictor that is offered.

        Raises:
            Problem: it is not.
        """
        predictor = self.predictors.get(name)
        if predictor is None:
            raise Problem(
                422,
                "no such predictor is offered",
                fix=f"choose one of: {', '.join(self.predictors)}",
            )
        return predictor

    def forget(self, case_id: str, *, older_than: float | None = None) -> None:
        """Delete a case and all its files.

        Args:
            case_id: which.
            older_than: only where it is over, and has been since before then (of `time.time`).
        """
        removed = self.turns.remove(case_id, older_than=older_than)
        if removed or older_than is None:
            self._clear(case_id)
            _LOG.info("case %s deleted", case_id[:6])

    def _clear(self, case_id: str) -> None:
        self.opened.drop(case_id)
        remove_folder(self.folder_of(case_id))


def keep_others_off(data: Path) -> TextIO:
    """Keep other services off a data folder for as long as the file that is returned is open.

    Raises:
        UsageError: another service uses it.
    """
    lock = (data / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise UsageError(
            f"{data}: another service uses this folder", fix="end that one, or name another --data"
        ) from error
    return lock


def remove_folder(folder: Path) -> None:
    """Remove a case's folder, whoever writes to it just now.

    It loses its name first: nothing can be put into it from then on, and what removes its files one
    by one is not overtaken.
    """
    aside = folder.with_name(f".deleted-{secrets.token_hex(8)}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    except OSError:
        aside = folder
    shutil.rmtree(aside, ignore_errors=True)
