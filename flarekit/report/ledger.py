"""What a run leaves in writing: `ledger.jsonl`, one line per case, and `run.json` behind the last.

The ledger grows while the run goes on, so that a crash loses no case that was done; a later run
reads it and goes on from there. Each of several runs that share a folder has a ledger of its own.
"""

import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flarekit.core.errors import OutputError, UsageError
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.package import VERSION
from flarekit.core.records import CaseRecord, RunRecord

LEDGER, RUN = "ledger.jsonl", "run.json"
Line = Mapping[str, Any]
_LOG = logging.getLogger(__name__)
_REPORTED = ("numpy", "torch", "openvino", "connected-components-3d", "nibabel")


class Ledger:
    """The record of one run in a folder; no other run writes to it meanwhile."""

    def __init__(
        self,
        folder: Path,
        *,
        part: str = "",
        keep: bool = False,
        begins: bool = True,
        stamp: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the folder where it is missing, and open the ledger.

        Args:
            folder: of the ledger.
            part: which part of a cohort this run is, as it stands in the names of its files.
            keep: the lines of earlier runs; else they are replaced.
            begins: whether a run begins, so that the record of the one before no longer holds.
            stamp: what every line says besides.

        Raises:
            OutputError: it cannot be made or written.
            UsageError: another run is writing to it.
        """
        make_folder(folder)
        self.folder = folder
        self._stamp = dict(stamp or {})
        self._path, self._run = (part_of(folder / name, part) for name in (LEDGER, RUN))
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._fault(error) from error
        try:
            self._lock()
            if keep:
                self._end_torn_line()
            else:
                os.ftruncate(self._file, 0)
            if begins:
                self._run.unlink(missing_ok=True)
        except OSError as error:
            self.end()
            raise self._fault(error) from error
        except UsageError:
            self.end()
            raise

    def _fault(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._path}: cannot be written: {error.strerror or error}",
            fix="name a report folder that is writable and has space",
        )

    def _lock(self) -> None:
        """Keep other runs away until this process ends, whichever way."""
        try:
            import fcntl
        except ImportError:  # not on Windows
            _LOG.warning("%s: nothing keeps a second run from writing to it here", self._path)
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{self._path}: another run is writing to it",
                fix="wait for that run or end it; runs side by side need --shard, or reports and "
                "outputs of their own",
            ) from None
        except OSError as error:
            _LOG.warning(
                "%s: its file system has no locks (%s); nothing keeps a second run from writing "
                "to it",
                self._path,
                error.strerror,
            )

    def _end_torn_line(self) -> None:
        """Begin a new line where a run was killed in the middle of one."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def add(self, record: CaseRecord) -> None:
        """Add the line of a case that is over, in one piece.

        Raises:
            OSError: it cannot be written.
        """
        ended = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = record.as_dict() | self._stamp | {"ended": ended}
        line = (json.dumps(content) + "\n").encode()
        written = os.write(self._file, line)
        if written < len(line):  # the disk is full; what is there is read over
            raise OSError(f"only {written} of {len(line)} bytes were written")

    def close(self, record: RunRecord) -> None:
        """Write what holds for the whole run, with the versions that made it.

        Raises:
            OutputError: it could not be written.
        """
        content = record.as_dict() | {
            "flarekit": VERSION,
            "python": platform.python_version(),
            "versions": _versions(),
        }
        write_atomically(self._run, (json.dumps(content, indent=2) + "\n").encode())

    def end(self) -> None:
        """Let other runs write to the ledger."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def part_of(path: Path, part: str) -> Path:
    """Return the name that a file has in one part of a cohort: ledger-3-of-8.jsonl."""
    return path.with_name(f"{path.stem}-{part}{path.suffix}") if part else path


def ledgers_in(folder: Path) -> list[Path]:
    """Return the ledgers of a folder, those of every part of a cohort, sorted by name."""
    return sorted(folder.glob("ledger*.jsonl"))


def read_ledgers(paths: Sequence[Path]) -> dict[str, Line]:
    """Return the last line of every case: its id -> what the ledger says of it.

    A line that is torn, as a run that is killed leaves it, or says nothing of a case is read over.

    Raises:
        OutputError: a ledger cannot be read.
    """
    lines: dict[str, Line] = {}
    for path in paths:
        for line in _lines_of(path):
            before = lines.get(line["case_id"])
            if before is None or before["ended"] <= line["ended"]:
                lines[line["case_id"]] = line
    return lines


def _lines_of(path: Path) -> Iterator[dict[str, Any]]:
    torn = 0
    try:
        with path.open("rb") as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    line = None
                if isinstance(line, dict) and isinstance(line.get("case_id"), str):
                    yield line | {"ended": str(line.get("ended", ""))}
                else:
                    torn += bool(text.strip())
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be read: {error.strerror}",
            fix="check its permissions, or name another",
        ) from error
    if torn:
        what = "1 torn line is" if torn == 1 else f"{torn} torn lines are"
        _LOG.warning("%s: %s skipped; their cases count as not done", path, what)


def _versions() -> dict[str, str]:
    """Return the versions of what is installed; a lean image has no torch."""
    versions = {}
    for name in _REPORTED:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
