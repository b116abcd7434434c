"""Loads what computes: the locator, the network, a first pass; and recalls how fast they are."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from functools import partial

from flarekit import engine
from flarekit.core.budget import Budget
from flarekit.core.spec import PredictorSpec
from flarekit.engine import EngineFacts
from flarekit.segmentation.coarse import coarse_spec
from flarekit.segmentation.context import CoarsePass, Compute
from flarekit.segmentation.locator import Locator, values_of
from flarekit.segmentation.options import Options, unlimited
from flarekit.segmentation.predictors import cache_folder, find_predictor
from flarekit.segmentation.small_tiles import small_tiles_of
from flarekit.segmentation.source import Source
from flarekit.segmentation.speeds import Speeds

_LOG = logging.getLogger(__name__)
_PLENTY_MIB = 4096.0  # where less is left, what an engine takes has to be known before the plan


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is to be loaded, and how.

    Attributes:
        source: of the network.
        locator: of the locator's; None where it has none, or nobody needs it.
        spec: facts of the predictor in the mode that is run.
        options: how to run.
        budget: what a case may take.
        budget_of: the convention whose limits count.
        usable_mib: memory that is left to this process.
    """

    source: Source
    locator: Source | None
    spec: PredictorSpec
    options: Options
    budget: Budget
    budget_of: str
    usable_mib: float

    def compute(self, deadline: float | None) -> Compute:
        """Load it all.

        Args:
            deadline: of `time.monotonic`, for the first mask; None where there is none. Without
                time for a tile before it, a compiled network that has a locator is left to be
                loaded when it first runs.

        Raises:
            PredictorError: weights missing, wrong or not fitting.
            DeviceError: the device or the precision is not available.
        """
        locator = self._locator()  # first: it is the first to be run
        within = math.inf if deadline is None else deadline
        later = deadline is not None and locator is not None
        compute = self._engine_of(self.source, self.spec, later=later)
        speeds, small = self._speeds(compute.facts), None
        began = time.monotonic()
        if not compute.is_loaded and began + speeds.with_one_tile_s() < within:
            compute.load()
            speeds.learn("load", time.monotonic() - began - compute.one_time_s)
        if compute.facts.device != "cpu" or self.usable_mib < _PLENTY_MIB:
            for each in (compute, *([] if locator is None else [locator.engine])):
                each.warm_up(len(self.spec.channels))  # takes its memory beside the first reading
        coarse = self._coarse()
        self._say(compute.facts)
        if locator is not None:
            networks, load = self.source.networks(), partial(self._engine_of, self.source)
            small = small_tiles_of(networks, self.spec, compute.facts, load, speeds)
        return Compute(
            engine=compute,
            speeds=speeds,
            coarse=coarse,
            locator=locator,
            small=small,
            since=time.monotonic(),
        )

    def _say(self, facts: EngineFacts) -> None:
        where = f"{facts.engine} on {facts.device} ({facts.device_name}), {facts.precision}"
        mode = self.options.mode
        _LOG.info("predictor %s, mode %s, engine %s", self.spec.name, mode, where)
        for sentence in unlimited(self.budget_of, self.options):
            _LOG.info(sentence)

    def _coarse(self) -> CoarsePass | None:
        if self.spec.coarse is None:
            return None
        first = find_predictor(self.spec.coarse.predictor, trust=self.source.trusted)
        first_spec = coarse_spec(first.spec, self.spec)
        return CoarsePass(
            spec=first_spec,
            engine=self._engine_of(Source.of_folder(first), first_spec),
            margin_mm=self.spec.coarse.margin_mm,
        )

    def _locator(self) -> Locator | None:
        if self.locator is None:
            return None
        assert self.spec.locator is not None
        spec = self.locator.spec.for_mode("fast")
        return Locator(
            spec=spec,
            engine=self._engine_of(self.locator, spec),
            values=values_of(spec, self.spec),
            facts=self.spec.locator,
        )

    def _speeds(self, facts: EngineFacts) -> Speeds:
        networks, named = self.source.networks(), self.spec.locator
        computing = [facts.engine, facts.device, facts.device_name, facts.precision]
        tiles = [*self.spec.grid.tile_ZYX, named and named.small_tile_ZYX]
        kept = cache_folder() if networks.folders else None  # a module is not there another time
        return Speeds(kept, *computing, networks.identity, *map(str, tiles))

    def _engine_of(
        self, source: Source, spec: PredictorSpec, *, later: bool = False
    ) -> engine.Engine:
        return engine.create(
            self.options.engine,
            source.networks(),
            spec.grid,
            class_count=len(spec.class_values),
            device=self.options.device,
            precision=self.options.precision,
            memory_mib=self.budget.gpu_memory_mib,
            deterministic=self.options.deterministic,
            later=later,
        )
