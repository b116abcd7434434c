"""Conventions by name: the file `flarekit/conventions/x.py` is the convention `x`.

A convention knows what an organiser's evaluator puts in and expects out, and nothing of networks.
Each file is a module that satisfies `Convention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import UsageError
from flarekit.core.volume import Volume

__all__ = ["Case", "Convention", "get", "names"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to segment.

    Attributes:
        case_id: the organiser's name for it.
        channels: one file per channel of the predictor, in its order; a file may be missing.
        mask: where the mask goes, relative to the output folder.
    """

    case_id: str
    channels: tuple[Path, ...]
    mask: Path


class Convention(Protocol):
    """What every convention module defines."""

    def find_cases(self, input_dir: Path, channel_count: int) -> Sequence[Case]:
        """Return the cases in a folder, sorted by name.

        Raises:
            InputError: no such folder, or no case in it; the message says what was looked for.
        """
        ...

    def read_case(self, case: Case) -> list[Volume]:
        """Read all channels of a case.

        Raises:
            InputError: a channel is missing or unreadable.
        """
        ...

    def write_mask(
        self,
        case: Case,
        label_map_ZYX: NDArray[np.uint8],
        volumes: Sequence[Volume],
        output_dir: Path,
    ) -> Path:
        """Write the mask of a case and return its path.

        Raises:
            OutputError: it could not be written.
        """
        ...

    def write_empty_mask(self, case: Case, output_dir: Path) -> Path:
        """Write an all-background mask for a case that failed, and return its path.

        In the scan's geometry where that can still be read, else of a single voxel.

        Raises:
            OutputError: it could not be written.
        """
        ...


def names() -> tuple[str, ...]:
    """Return the names of all conventions, sorted."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def get(name: str) -> Convention:
    """Return a convention.

    Raises:
        UsageError: no such convention.
    """
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}"
        raise UsageError(f"no convention {name!r}", fix=hint)
    return cast(Convention, import_module(f"flarekit.conventions.{name}"))
