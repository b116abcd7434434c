"""What the network said of a case, kept for the next call that only brings more clicks.

Some platforms leave a folder (`/cache`) between the calls of a case. What lies in it is used where
it was made of the same scan by the same predictor in the same way and is whole; it is never needed.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Case
from flarekit.core.errors import OutputError
from flarekit.core.files import write_atomically
from flarekit.core.npz_files import read_arrays
from flarekit.segmentation.fingerprint import input_sha256

_LOG = logging.getLogger(__name__)
_CLICKS = "clicks"  # the field of a case whose file the network does not see


def usable_folder(folder: str) -> Path | None:
    """Return a folder that is there and may be written; None otherwise."""
    path = Path(folder)
    return path if folder and path.is_dir() and os.access(path, os.W_OK | os.X_OK) else None


@dataclass(frozen=True)
class BetweenCalls:
    """The labels of one case, before the rules that look at clicks, in a file.

    Attributes:
        path: of the file, named after scan, predictor and way of running.
    """

    path: Path

    @classmethod
    def of(cls, folder: Path, case: Case, made_by: dict[str, Any]) -> BetweenCalls:
        """Return where the labels of a case are kept.

        Args:
            folder: that lasts between the calls.
            case: its clicks do not count where no channel shows them.
            made_by: what else labels depend on, in plain values.
        """
        if any(each.name == _CLICKS for each in fields(case)):
            unseen: Any = {_CLICKS: None}
            case = replace(case, **unseen)
        said = json.dumps([input_sha256(case), made_by], sort_keys=True)
        return cls(folder / f"flarekit-{hashlib.sha256(said.encode()).hexdigest()[:32]}.npz")

    def load(self, shape_ZYX: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Return the labels; None where there are none, or they are damaged."""
        if not self.path.is_file():
            return None
        try:
            content = read_arrays(self.path)
            labels, digest = content["labels"], content["sha256"].tobytes()
        except (ValueError, KeyError) as error:
            _LOG.warning("%s: cannot be used (%s): the network runs again", self.path, error)
            return None
        whole = labels.dtype == np.uint8 and labels.shape == tuple(shape_ZYX)
        if not whole or _digest(labels) != digest:
            _LOG.warning("%s: is not what was written: the network runs again", self.path)
            return None
        _LOG.debug("the network's labels are those of an earlier call (%s)", self.path)
        found: NDArray[np.uint8] = labels
        return found

    def save(self, labels_ZYX: NDArray[np.uint8]) -> None:
        """Keep the labels; where that is not possible, it is said, and nothing else happens."""
        content = io.BytesIO()
        digest = np.frombuffer(_digest(labels_ZYX), np.uint8)
        np.savez_compressed(content, labels=labels_ZYX, sha256=digest)
        try:
            write_atomically(self.path, content.getvalue())
        except OutputError as error:
            _LOG.warning("labels are not kept for the next call: %s", error.message)


def _digest(labels_ZYX: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(labels_ZYX).tobytes()).digest()
