"""The cases of a service from upload to deletion, whoever asks for what."""

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flarekit.core.archive_members import UnpackLimits
from flarekit.core.errors import FlarekitError
from flarekit.segmentation.devices import devices_of
from flarekit.service.cases import Cases, remove_folder
from flarekit.service.housekeeping import Sweeper, refuse_unoffered, remove_strangers
from flarekit.service.problems import Problem, problem_of, said_of
from flarekit.service.scans import arrange
from flarekit.service.segmenters import Load
from flarekit.service.settings import Settings
from flarekit.service.store import StoredCase
from flarekit.service.uploads import Upload
from flarekit.service.wishes import Wish, check_clicks
from flarekit.service.worker import Worker, write_result

_LOG = logging.getLogger(__name__)
_MOST_FILES = 20_000
_USUAL_CASE_S = 10.0
_END_S = 20.0  # how long a thread may take to end


class Service(Cases):
    """Takes cases, lets workers compute them, and answers for them; threads may share it."""

    def __init__(self, settings: Settings, load: Load | None = None) -> None:
        """Open the data folder, and let the cases that wait in it run.

        Args:
            settings: of the service.
            load: gives a segmenter for a predictor, a mode and a device.

        Raises:
            FlarekitError: see `Cases`.
        """
        super().__init__(settings)
        self._lock = threading.Lock()
        remove_strangers(self)
        refuse_unoffered(self)
        load = load or self.load
        self.workers = [Worker(self, load, device) for device in devices_of(settings.device)]
        self._sweeper = Sweeper(self)

    def start(self) -> None:
        """Begin to compute."""
        for thread in (*self.workers, self._sweeper):
            thread.start()

    def stop(self) -> None:
        """End: the case that computes is given up, and waits again when the service is back.

        A worker that does not end in time cannot record anything any more; while it computes, no
        other service may use the data folder.
        """
        self.turns.end()
        for thread in (*self.workers, self._sweeper):
            if thread.is_alive():
                thread.join(timeout=_END_S)
        self.store.close()
        if not any(worker.is_alive() for worker in self.workers):
            self._kept.close()

    def reserve(self) -> str:
        """Return the id of a case to come, and keep a place in the queue for it.

        Raises:
            Problem: the queue is full.
        """
        case_id = secrets.token_urlsafe(16)
        with self._lock:
            self._refuse_where_full()
            self.uploads.add(case_id)  # before there is a folder, which would be a stranger's
        try:
            self.folder_of(case_id).mkdir()
        except OSError:
            self.give_up(case_id)
            raise
        return case_id

    def give_up(self, case_id: str) -> None:
        """Give back the place of an upload that failed; one that is in the queue stays there."""
        with self._lock:
            if case_id not in self.uploads:
                return
            self.uploads.remove(case_id)
        remove_folder(self.folder_of(case_id))

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
        case = StoredCase(
            id=case_id,
            owner=owner,
            predictor=self.predictor(wish.predictor).name,
            options=wish.options(),
            files=files,
        )
        with self._lock:
            if case_id in self.uploads:
                case = self.store.add(case)
                self.uploads.remove(case_id)
            else:  # given up meanwhile, as the service ends
                remove_folder(self.folder_of(case_id))
                raise Problem(
                    503, "the service is shutting down", fix="send the scan again when it is back"
                )
        self.turns.wake()
        _LOG.info("case %s waits", case.id[:6])
        return case

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
        self.turns.cancel(case.id)
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
            with lock, self.reading(case) as folder:
                try:
                    result = scan.refine(clicks)
                except FlarekitError as error:
                    raise problem_of(error) from error
                write_result(folder, result)
                latest = self.case(case_id, owner)
                summary = latest.result | {
                    "volumes_ml": {name: round(ml, 4) for name, ml in result.volumes_ml.items()},
                    "refined_s": round(result.seconds, 3),
                }
                changes = {"clicks": clicks, "result": summary, "revision": latest.revision + 1}
                self.store.change(case.id, only_if="done", **changes)
            return self.case(case_id, owner)
        with self._lock:
            self._refuse_where_full()
            waits = self.store.wait_again(case.id, clicks=clicks)
        found = self.case(case_id, owner)
        if not waits:
            raise Problem(409, f"the case is {found.state}", fix="wait until it is done")
        self.turns.wake()
        return found

    @contextmanager
    def reading(self, case: StoredCase) -> Iterator[Path]:
        """Give the folder of a case, whose files may go while they are read.

        Raises:
            Problem: the case was deleted meanwhile.
        """
        try:
            yield self.folder_of(case.id)
        except (FlarekitError, OSError):
            self.case(case.id, case.owner)
            raise

    def delete(self, case_id: str, owner: str) -> None:
        """Delete a case and all its files; one that runs is stopped first."""
        self.forget(self.case(case_id, owner).id)

    def _refuse_where_full(self) -> None:
        waiting = len(self.store.waiting()) + len(self.uploads)
        if waiting >= self.settings.queue:
            raise self._full(waiting)

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
