"""A first pass by another predictor: where its labels are, the network looks."""

import logging
from collections.abc import Sequence

import numpy as np

from flarekit.core.errors import PredictorError
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Volume
from flarekit.preprocess import Placement, locate, place
from flarekit.segmentation.context import CoarsePass
from flarekit.segmentation.memory import Memory, resampling_mib

_LOG = logging.getLogger(__name__)


def restrict_to_coarse(
    placement: Placement, volumes: Sequence[Volume], coarse: CoarsePass, memory: Memory
) -> Placement:
    """Let the network look near what the first pass finds; everywhere where that is nothing."""
    located = locate(volumes, coarse.spec)
    first = located.placement(coarse.spec)
    memory.check(resampling_mib(first), "the first pass")
    tensor = place(volumes, located, first, coarse.spec).tensor_CZYX
    sweep = coarse.engine.sweep(tensor, needed_ZYX=first.needed_ZYX)
    if coarse.spec.nnunet is not None and coarse.spec.nnunet.region_values:
        found = np.concatenate([(slab.logits() > 0).any(axis=0) for slab in sweep])
    else:
        classes = np.concatenate([slab.classes() for slab in sweep])
        found = (classes > 0) & (classes <= len(coarse.spec.labels))  # internal ones are behind
    if not found.any():
        _LOG.info("the first pass found nothing: the network looks everywhere")
        return placement
    stored = first.restore(found.astype(np.uint8))
    return placement.restricted_to(stored > 0, coarse.margin_mm)


def coarse_spec(first: PredictorSpec, spec: PredictorSpec) -> PredictorSpec:
    """Return the facts that a predictor's first pass is run with.

    Raises:
        PredictorError: it takes other channels than the predictor.
    """
    if len(first.channels) != len(spec.channels):
        raise PredictorError(
            f"{spec.name}: its first pass {first.name} takes {len(first.channels)} channels, not "
            f"{len(spec.channels)}",
            fix="name a predictor of the same channels in [coarse], or remove it",
        )
    return first.for_mode("fast")
