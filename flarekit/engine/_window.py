"""The sliding window itself, whatever computes the tiles.

The window goes up in Z. Logits are summed in a slab one tile thick; slices that no later tile
covers leave it as a `Slab`, so that memory does not grow with the scan. Where a predictor wants it,
the window starts in the middle instead and goes on only where it finds something. An engine gives
the tiles' logits and the sums they are added to; what changes meanwhile belongs to the `Run` of
each sweep, so that several threads may sweep with one engine.
"""

import time

import numpy as np
from numpy.typing import NDArray

from flarekit.engine._facts import Effort, TileProgress
from flarekit.engine._pace import TilePace
from flarekit.engine._sweep import AnyRun, Sweep, TileRunner, padded
from flarekit.engine._tiles import Schedule, TileRow, fitted_rows


class WindowEngine(TileRunner[AnyRun]):
    """Runs networks over volumes of any size; several threads may sweep at the same time.

    An engine gives the tiles' logits; padding, sweeping and whole volumes at once are shared.
    """

    def sweep(
        self,
        tensor_CZYX: NDArray[np.float32],
        *,
        effort: Effort | None = None,
        needed_ZYX: NDArray[np.bool_] | None = None,
        pace: TilePace | None = None,
        progress: TileProgress = lambda _done, _total: None,
        schedule: Schedule | None = None,
    ) -> Sweep:
        """Start a pass over a volume; iterate it for slabs of ascending Z.

        Args:
            tensor_CZYX: float32 on the network's grid, any size.
            effort: the grid's own step and flips where None.
            needed_ZYX: tiles without any such voxel are left out: their voxels are background.
            pace: has the deadline, and is told when tiles are done; no limit where None. Tiles are
                left out for it where there is a schedule, or the window starts in the middle.
            progress: called after every tile.
            schedule: run these tiles and no others, the best of them where time is short.
        """
        _, z, y, x = tensor_CZYX.shape
        return Sweep(
            engine=self,
            image_CZYX=padded(tensor_CZYX, self.grid.tile_ZYX),
            size_ZYX=(z, y, x),
            effort=effort or Effort(step=self.grid.step, mirror_axes=self.grid.mirror_axes),
            needed_ZYX=needed_ZYX,
            pace=pace or TilePace(),
            progress=progress,
            schedule=schedule,
        )

    def predict(
        self, tensor_CZYX: NDArray[np.float32], progress: TileProgress
    ) -> NDArray[np.uint8]:
        """Return the class index of every voxel, (Z, Y, X)."""
        slabs = self.sweep(tensor_CZYX, progress=progress)
        return np.concatenate([slab.classes() for slab in slabs])

    def logits(
        self, tensor_CZYX: NDArray[np.float32], progress: TileProgress
    ) -> NDArray[np.float32]:
        """Return the mean logits of every voxel, (K, Z, Y, X)."""
        slabs = self.sweep(tensor_CZYX, progress=progress)
        return np.concatenate([slab.logits().copy() for slab in slabs], axis=1)

    def count_tiles(
        self,
        shape_ZYX: tuple[int, int, int],
        step: float,
        needed_ZYX: NDArray[np.bool_] | None = None,
    ) -> int:
        """Return how many tiles a sweep would run, flips not counted."""
        return sum(len(row.places) for row in self.rows(shape_ZYX, step, needed_ZYX))

    def rows(
        self,
        shape_ZYX: tuple[int, int, int],
        step: float,
        needed_ZYX: NDArray[np.bool_] | None = None,
        *,
        fitted: bool = False,
    ) -> list[TileRow]:
        """Return the tiles that a sweep would run, in its order.

        Args:
            shape_ZYX: of the network's grid.
            step: largest distance between two tiles, as a fraction of the tile.
            needed_ZYX: tiles without any such voxel are left out.
            fitted: let tiles stand over the box of what is needed, instead of over everything.
        """
        if fitted and needed_ZYX is not None:
            tile_ZYX = self.grid.tile_ZYX
            far = [(0, max(0, n - m)) for n, m in zip(tile_ZYX, needed_ZYX.shape, strict=True)]
            padded_ZYX = np.pad(needed_ZYX, far)
            return fitted_rows(padded_ZYX, tile_ZYX, step, slices_at_once=self.slices_at_once)
        blank = np.broadcast_to(np.float32(0), (1, *shape_ZYX))
        return self.sweep(blank, effort=Effort(step=step), needed_ZYX=needed_ZYX).rows()

    @property
    def is_loaded(self) -> bool:
        """Whether the networks are there, so that the next tile waits for nothing."""
        return True

    def load(self) -> None:  # noqa: B027 - most engines have loaded theirs
        """Load the networks where that was put off."""

    def warm_up(self, channels: int) -> None:
        """Run blank tiles, as many together as in a sweep, so that all memory is taken."""
        shape = (channels, self.depth_at_once, *self.grid.tile_ZYX[1:])
        self.seconds_per_tile(np.zeros(shape, np.float32))

    def seconds_per_tile(self, tile_CZYX: NDArray[np.float32]) -> float:
        """Run a tile, as many together as in a sweep, and return the time of one, in seconds.

        Args:
            tile_CZYX: of a real scan; of a 2D network, as many slices as it gets together.
        """
        row = TileRow(z=0, depth=tile_CZYX.shape[1], places=((0, 0),) * self.tiles_at_once)
        with self.run(row.depth, self.grid.tile_ZYX[1:]) as run:
            began = time.monotonic()
            for place, logits_KZYX in self.tiles(tile_CZYX, row, row.places, [[]], run):
                run.sums.add(logits_KZYX, place)
            run.sums.classes(1, (1, 1))  # waits for what a device has not finished
            return (time.monotonic() - began) / len(row.places)

    def release(self) -> None:  # noqa: B027 - most engines hold nothing
        """Give back what a device holds between cases."""
