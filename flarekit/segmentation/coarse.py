"""A first pass by another predictor: where its labels are, the network looks."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

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
