"""Smaller tiles of a predictor's network, for time budgets that leave room for few of the usual."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from flarekit.core.spec import PredictorSpec
from flarekit.engine import Engine, EngineFacts, Networks
from flarekit.segmentation.speeds import Speeds

SMALL = "small "  # before what speeds call the times of usual tiles
_LOG = logging.getLogger(__name__)
_UNKNOWN = 1.2  # times as long as their share of usual tiles, where none was run yet


@dataclass(frozen=True, kw_only=True)
class TileSeconds:
    """How long tiles of one size take.

    Attributes:
        tile: one of several, as far as can be expected.
        start: how much longer the first two take.
        first: the first, where no other follows, at most; None where that is not known.
    """

    tile: float
    start: float
    first: float | None

    @classmethod
    def of(cls, speeds: Speeds, kind: str = "") -> TileSeconds:
        """Return what was learnt of tiles, of which one was run.

        Args:
            speeds: of this machine.
            kind: `SMALL` for the smaller ones.
        """
        tile_s = speeds.seconds(f"{kind}tile")
        assert tile_s is not None
        return cls(
            tile=tile_s,
            start=speeds.seconds(f"{kind}start") or 0.0,
            first=speeds.at_most(f"{kind}first") or None,
        )


@dataclass(eq=False, kw_only=True)
class SmallTiles:
    """Runs smaller tiles; loaded when the first of them is run.

    Attributes:
        tile_ZYX: voxels of one.
        usual_ZYX: of those that are run where time is no matter.
        load: returns the engine that runs them.
    """

    tile_ZYX: tuple[int, int, int]
    usual_ZYX: tuple[int, int, int]
    load: Callable[[], Engine]

    def __post_init__(self) -> None:
        """Begin with nothing loaded."""
        self._engine: Engine | None = None
        self._loading = threading.Lock()

    def engine(self, speeds: Speeds) -> Engine:
        """Return what runs them, and learn how long loading it takes."""
        with self._loading:
            if self._engine is None:
                began = time.monotonic()
                self._engine = self.load()
                speeds.learn(f"{SMALL}load", time.monotonic() - began - self._engine.one_time_s)
            return self._engine

    @property
    def one_time_s(self) -> float:
        """Time spent on compiling, which later runs find done."""
        return 0.0 if self._engine is None else self._engine.one_time_s

    def loading_s(self, speeds: Speeds) -> float:
        """Return how long loading is going to take, at most."""
        if self._engine is not None:
            return 0.0
        return speeds.loading_s(f"{SMALL}load")

    def seconds(self, speeds: Speeds) -> TileSeconds:
        """Return what they take, after usual tiles where no small one was run yet."""
        if speeds.knows(f"{SMALL}tile"):
            return TileSeconds.of(speeds, SMALL)
        usual = TileSeconds.of(speeds)
        share = _UNKNOWN * math.prod(self.tile_ZYX) / math.prod(self.usual_ZYX)
        first = None if usual.first is None else share * usual.first
        return TileSeconds(tile=share * usual.tile, start=share * usual.start, first=first)


def small_tiles_of(
    networks: Networks,
    spec: PredictorSpec,
    facts: EngineFacts,
    load: Callable[[PredictorSpec], Engine],
    speeds: Speeds,
) -> SmallTiles | None:
    """Return what runs the smaller tiles that a predictor's `[locator]` names; None without any.

    Networks that have to be compiled for them are compiled now, once; where they cannot be, budgets
    do without.

    Args:
        networks: of the predictor.
        spec: its facts in the mode that is run.
        facts: what computes.
        load: returns an engine for these networks with other facts.
        speeds: of this machine.
    """
    small_ZYX = None if spec.locator is None else spec.locator.small_tile_ZYX
    if small_ZYX is None:
        return None
    grid = spec.grid.model_copy(update={"tile_ZYX": small_ZYX})
    facts_small = spec.model_copy(update={"grid": grid})
    small = SmallTiles(
        tile_ZYX=small_ZYX, usual_ZYX=spec.grid.tile_ZYX, load=lambda: load(facts_small)
    )
    if facts.engine == "openvino":
        from flarekit.engine.openvino import is_compiled

        if not is_compiled(networks, grid, facts.precision):
            if find_spec("torch") is None:
                _LOG.info(
                    "no network is compiled here for tiles of %s: budgets run whole ones", small_ZYX
                )
                return None
            small.engine(speeds)
    return small
