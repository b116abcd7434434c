"""`efficiency.json`: what computed, and where the time of every case went."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import flarekit
from flarekit.core.files import write_atomically
from flarekit.core.records import RunRecord

_REPORTED = ("numpy", "torch", "openvino", "connected-components-3d", "nibabel")


def write_efficiency(record: RunRecord, folder: Path) -> Path:
    """Write the record of a run with the versions that made it.

    Raises:
        OutputError: it could not be written.
    """
    content = record.as_dict() | {
        "flarekit": flarekit.__version__,
        "python": platform.python_version(),
        "versions": _versions(),
    }
    path = folder / "efficiency.json"
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


def _versions() -> dict[str, str]:
    """Return the versions of what is installed; a lean image has no torch."""
    versions = {}
    for name in _REPORTED:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
