"""`efficiency.json`: what computed, and where the time of every case went."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import flarekit
from flarekit.core.files import write_atomically
from flarekit.core.records import RunRecord

_REPORTED = ("numpy", "torch", "connected-components-3d", "nibabel")


def write_efficiency(record: RunRecord, folder: Path) -> Path:
    """Write the record of a run with the versions that made it.

    Raises:
        OutputError: it could not be written.
    """
    content = record.as_dict() | {
        "flarekit": flarekit.__version__,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _REPORTED},
    }
    path = folder / "efficiency.json"
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
    return path
