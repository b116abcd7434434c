"""What a service does by itself: deletes what its time is up for, and what nobody knows."""

import logging
import threading
import time

from flarekit.service.cases import Cases, remove_folder
from flarekit.service.problems import log_fault

_LOG = logging.getLogger(__name__)
_SWEEP_S = 30.0


def remove_strangers(service: Cases) -> None:
    """Remove folders that are no case's and no upload's.

    A folder is an upload's before it is there, and a case's before it is an upload's no longer:
    whoever is looked up in this order is known.
    """
    folders = list((service.settings.data / "cases").iterdir())
    known = set(service.uploads.copy())
    known |= {case.id for case in service.store.all()}
    for folder in folders:
        if folder.name not in known:
            remove_folder(folder)


def refuse_unoffered(service: Cases) -> None:
    """Fail the cases that wait for a predictor that is no longer offered."""
    for case in service.store.all("waiting"):
        if case.predictor not in service.predictors:
            said = {
                "message": f"the service no longer offers {case.predictor}",
                "fix": "upload the scan again for another predictor",
            }
            service.store.change(case.id, state="failed", error=said)


def sweep(service: Cases) -> None:
    """Delete the cases whose time is up and what nobody knows, and close scans nobody corrects."""
    before = time.time() - service.settings.keep_hours * 3600
    for case in service.store.all("done", "failed", "cancelled"):
        if case.changed < before:
            service.forget(case.id, older_than=before)
    remove_strangers(service)
    service.opened.release_idle(service.settings.idle_minutes * 60)


class Sweeper(threading.Thread):
    """Sweeps now and then, until the service ends."""

    def __init__(self, service: Cases) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._service = service

    def run(self) -> None:
        """Sweep now and then."""
        pause_s = min(_SWEEP_S, self._service.settings.keep_hours * 1800)
        while not self._service.turns.wait_for_end(pause_s):
            try:
                sweep(self._service)
            except Exception as error:  # noqa: BLE001 - a full disk may not keep scans for ever
                log_fault(_LOG, error, "the sweep, which is tried again")
