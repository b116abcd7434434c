"""Get what computes ready, while the first case is read."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flarekit import engine
from flarekit.core.budget import Budget
from flarekit.core.errors import PredictorError
from flarekit.core.spec import PredictorFolder, PredictorSpec
from flarekit.segmentation.case import Clock, CoarsePass
from flarekit.segmentation.options import Options
from flarekit.segmentation.plan import TileTimer
from flarekit.segmentation.predictors import find_predictor, networks_of

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Started:
    """What computes, and what knows how fast."""

    engine: engine.Engine
    timer: TileTimer
    coarse: CoarsePass | None


def start_engine(
    predictor: PredictorFolder,
    spec: PredictorSpec,
    options: Options,
    budget: Budget,
    clock: Clock,
) -> Started:
    """Load the engine (and that of a first pass), and time a tile where time is limited.

    Raises:
        PredictorError: weights missing, wrong or not fitting.
        DeviceError: the device or the precision is not available.
    """
    with clock.stage("load"):
        compute = _engine(predictor, spec, options, budget)
        timer = TileTimer(engine=compute, channels=len(spec.channels))
        if budget.time_s is not None and compute.facts.device == "cpu":
            timer.measure()  # beside the reading of the first case: it costs no time
        coarse = None
        if spec.coarse is not None:
            first = find_predictor(spec.coarse.predictor)
            first_spec = _coarse_spec(first.spec, spec)
            coarse = CoarsePass(
                spec=first_spec,
                engine=_engine(first, first_spec, options, budget),
                margin_mm=spec.coarse.margin_mm,
            )
    facts = compute.facts
    where = f"{facts.engine} on {facts.device} ({facts.device_name}), {facts.precision}"
    _LOG.info("predictor %s, profile %s, engine %s", spec.name, options.profile, where)
    return Started(engine=compute, timer=timer, coarse=coarse)


def _engine(
    predictor: PredictorFolder, spec: PredictorSpec, options: Options, budget: Budget
) -> engine.Engine:
    return engine.create(
        options.engine,
        networks_of(predictor),
        spec.grid,
        class_count=len(spec.class_values),
        device=options.device,
        precision=options.precision,
        memory_mib=budget.gpu_memory_mib,
    )


def _coarse_spec(first: PredictorSpec, spec: PredictorSpec) -> PredictorSpec:
    if len(first.channels) != len(spec.channels):
        raise PredictorError(
            f"{spec.name}: its first pass {first.name} takes {len(first.channels)} channels, not "
            f"{len(spec.channels)}",
            fix="name a predictor of the same channels in [coarse], or remove it",
        )
    return first.under("fast")
