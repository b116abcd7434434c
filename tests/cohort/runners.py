"""A runner that workers make in place of a network: it writes small masks, and fails on request."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from flarekit.cohort.jobs import Job
from flarekit.core.errors import DeviceError
from flarekit.core.files import write_atomically
from flarekit.core.records import CaseRecord
from flarekit.engine import EngineFacts


@dataclass(frozen=True)
class FakeWork:
    """What a fake worker is told; what happens to a case stands in its id."""

    folder: Path
    seconds: float = 0.0
    broken: bool = False
    precisions: tuple[str, ...] = ()  # of the workers, in the order in which they start

    def __call__(self) -> FakeRunner:
        return FakeRunner(self)


class FakeRunner:
    """`crash` ends the process, `hang` never ends, `raise` raises, `flaky` crashes once."""

    def __init__(self, work: FakeWork) -> None:
        self._work = work

    def start(self) -> EngineFacts | None:
        if self._work.broken:
            raise DeviceError("no device 'abacus'", fix="name another")
        for precision in self._work.precisions:
            try:
                (self._work.folder / f"{precision}.worker").touch(exist_ok=False)
            except FileExistsError:
                continue
            return EngineFacts(
                engine="fake", device="cpu", device_name="a CPU", precision=precision
            )
        return None

    def run(self, job: Job) -> list[CaseRecord]:
        return [self._one(case_id) for case_id in job.case_ids]

    def _one(self, case_id: str) -> CaseRecord:
        folder = self._work.folder
        with (folder / f"{case_id}.starts").open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        starts = len((folder / f"{case_id}.starts").read_text().splitlines())
        if "crash" in case_id or ("flaky" in case_id and starts == 1):
            os._exit(1)
        if "hang" in case_id:
            time.sleep(1000)
        if "raise" in case_id:
            raise RuntimeError("something nobody thought of")
        time.sleep(self._work.seconds)
        mask = folder / f"{case_id}.mask"
        write_atomically(mask, case_id.encode())
        return CaseRecord(case_id=case_id, mask=mask)
