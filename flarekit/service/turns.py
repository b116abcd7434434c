"""Whose turn it is: cases from the queue to the workers, and how those that run are stopped."""

import threading
from dataclasses import dataclass, field
from typing import Literal

from flarekit.service.store import Store, StoredCase

Step = Literal["generating", "loading", "reading", "tiles", "deciding", "writing"]


class CancelledError(Exception):
    """Somebody does not want the case any more, or the service ends."""


@dataclass(kw_only=True)
class Progress:
    """How far a case is that runs.

    Attributes:
        step: what is being done.
        tiles: how many are done, and how many there are.
        unwanted: whether somebody wants it no longer.
        cancel: set where the case is to stop: it is unwanted, or the service ends.
    """

    step: Step = "loading"
    tiles: tuple[int, int] = (0, 0)
    unwanted: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)

    def begin(self, step: Step) -> None:
        """Tell that the next step begins.

        Raises:
            CancelledError: the case is to stop.
        """
        if self.cancel.is_set():
            raise CancelledError
        self.step = step

    def count(self, done: int, total: int) -> None:
        """Tell that a tile is done.

        Raises:
            CancelledError: the case is to stop.
        """
        self.begin("deciding" if done >= total else "tiles")
        self.tiles = (done, total)


class Turns:
    """Gives cases to workers; threads may share it.

    A case is taken and its progress is kept under one lock, and so is what stops it: one that does
    not wait any more can be stopped.
    """

    def __init__(self, store: Store) -> None:
        """Take the list of cases; nothing is given before it is asked for."""
        self._store = store
        self._running: dict[str, Progress] = {}
        self._over = threading.Event()
        self._wake = threading.Condition()

    @property
    def are_over(self) -> bool:
        """Whether the service ends."""
        return self._over.is_set()

    def wait_for_end(self, timeout_s: float) -> bool:
        """Return whether the service ends within a time."""
        return self._over.wait(timeout_s)

    def end(self) -> None:
        """Give no more cases to workers, and stop those that run."""
        self._over.set()
        with self._wake:
            for progress in self._running.values():
                progress.cancel.set()
            self._wake.notify_all()

    def wake(self) -> None:
        """Tell the workers that there is something to do."""
        with self._wake:
            self._wake.notify()

    def next(self, timeout_s: float) -> tuple[StoredCase, Progress] | None:
        """Return the next case, which runs from now on, or None where none came meanwhile."""
        with self._wake:
            found = self._taken()
            if found is None and not self.are_over:
                self._wake.wait(timeout_s)
                found = self._taken()
        return found

    def _taken(self) -> tuple[StoredCase, Progress] | None:
        case = None if self.are_over else self._store.take()
        if case is None:
            return None
        progress = self._running[case.id] = Progress()
        return case, progress

    def progress_of(self, case_id: str) -> Progress | None:
        """Return how far a case is; None where it does not run."""
        return self._running.get(case_id)

    def ran(self, case_id: str) -> None:
        """Note that a case runs no longer."""
        with self._wake:
            self._running.pop(case_id, None)

    def cancel(self, case_id: str) -> None:
        """Stop a case that waits or runs; one that is over stays as it is."""
        with self._wake:
            if not self._store.change(case_id, only_if="waiting", state="cancelled"):
                self._stop(case_id)

    def remove(self, case_id: str, *, older_than: float | None = None) -> bool:
        """Take a case from the list, and stop it where it runs.

        Args:
            case_id: which.
            older_than: only where it is over, and has been since before then (of `time.time`).

        Returns:
            Whether it was there.
        """
        with self._wake:
            removed = self._store.remove(case_id, older_than=older_than)
            if removed:
                self._stop(case_id)
        return removed

    def _stop(self, case_id: str) -> None:
        progress = self._running.get(case_id)
        if progress is not None:
            progress.unwanted = True
            progress.cancel.set()
