"""What a case may cost, what computes it, what it gets, and what fits."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import PredictorSpec
from flarekit.engine import Effort, Engine, Tile
from flarekit.preprocess import Placement
from flarekit.segmentation.ending import after_tiles_s, restoring_s
from flarekit.segmentation.memory import Memory
from flarekit.segmentation.priorities import Priorities
from flarekit.segmentation.small_tiles import SmallTiles
from flarekit.segmentation.speeds import Speeds

MARGIN = 1.05  # what is to come may take this much longer than it is expected to
MORE_TILES = 1.5  # tiles that are kept ready beside those there seems to be time for


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a case gets.

    Attributes:
        placement: on the grid that time and memory allow.
        effort: how much is spent on a voxel.
        tiles: those to be run, best first; None for a window over everything.
        usual: how many tiles there are where time is no matter.
        priorities: what the order of the tiles came from; None for a window over everything.
        small: whether these are the predictor's smaller tiles.
        has_map: whether that is a locator's map, whose labels stay where no tile is run.
        expected_s: how long a tile takes, with its flips; None where that is not known.
        traded: what it does without, in words.
    """

    placement: Placement
    effort: Effort
    tiles: tuple[Tile, ...] | None = None
    usual: int = 0
    priorities: Priorities | None = None
    small: bool = False
    has_map: bool = False
    expected_s: float | None = None
    traded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a case may cost.

    Attributes:
        deadline: of `time.monotonic`, for the mask; None where there is no limit.
        memory: of this process.
        ahead: whether the case's turn has not come yet.
        freed_mib: what the scan's voxels give back before the first tile runs.
        keeps_logits: whether the logits of the whole grid are kept.
    """

    deadline: float | None = None
    memory: Memory = field(default_factory=Memory)
    ahead: bool = False
    freed_mib: float = 0.0
    keeps_logits: bool = False


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What computes, and how fast.

    Attributes:
        engine: runs the tiles.
        speeds: of this machine.
        middle_tile: gives the middle tile of a placement, to be timed where nothing is known.
        small: runs smaller tiles; None where the predictor names none.
    """

    engine: Engine
    speeds: Speeds
    middle_tile: Callable[[Placement], NDArray[np.float32]]
    small: SmallTiles | None = None

    def tile_s(self, placement: Placement) -> float:
        """Return how long a tile takes; where that is not known, one of the scan is timed."""
        known = self.speeds.seconds("tile")
        if known is None:
            known = self.engine.seconds_per_tile(self.middle_tile(placement))
            self.speeds.learn("tile", known)
        return known


def full_effort(spec: PredictorSpec) -> Effort:
    """Return the effort where time is no matter."""
    return Effort(step=spec.grid.step, mirror_axes=spec.grid.mirror_axes)


def tiles_of(
    engine: Engine,
    shape_ZYX: tuple[int, int, int],
    step: float,
    needed_ZYX: NDArray[np.bool_] | None,
    *,
    fitted: bool,
) -> tuple[Tile, ...]:
    """Return where tiles stand; see `flarekit.engine.Engine.rows`."""
    rows = engine.rows(shape_ZYX, step, needed_ZYX, fitted=fitted)
    return tuple((row.z, y, x) for row in rows for y, x in row.places)


def run_at_once(engine: Engine) -> tuple[int, int, int]:
    """Return the voxels of what is run at once; a few slices of a 2D network."""
    _, height, width = engine.grid.tile_ZYX
    return engine.depth_at_once, height, width


def ready_at(
    placement: Placement,
    pace: Pace,
    limits: Limits,
    *,
    slices: int | None = None,
    fills: bool = False,
) -> float:
    """Return when the last tile would have to be done if tiles began now: resampling is first.

    Args:
        placement: of the case.
        pace: of what computes.
        limits: with a deadline.
        slices: of the grid, that are restored; all of them where None.
        fills: whether a locator's labels are painted where no tile was run.
    """
    assert limits.deadline is not None
    speeds, (z, y, x) = pace.speeds, placement.cropped_shape
    placing_s = speeds.seconds("place", placement.channels * z * y * x) or 0.0
    after_s = after_tiles_s(placement, speeds, fills=fills)
    return limits.deadline - after_s - placing_s - restoring_s(placement, speeds, slices)


def fits(
    placement: Placement, effort: Effort, engine: Engine, tile_s: float, deadline: float
) -> bool:
    """Return whether there is time for tiles everywhere."""
    count = engine.count_tiles(placement.shape_ZYX, effort.step, placement.needed_ZYX)
    return time.monotonic() + count * effort.runs * tile_s * MARGIN <= deadline


def has_spacing(spec: PredictorSpec) -> bool:
    """Return whether the grid has a spacing of its own, which can be made coarser."""
    return all(isinstance(mm, float) for mm in spec.grid.spacing_mm_ZYX)


def coarser(spec: PredictorSpec, factor: float) -> PredictorSpec:
    """Return the facts on a grid so many times coarser."""
    spacing = tuple(mm * factor if isinstance(mm, float) else mm for mm in spec.grid.spacing_mm_ZYX)
    grid = spec.grid.model_copy(update={"spacing_mm_ZYX": spacing})
    return spec.model_copy(update={"grid": grid})
