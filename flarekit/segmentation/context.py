"""What every case goes through, what is wanted of it, and how long it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Geometry, Volume
from flarekit.engine import Engine, TileProgress
from flarekit.segmentation.locator import Locator
from flarekit.segmentation.memory import Memory
from flarekit.segmentation.small_tiles import SmallTiles
from flarekit.segmentation.speeds import Speeds


@dataclass
class Clock:
    """Wall time by stage, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as this stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


@dataclass(frozen=True, kw_only=True)
class CoarsePass:
    """Another predictor that tells where to look."""

    spec: PredictorSpec
    engine: Engine
    margin_mm: float


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What computes, and what knows how fast.

    Attributes:
        engine: of the predictor.
        speeds: of the engine on this machine.
        coarse: a first pass; None where there is none.
        locator: looks at the whole scan first; None where there is none, or nobody needs it.
        small: runs smaller tiles of the predictor; None where it names none, or without a locator.
        since: when it was ready, of `time.monotonic`.
    """

    engine: Engine
    speeds: Speeds
    coarse: CoarsePass | None = None
    locator: Locator | None = None
    small: SmallTiles | None = None
    since: float = 0.0

    @property
    def one_time_s(self) -> float:
        """Time spent on what later runs find ready: compiling, whichever network it was."""
        engines = [self.engine]
        engines += [each.engine for each in (self.coarse, self.locator) if each is not None]
        small_s = 0.0 if self.small is None else self.small.one_time_s
        return sum(engine.one_time_s for engine in engines) + small_s


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What every case goes through.

    Attributes:
        spec: the predictor's facts in the mode that is run.
        compute: gives what computes, once it has started.
        memory: what this process may take.
        everywhere: whether tiles stand everywhere as long as there is time, whatever a locator
            finds; without a deadline that is not asked.
        has_locator: whether what computes has a locator.
    """

    spec: PredictorSpec
    compute: Callable[[], Compute]
    memory: Memory
    everywhere: bool = False
    has_locator: bool = False

    def for_mask(
        self, deadline: float | None, geometry: Geometry, wanted: CaseExtras
    ) -> float | None:
        """Return when the mask has to be there, if its labels are measured and drawn in time."""
        if deadline is None:
            return None
        speeds, voxels = self.compute().speeds, math.prod(geometry.shape_ZYX)
        deadline -= speeds.at_most("statistics" if wanted.statistics else "volumes", voxels)
        return deadline - (speeds.at_most("draw") if wanted.picture else 0.0)


def unheard(_done: int, _total: int) -> None:
    """Nobody wants to know how far the tiles are."""


@dataclass(frozen=True, kw_only=True)
class CaseExtras:
    """What is wanted of a case beside its labels.

    Attributes:
        probabilities: of every class, on the scan's grid.
        to_refine: what rules on the scan need, to run them again.
        picture: the first channel, to stand behind the labels.
        statistics: the channels that labels are measured in: the first, and those of PET.
        progress: called after every tile.
    """

    probabilities: bool = False
    to_refine: bool = False
    picture: bool = False
    statistics: bool = False
    progress: TileProgress = unheard

    def kept(self, volumes: Sequence[Volume], spec: PredictorSpec) -> dict[str, Volume]:
        """Return the channels that are looked at once there are labels, by name."""
        if not (self.statistics or self.picture):
            return {}
        first, *others = zip(spec.channels, volumes, strict=False)
        uptakes = [(channel, volume) for channel, volume in others if channel.is_uptake]
        kept = [first, *uptakes] if self.statistics else [first]
        return {channel.name: volume for channel, volume in kept}
