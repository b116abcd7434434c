"""The cases of a service from upload to deletion, whoever asks for what."""

from __future__ import annotations

import fcntl
import logging
import secrets
import shutil
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import flarekit
from flarekit import engine
from flarekit.core.archive_members import UnpackLimits
from flarekit.core.errors import FlarekitError, UsageError
from flarekit.core.files import make_folder
from flarekit.core.spec import Mode, PredictorFolder
from flarekit.segmentation.devices import devices_of
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source
from flarekit.service.housekeeping import Sweeper, remove_strangers
from flarekit.service.outputs import Files
from flarekit.service.problems import Problem, problem_of, said_of
from flarekit.service.scans import UploadedScan, arrange, uploaded_scan
from flarekit.service.segmenters import Load, OpenScans
from flarekit.service.settings import Settings
from flarekit.service.store import Store, StoredCase
from flarekit.service.uploads import Upload
from flarekit.service.wishes import Wish, check_clicks
from flarekit.service.worker import Progress, Worker, write_result

_LOG = logging.getLogger(__name__)
_MOST_FILES = 20_000
_USUAL_CASE_S = 10.0


class Service:
    """Takes cases, lets workers compute them, and answers for them; threads may share it."""

    def __init__(self, settings: Settings, load: Load | None = None) -> None:
        """Open the data folder, and let the cases that wait in it run.

        Args:
            settings: of the service.
            load: gives a segmenter for a predictor, a mode and a device.

        Raises:
            FlarekitError: a predictor is not there, or its weights are not those that its facts
                name; a device is not there, or does not compute in the precision; or the data
                folder cannot be made.
        """
        self.settings = settings
        self.predictors: dict[str, PredictorFolder] = {}
        for name in settings.predictors:
            self._offer(name)
        for device in devices_of(settings.device):
            engine.check_available(device, settings.precision)
        make_folder(settings.data / "cases")
        self._kept = _only_one(settings.data)
        self.store = Store(settings.data / "cases.sqlite")
        self.progress: dict[str, Progress] = {}
        self.opened = OpenScans()
        self.files = Files()
        self._uploading = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._wake = threading.Condition()
        remove_strangers(self)
        self.workers = [
            Worker(self, load or self._load, device) for device in devices_of(settings.device)
        ]
        self._sweeper = Sweeper(self)

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

    def start(self) -> None:
        """Begin to compute."""
        for thread in (*self.workers, self._sweeper):
            thread.start()

    def stop(self) -> None:
        """End: the case that computes is given up, and waits again when the service is back."""
        self._over.set()
        for progress in list(self.progress.values()):
            progress.cancel.set()
        with self._wake:
            self._wake.notify_all()
        for worker in self.workers:
            if worker.is_alive():
                worker.join(timeout=20)
        self.store.close()
        self._kept.close()

    def wait_for_end(self, timeout_s: float) -> bool:
        """Return whether the service ends within a time."""
        return self._over.wait(timeout_s)

    @property
    def is_over(self) -> bool:
        """Whether the service ends."""
        return self._over.is_set()

    def wait_for_work(self, timeout_s: float) -> StoredCase | None:
        """Return the next case, or None where none came meanwhile."""
        with self._wake:
            case = None if self.is_over else self.store.take()
            if case is None and not self.is_over:
                self._wake.wait(timeout_s)
                case = None if self.is_over else self.store.take()
        return case

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

    # -- what may be asked for --

    def reserve(self) -> str:
        """Return the id of a case to come, and keep a place in the queue for it.

        Raises:
            Problem: the queue is full.
        """
        with self._lock:
            waiting = len(self.store.waiting()) + self._uploading
            if waiting >= self.settings.queue:
                raise self._full(waiting)
            self._uploading += 1
        case_id = secrets.token_urlsafe(16)
        try:
            self.folder_of(case_id).mkdir()
        except OSError:
            self.give_up(case_id, keep=False)
            raise
        return case_id

    def give_up(self, case_id: str, *, keep: bool) -> None:
        """Give back the place of a case that was uploaded, or whose upload failed."""
        with self._lock:
            self._uploading -= 1
        if not keep:
            shutil.rmtree(self.folder_of(case_id), ignore_errors=True)

    def submit(self, case_id: str, upload: Upload, wish: Wish, owner: str) -> StoredCase:
        """Put an upload into the queue.

        Raises:
            Problem: it is not a scan that this predictor takes.
        """
        predictor = self.predictor(wish.predictor)
        folder = self.folder_of(case_id)
        limits = UnpackLimits(most_bytes=self.settings.max_unpacked_bytes, most_files=_MOST_FILES)
        try:
            files = arrange(upload.files, folder, predictor.spec, limits)
        except FlarekitError as error:
            said = said_of(error, folder)
            raise Problem(problem_of(error).status, said["message"], fix=said["fix"]) from error
        return self._enqueue(case_id, wish, owner, files)

    def submit_phantom(self, case_id: str, wish: Wish, owner: str, seed: int) -> StoredCase:
        """Put a generated CT into the queue; its worker makes it."""
        return self._enqueue(case_id, wish, owner, {"phantom": seed})

    def _enqueue(self, case_id: str, wish: Wish, owner: str, files: dict[str, Any]) -> StoredCase:
        case = self.store.add(
            StoredCase(
                id=case_id,
                owner=owner,
                predictor=self.predictor(wish.predictor).name,
                options=wish.options(),
                files=files,
            )
        )
        self.wake()
        _LOG.info("case %s waits", case.id[:6])
        return case

    def wake(self) -> None:
        """Tell the workers that there is something to do."""
        with self._wake:
            self._wake.notify()

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

    def case(self, case_id: str, owner: str) -> StoredCase:
        """Return somebody's case.

        Raises:
            Problem: there is none of this id, or it is another's; which of both is not told.
        """
        case = self.store.get(case_id)
        if case is None or case.owner != owner:
            raise Problem(
                404, "there is no such case", fix="see /v1/cases; cases are deleted after a time"
            )
        return case

    def finished(self, case_id: str, owner: str) -> StoredCase:
        """Return somebody's case that has a result.

        Raises:
            Problem: it has none.
        """
        case = self.case(case_id, owner)
        if case.state == "failed":
            raise Problem(409, case.error["message"], fix=case.error["fix"])
        if not case.result:
            raise Problem(
                409, f"the case is {case.state}", fix="wait until it is done: see its events"
            )
        return case

    def cancel(self, case_id: str, owner: str) -> StoredCase:
        """Stop a case that waits or runs; one that is over stays as it is."""
        case = self.case(case_id, owner)
        if not self.store.change(case.id, only_if="waiting", state="cancelled"):
            progress = self.progress.get(case.id)
            if progress is not None:
                progress.cancel.set()
        return self.case(case_id, owner)

    def click(self, case_id: str, owner: str, clicks: dict[str, Any]) -> StoredCase:
        """Correct a case: at once where its scan is still open, else when its turn comes again.

        Raises:
            Problem: its predictor takes no clicks, one lies outside the scan, or the queue is full.
        """
        case = self.finished(case_id, owner)
        check_clicks(case, self.predictor(case.predictor).spec, clicks)
        held = self.opened.get(case.id)
        if held is not None and case.state == "done":
            scan, lock = held
            with lock:
                try:
                    result = scan.refine(clicks)
                except FlarekitError as error:
                    raise problem_of(error) from error
                write_result(self.folder_of(case.id), result)
                latest = self.case(case_id, owner)
                summary = latest.result | {
                    "volumes_ml": {name: round(ml, 4) for name, ml in result.volumes_ml.items()},
                    "refined_s": round(result.seconds, 3),
                }
                self.store.change(
                    case.id, clicks=clicks, result=summary, revision=latest.revision + 1
                )
            return self.case(case_id, owner)
        with self._lock:
            waiting = len(self.store.waiting()) + self._uploading
            if waiting >= self.settings.queue:
                raise self._full(waiting)
            if case.state == "done":
                self.store.wait_again(case.id, clicks=clicks)
            else:
                raise Problem(409, f"the case is {case.state}", fix="wait until it is done")
        self.wake()
        return self.case(case_id, owner)

    def delete(self, case_id: str, owner: str) -> None:
        """Delete a case and all its files; one that runs is stopped first."""
        case = self.case(case_id, owner)
        progress = self.progress.get(case.id)
        if progress is not None:
            progress.cancel.set()
        self.forget(case.id)

    def forget(self, case_id: str) -> None:
        """Delete a case and all its files."""
        self.opened.drop(case_id)
        self.store.remove([case_id])
        shutil.rmtree(self.folder_of(case_id), ignore_errors=True)
        _LOG.info("case %s deleted", case_id[:6])

    def _full(self, waiting: int) -> Problem:
        done = [case.result["seconds"] for case in self.store.all("done") if case.result][-10:]
        mean_s = sum(done) / len(done) if done else _USUAL_CASE_S
        seconds = max(1, min(600, round(mean_s)))
        return Problem(
            429,
            f"{waiting} cases wait already, and no more are taken",
            fix=f"try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        )

    # -- what happens by itself --

    def _load(self, predictor: str, mode: Mode, device: str) -> Segmenter:
        settings = self.settings
        return flarekit.load(
            self.predictors[predictor],
            mode=mode,
            device=device,
            precision=settings.precision,
            ram_budget_mib=settings.ram_budget_mib,
        )


def _only_one(data: Path) -> TextIO:
    """Keep other services off a data folder for as long as the file that is returned is open."""
    lock = (data / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise UsageError(
            f"{data}: another service uses this folder", fix="end that one, or name another --data"
        ) from error
    return lock


@lru_cache(maxsize=64)
def card_of(folder: Path) -> str:
    """Return what a predictor's card says; empty where it has none."""
    path = folder / "CARD.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
