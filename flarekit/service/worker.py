"""One thread per device that computes one case after another."""

import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

from flarekit.core.errors import FlarekitError
from flarekit.phantom import save_phantom
from flarekit.segmentation.result import Result
from flarekit.segmentation.segmenter import Segmenter
from flarekit.service.cases import Cases
from flarekit.service.outputs import MASK, MemoryCurve, summary_of
from flarekit.service.problems import log_fault, said_of
from flarekit.service.scans import UploadedScan
from flarekit.service.segmenters import Load, Segmenters
from flarekit.service.store import StoredCase
from flarekit.service.turns import CancelledError, Progress

_LOG = logging.getLogger(__name__)
_LOOK_S = 5.0


class Worker(threading.Thread):
    """Computes the cases of one device."""

    def __init__(self, service: Cases, load: Load, device: str) -> None:
        super().__init__(name=f"worker-{device}", daemon=True)
        self._service = service
        self._segmenters = Segmenters(load, device)

    def run(self) -> None:
        """Compute until the service ends, whatever happens meanwhile to its list of cases."""
        while not self._service.turns.are_over:
            try:
                self._take_turn()
            except Exception as error:  # noqa: BLE001 - a service without workers helps nobody
                log_fault(_LOG, error, "a worker, which goes on")
                self._service.turns.wait_for_end(_LOOK_S)

    def _take_turn(self) -> None:
        found = self._service.turns.next(_LOOK_S)
        if found is None:
            self._segmenters.release_idle(self._service.settings.idle_minutes * 60)
        else:
            self._guarded(*found)

    def _guarded(self, case: StoredCase, progress: Progress) -> None:
        """Compute a case; whatever goes wrong is the case's, never the service's."""
        service = self._service
        folder = service.folder_of(case.id)
        try:
            self._compute(case, progress, folder)
            _LOG.info("case %s is done", case.id[:6])
        except CancelledError:
            state = "cancelled" if progress.unwanted else "waiting"
            attempts = case.attempts if progress.unwanted else case.attempts - 1
            self._settle(case, state=state, attempts=attempts)
            _LOG.info("case %s is %s", case.id[:6], state)
        except FlarekitError as error:
            self._fail(case, said_of(error, folder))
        except Exception as error:  # noqa: BLE001 - no scan may take the service along
            log_fault(_LOG, error, f"case {case.id[:6]}")
            said = {
                "message": f"{type(error).__name__} while it was computed",
                "fix": "run flarekit predict -v on the scan, and report what it says",
            }
            self._fail(case, said)
        finally:
            service.ran(case.id)

    def _fail(self, case: StoredCase, said: dict[str, str]) -> None:
        self._settle(case, state="failed", error=said)
        _LOG.info("case %s failed", case.id[:6])

    def _settle(self, case: StoredCase, **changes: Any) -> None:  # noqa: ANN401 - columns
        """Record how a case ended; where the disk is full, as soon as it is not."""
        while True:
            try:
                self._service.store.change(case.id, **changes)
            except sqlite3.Error as error:
                _LOG.error("case %s: its end cannot be recorded yet: %s", case.id[:6], error)  # noqa: TRY400
                if self._service.turns.wait_for_end(_LOOK_S):
                    return  # it runs again when the service is back
            else:
                return

    def _compute(self, case: StoredCase, progress: Progress, folder: Path) -> None:
        service = self._service
        if "phantom" in case.files:
            progress.begin("generating")
            case = self._with_phantom(case, folder)
        mode = case.options["mode"]
        if not self._segmenters.is_loaded(case.predictor, mode):
            progress.begin("loading")
        segmenter = self._segmenters.get(case.predictor, mode)
        with MemoryCurve() as curve:
            progress.begin("reading")
            scan = service.scan_of(case)
            result = self._result(case, segmenter, scan, progress)
            progress.begin("writing")
            write_result(folder, result)
        summary = summary_of(result, scan, segmenter, curve, folder)
        self._settle(case, state="done", result=summary, revision=case.revision + 1, error={})

    def _result(
        self, case: StoredCase, segmenter: Segmenter, scan: UploadedScan, progress: Progress
    ) -> Result:
        budget_s = case.options["time_budget_s"]
        if "clicks" not in [rule.name for rule in segmenter.spec.rules]:
            return segmenter.segment(scan.source, time_budget_s=budget_s, progress=progress.count)
        opened = segmenter.open(scan.source, time_budget_s=budget_s, progress=progress.count)
        result = opened.refine(case.clicks) if case.clicks else opened.result
        self._service.opened.keep(case.id, opened)
        return result

    def _with_phantom(self, case: StoredCase, folder: Path) -> StoredCase:
        """Make the CT of a demonstration; its truth is not kept."""
        name = "CT.nii.gz"
        save_phantom(case.files["phantom"], scan=folder / name, labels=folder / "truth.nii.gz")
        (folder / "truth.nii.gz").unlink()
        spec = self._service.predictors[case.predictor].spec
        files = {channel.name: name for channel in spec.channels}
        self._service.store.change(case.id, files=files)
        return self._service.store.get(case.id) or case


def write_result(folder: Path, result: Result) -> None:
    """Write the mask of a case in place of the one before."""
    result.save(folder / MASK)
