"""What a run leaves in writing: `ledger.jsonl`, one line per case, and `run.json` behind the last.

The ledger grows while the run goes on, so that a crash loses no case that was done.
"""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import flarekit
from flarekit.core.errors import OutputError
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.records import CaseRecord, RunRecord

LEDGER, RUN = "ledger.jsonl", "run.json"
_REPORTED = ("numpy", "torch", "openvino", "connected-components-3d", "nibabel")


class Ledger:
    """The record of one run in a folder; what another run left there is replaced."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing, and begin with no case.

        Raises:
            OutputError: it cannot be made or written.
        """
        make_folder(folder)
        self.folder = folder
        self._path = folder / LEDGER
        try:
            self._path.write_bytes(b"")
            (folder / RUN).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be written: {error.strerror or error}",
                fix="name a report folder that is writable and has space",
            ) from error

    def add(self, record: CaseRecord) -> None:
        """Add the line of a case that is over.

        Raises:
            OSError: it cannot be written.
        """
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record.as_dict()) + "\n")

    def close(self, record: RunRecord) -> None:
        """Write what holds for the whole run, with the versions that made it.

        Raises:
            OutputError: it could not be written.
        """
        content = record.as_dict() | {
            "flarekit": flarekit.__version__,
            "python": platform.python_version(),
            "versions": _versions(),
        }
        write_atomically(self.folder / RUN, (json.dumps(content, indent=2) + "\n").encode())


def _versions() -> dict[str, str]:
    """Return the versions of what is installed; a lean image has no torch."""
    versions = {}
    for name in _REPORTED:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
