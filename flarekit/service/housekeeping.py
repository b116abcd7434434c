"""What a service does by itself: deletes what its time is up for, and what nobody knows."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from typing import TYPE_CHECKING

from flarekit.service.problems import log_fault

if TYPE_CHECKING:
    from flarekit.service.service import Service

_LOG = logging.getLogger(__name__)
_SWEEP_S = 30.0


def remove_strangers(service: Service) -> None:
    """Remove folders of uploads that never became cases, and fail cases without a predictor."""
    known = {case.id for case in service.store.all()}
    for folder in (service.settings.data / "cases").iterdir():
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
    for case in service.store.all("waiting"):
        if case.predictor not in service.predictors:
            said = {
                "message": f"the service no longer offers {case.predictor}",
                "fix": "upload the scan again for another predictor",
            }
            service.store.change(case.id, state="failed", error=said)


def sweep(service: Service) -> None:
    """Delete the cases whose time is up, and close scans that wait for clicks in vain."""
    before = time.time() - service.settings.keep_hours * 3600
    for case in service.store.all("done", "failed", "cancelled"):
        if case.changed < before:
            service.forget(case.id)
    service.opened.release_idle(service.settings.idle_minutes * 60)


class Sweeper(threading.Thread):
    """Sweeps now and then, until the service ends."""

    def __init__(self, service: Service) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._service = service

    def run(self) -> None:
        """Sweep now and then."""
        pause_s = min(_SWEEP_S, self._service.settings.keep_hours * 1800)
        while not self._service.wait_for_end(pause_s):
            try:
                sweep(self._service)
            except Exception as error:  # noqa: BLE001 - a full disk may not keep scans for ever
                log_fault(_LOG, error, "the sweep, which is tried again")
