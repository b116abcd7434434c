"""What a sweep needs of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from flarekit.core.grid import Grid
from flarekit.engine._facts import EngineFacts
from flarekit.engine._slab import Array, Place, Run
from flarekit.engine._tiles import TileRow

AnyRun = TypeVar("AnyRun", bound=Run)


class TileRunner(ABC, Generic[AnyRun]):
    """What a sweep needs of an engine: logits of tiles, and sums to add them to.

    Attributes:
        grid: tile and step of the window.
        facts: what computes.
        one_time_s: time spent on what later runs find ready (compiling).
        slices_at_once: of a 2D network.
        tiles_at_once: in a batch; what it is on a GPU turns out in a sweep.
    """

    grid: Grid
    facts: EngineFacts
    slices_at_once: int = 1
    tiles_at_once: int = 1

    def __init__(self) -> None:
        self.one_time_s = 0.0

    @property
    def depth_at_once(self) -> int:
        """Slices that are run together: of a tile, or of a group of them for a 2D network."""
        depth = self.grid.tile_ZYX[0]
        return depth if depth > 1 else self.slices_at_once

    @abstractmethod
    def run(self, depth: int, size_YX: tuple[int, ...]) -> AbstractContextManager[AnyRun]:
        """Return a context manager that gives a run whose sums are zeros."""

    @abstractmethod
    def tiles(
        self,
        image_CZYX: NDArray[np.float32],
        row: TileRow,
        places: Iterable[Place],
        flips: Sequence[Sequence[int]],
        run: AnyRun,
    ) -> Iterator[tuple[Place, Array]]:
        """Yield the logits (K, Z, Y, X) of each tile of a row, averaged over flips and networks."""
