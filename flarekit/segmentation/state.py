"""Where the ledgers of runs without a report lie: never among inputs or masks."""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from flarekit.core.errors import UsageError
from flarekit.core.names import safe_name
from flarekit.segmentation.report import Report, Resuming

STATE_VARIABLE = "FLAREKIT_STATE"
_LOG = logging.getLogger(__name__)


def state_folder() -> Path | None:
    """Return where this user's ledgers are kept; None where `FLAREKIT_STATE` is set to nothing.

    That variable names it; else it is `flarekit` in `XDG_STATE_HOME` (`~/.local/state`).
    """
    own = os.environ.get(STATE_VARIABLE)
    if own is not None:
        return Path(own) if own else None
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "flarekit"


def state_report(inputs: Sequence[Path], output: Path, resuming: Resuming) -> Report | None:
    """Return the ledger of runs from inputs to an output; None where none can be kept.

    Args:
        inputs: where the scans are.
        output: where the masks go.
        resuming: how to go on where an earlier run from one to the other ended.

    Raises:
        UsageError: a run is to be resumed where no ledgers are kept.
    """
    parent = state_folder()
    folder = None if parent is None else parent / "runs" / _name(inputs, output)
    if folder is not None and _is_writable(folder):
        return Report(folder, only_ledger=True, resuming=resuming)
    if resuming.wanted:
        raise UsageError(
            f"no ledger of an earlier run: {folder or STATE_VARIABLE + ' is empty and'} "
            "cannot be written",
            fix="name the folder of a ledger with --report, in both runs",
        )
    _LOG.debug("no ledger is kept: %s cannot be written", folder or "an empty " + STATE_VARIABLE)
    return None


def _name(inputs: Sequence[Path], output: Path) -> str:
    folders = "\0".join(str(path.resolve()) for path in (*inputs, output))
    digest = hashlib.sha256(folders.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{safe_name(output.resolve().name, otherwise='masks')}-{digest}"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
