"""The tests that carry the marker `gpu`, those that need nothing else first; one line for each."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from gpu.pack import ROOT
from gpu.supervise import Settings
from gpu.worker import Record

_MARK = re.compile(r"pytest\.mark\.gpu|marks=.*\bgpu\b|pytestmark = .*\bgpu\b")
_FIRST = ("profiler", "selective_scan", "engine", "models")


class _Lines:
    """Notes each test as it ends, so that being cut off loses none."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.counts: dict[str, int] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:  # noqa: ANN401 - pytest's
        if report.when != "call" and report.outcome == "passed":
            return
        self.counts[report.outcome] = self.counts.get(report.outcome, 0) + 1
        row = {"test": report.nodeid, "outcome": report.outcome, "s": round(report.duration, 2)}
        if report.outcome != "passed":
            row["said"] = str(report.longrepr)[-1500:]
        self._record.append("tests", row)
        self._record.add(counts=self.counts)

    def pytest_collectreport(self, report: Any) -> None:  # noqa: ANN401
        if report.failed:
            self._record.append(
                "not_collected", {"file": report.nodeid, "said": str(report.longrepr)[-800:]}
            )


def run(_settings: Settings, record: Record) -> None:
    import pytest

    os.chdir(ROOT)
    files = files_with_gpu_tests(ROOT / "tests")
    record.add(files=[str(path.relative_to(ROOT)) for path in files])
    lines = _Lines(record)
    options = ["-p", "no:cacheprovider", "-m", "gpu", "-o", "filterwarnings=", "--tb=short", "-q"]
    code = pytest.main([*options, *map(str, files)], plugins=[lines])
    record.add(exit_code=int(code))


def files_with_gpu_tests(folder: Path) -> list[Path]:
    """Return the test files that name the marker, those of the parts nearest the device first."""
    found = [path for path in folder.rglob("test_*.py") if _MARK.search(path.read_text())]

    def rank(path: Path) -> tuple[int, str]:
        places = [k for k, part in enumerate(_FIRST) if part in path.parts]
        return (min(places, default=len(_FIRST)), str(path))

    return sorted(found, key=rank)
