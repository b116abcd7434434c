"""One case, forward only: read, where, plan, resample once, tiles, labels, rules.

Each step takes what the one before made and is all that holds it, so that voxels go when the next
step no longer needs them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Points
from flarekit.core.channels import Channel, Window
from flarekit.core.plausible import check_range, with_doubts
from flarekit.core.records import TileRecord
from flarekit.core.spec import PredictorSpec, Rule
from flarekit.core.volume import Geometry, Volume
from flarekit.postprocess import Scan, apply_rules, memory_bytes, split_rules
from flarekit.preprocess import Located, Placement, locate, middle_tile, place
from flarekit.segmentation.context import Clock, CoarsePass, Compute, RunContext, Wanted
from flarekit.segmentation.labelling import Fill, KeptLogits, Labelling, Probabilities
from flarekit.segmentation.locator import LocatorMap
from flarekit.segmentation.memory import Memory, resampling_mib
from flarekit.segmentation.plan import Limits, Pace, Plan, fits_whole, plan_case
from flarekit.segmentation.reach import Reach, Sweeper

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedCase:
    """A case that is read; nothing of it is resampled.

    Attributes:
        volumes: one per channel, on one grid.
        located: where in them there is something to look at.
        points: what somebody marked.
        clock: of the case.
    """

    volumes: Sequence[Volume]
    located: Located
    points: Points
    clock: Clock


@dataclass(frozen=True, kw_only=True)
class ReadyCase:
    """A case on the network's grid.

    Attributes:
        placement: how it lies there.
        tensor_CZYX: what the network sees; None where there is no time for a single tile.
        plan: how.
        found: by the locator, for what the network does not reach; None where it reaches all.
        geometry: of the scan as stored.
        scan: the scan as stored, where something after the network looks at it.
        shown: the first channel, where a picture is wanted.
        warnings: what was odd about the files, and how it was taken.
        clock: of the case.
    """

    placement: Placement
    tensor_CZYX: NDArray[np.float32] | None
    plan: Plan
    found: LocatorMap | None
    geometry: Geometry
    scan: Scan | None
    shown: Volume | None
    warnings: tuple[str, ...]
    clock: Clock


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """What a case came to.

    Attributes:
        label_map_ZYX: uint8 on the scan's stored grid.
        geometry: of that grid.
        voxel_ml: volume of one of its voxels.
        tiles: what the window did.
        traded: what the case did without, in words.
        warnings: what was odd about its files.
        clock: of the case.
        placement: of the scan on the network's grid.
        probabilities: (K, Z, Y, X) float32 on the stored grid; None where not wanted.
        logits_KZYX: float32 on the network's grid; None where not wanted.
        before_scan_rules: label map that rules on the scan begin with; None where not wanted.
        scan: what those rules look at; likewise.
        shown: the first channel, where a picture is wanted.
        curve: when, of `time.monotonic`, which share of the expected label was the network's.
    """

    label_map_ZYX: NDArray[np.uint8]
    geometry: Geometry
    voxel_ml: float
    tiles: TileRecord
    traded: tuple[str, ...]
    warnings: tuple[str, ...]
    clock: Clock
    placement: Placement
    probabilities: NDArray[np.float32] | None = None
    logits_KZYX: NDArray[np.float32] | None = None
    before_scan_rules: NDArray[np.uint8] | None = None
    scan: Scan | None = None
    shown: Volume | None = None
    curve: tuple[tuple[float, float], ...] = ()


def load_case(
    read: Callable[[], Sequence[Volume]],
    spec: PredictorSpec,
    points_of: Callable[[Sequence[Volume]], Points] = lambda _: {},
) -> LoadedCase:
    """Read a case and find what there is to look at.

    Args:
        read: gives its volumes.
        spec: the facts that are run.
        points_of: gives what somebody marked in them.

    Raises:
        InputError: a channel is missing or unreadable, of a size that cannot be, or the channels
            do not fit together.
    """
    clock = Clock()
    with clock.stage("read"):
        known = spec.channels
        volumes = [
            _checked(volume, known[k] if k < len(known) else None)
            for k, volume in enumerate(read())
        ]
        points = points_of(volumes) if split_rules(spec.rules)[1] else {}
    with clock.stage("prepare"):
        located = locate(volumes, spec)
    return LoadedCase(volumes=volumes, located=located, points=points, clock=clock)


def _checked(volume: Volume, channel: Channel | None) -> Volume:
    """Return a volume with what is doubtful about its numbers; refuse those that cannot be.

    A channel that is clipped to a window takes no harm from a few huge values.
    """
    doubted = with_doubts(volume, "" if channel is None else channel.name)
    if channel is not None and not isinstance(channel.intensity, Window):
        check_range(volume)
    return doubted


def warnings_of(loaded: LoadedCase) -> tuple[str, ...]:
    """Return what is odd about the files of a case, each with its file."""
    notes = [f"{volume.path}: {note}" for volume in loaded.volumes for note in volume.warnings]
    return (*notes, *loaded.located.notes)


def is_simple(
    loaded: LoadedCase, context: RunContext, wanted: Wanted, deadline: float | None
) -> bool:
    """Return whether the case can be made ready ahead of its turn: nothing has to be given up.

    Args:
        loaded: the case.
        context: what it goes through.
        wanted: beside its labels.
        deadline: of `time.monotonic`, for its mask; None where there is no limit.
    """
    if context.spec.coarse is not None:
        return False  # its first pass would compute beside the case before
    limits = _limits(loaded, context, wanted, deadline, ahead=True)
    if deadline is None:
        return fits_whole(loaded.located, context.spec, None, limits)
    if context.compute().locator is not None:
        return False  # likewise; and what there is time for is known when its turn comes
    return fits_whole(loaded.located, context.spec, _pace(loaded, context), limits)


def make_ready(
    loaded: LoadedCase, context: RunContext, wanted: Wanted, deadline: float | None
) -> ReadyCase:
    """Decide how much the case gets and bring it onto the network's grid, once.

    Args:
        loaded: from `load_case`; give it up, so that its voxels go.
        context: what the case goes through.
        wanted: beside its labels.
        deadline: of `time.monotonic`, for its mask; None where there is no limit.

    Raises:
        BudgetError: it does not fit into memory.
    """
    clock, volumes, spec = loaded.clock, loaded.volumes, context.spec
    warnings = warnings_of(loaded)
    for warning in warnings:
        _LOG.warning(warning)
    found = _first_look(loaded, context, deadline)
    with clock.stage("plan"):
        limits = _limits(loaded, context, wanted, deadline)
        pace = None if deadline is None and found is None else _pace(loaded, context)
        plan = plan_case(loaded.located, spec, pace, limits, found, exact=context.exact)
    placement = plan.placement
    if spec.coarse is not None and (coarse := context.compute().coarse) is not None:
        with clock.stage("coarse"):
            placement = restrict_to_coarse(placement, volumes, coarse, context.memory)
    tensor = None
    if plan.tiles != () or wanted.to_refine or wanted.probabilities:
        tensor = _placed(loaded, placement, context, clock)
    needs_scan = wanted.to_refine or split_rules(spec.rules)[1]
    return ReadyCase(
        placement=placement,
        tensor_CZYX=tensor,
        plan=plan,
        found=found if deadline is not None else None,
        geometry=volumes[0].geometry,
        scan=_scan(loaded, spec) if needs_scan else None,
        shown=volumes[0] if wanted.picture else None,
        warnings=warnings,
        clock=clock,
    )


def _first_look(
    loaded: LoadedCase, context: RunContext, deadline: float | None
) -> LocatorMap | None:
    """Let the locator look, where there is one that is needed."""
    if not context.has_locator or (context.exact and deadline is None):
        return None
    compute = context.compute()
    if compute.locator is None:
        return None
    began = time.monotonic()
    with loaded.clock.stage("locator"):
        like = context.spec, loaded.located
        found = compute.locator.look(loaded.volumes, context.memory, like)
    compute.speeds.compare("locator", time.monotonic() - began, found.worth_ZYX.size)
    return found


def _placed(
    loaded: LoadedCase, placement: Placement, context: RunContext, clock: Clock
) -> NDArray[np.float32]:
    """Bring the voxels onto the grid that was chosen, once."""
    began, located = time.monotonic(), loaded.located
    with clock.stage("prepare"):
        tensor = place(loaded.volumes, located, placement, context.spec).tensor_CZYX
    voxels = placement.channels * math.prod(placement.route.cropped_shape)
    context.compute().speeds.learn("place", time.monotonic() - began, voxels)
    return tensor


def _pace(loaded: LoadedCase, context: RunContext) -> Pace:
    compute, spec = context.compute(), context.spec
    return Pace(
        engine=compute.engine,
        speeds=compute.speeds,
        middle_tile=lambda placement: middle_tile(
            loaded.volumes, loaded.located, placement, spec, compute.engine.depth_at_once
        ),
    )


def compute_case(
    ready: ReadyCase, context: RunContext, wanted: Wanted, deadline: float | None
) -> Segmented:
    """Run the window over a case that is ready, decide its labels and apply the rules.

    Args:
        ready: the case.
        context: what it goes through.
        wanted: beside its labels.
        deadline: of `time.monotonic`, for its mask; None where there is no limit.

    Raises:
        DeviceError: the device has no room, or the network's output is not finite.
        BudgetError: the rules do not fit into memory.
    """
    spec, clock = context.spec, ready.clock
    compute = context.compute()
    labelling = Labelling.of(ready.placement, spec)
    probable = Probabilities(ready.placement, spec) if wanted.probabilities else None
    kept = KeptLogits(ready.placement, spec) if wanted.to_refine else None
    sinks = [sink for sink in (probable, kept) if sink is not None]
    sweeper = Sweeper(
        plan=ready.plan,
        placement=ready.placement,
        compute=compute,
        clock=clock,
        deadline=deadline,
        progress=wanted.progress,
    )
    reach = sweeper.run(ready.tensor_CZYX, labelling, sinks)
    stored = _ruled(labelling, context, clock, _filling(ready, reach, compute))
    label_map = stored
    if split_rules(spec.rules)[1] or spec.internal:
        with clock.stage("rules"):
            _check_rules(stored, split_rules(spec.rules)[1], context.memory)
            voxel_ml = ready.placement.stored_voxel_ml
            label_map = apply_scan_rules(stored, spec, voxel_ml=voxel_ml, scan=ready.scan)
    compute.speeds.learn("rules", clock.seconds.get("rules", 0.0), label_map.size)
    compute.speeds.save()
    return Segmented(
        label_map_ZYX=label_map,
        geometry=ready.geometry,
        voxel_ml=ready.placement.stored_voxel_ml,
        tiles=reach.tiles,
        traded=(*ready.plan.traded, *reach.traded),
        warnings=ready.warnings,
        clock=clock,
        placement=ready.plan.placement,
        probabilities=None if probable is None else probable.finish(),
        logits_KZYX=None if kept is None else kept.logits_KZYX,
        before_scan_rules=stored if wanted.to_refine else None,
        scan=ready.scan if wanted.to_refine else None,
        shown=ready.shown,
        curve=reach.curve,
    )


def _filling(ready: ReadyCase, reach: Reach, compute: Compute) -> Fill | None:
    """Return what paints the locator's labels where the network did not come."""
    found, boxes = ready.found, reach.boxes
    if found is None or boxes is None:
        return None

    def fill(stored_ZYX: NDArray[np.uint8]) -> None:
        began = time.monotonic()
        with ready.clock.stage("restore"):
            found.fill(stored_ZYX, boxes)
        compute.speeds.learn("fill", time.monotonic() - began, stored_ZYX.size)

    return fill


def _ruled(
    labelling: Labelling, context: RunContext, clock: Clock, fill: Fill | None
) -> NDArray[np.uint8]:
    """Apply the rules that may run where labels were decided; return them on the stored grid."""
    spec = context.spec
    anywhere, _ = split_rules(spec.rules)

    def rules(label_map_ZYX: NDArray[np.uint8], voxel_ml: float) -> NDArray[np.uint8]:
        with clock.stage("rules"):
            _check_rules(label_map_ZYX, anywhere, context.memory)
            return apply_rules(label_map_ZYX, anywhere, spec.rule_labels, voxel_ml=voxel_ml)

    return labelling.finish(rules, clock.stage, fill)


def apply_scan_rules(
    label_map_ZYX: NDArray[np.uint8], spec: PredictorSpec, *, voxel_ml: float, scan: Scan | None
) -> NDArray[np.uint8]:
    """Apply the rules that have to run on the scan's own grid, and those behind them.

    Args:
        label_map_ZYX: what the rules before them left, on the stored grid.
        spec: the facts that are run.
        voxel_ml: volume of one of its voxels.
        scan: what rules look at.
    """
    return apply_rules(
        label_map_ZYX,
        split_rules(spec.rules)[1],
        spec.rule_labels,
        voxel_ml=voxel_ml,
        scan=scan,
        internal=spec.internal_values,
    )


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


def _limits(
    loaded: LoadedCase,
    context: RunContext,
    wanted: Wanted,
    deadline: float | None,
    *,
    ahead: bool = False,
) -> Limits:
    kept = wanted.to_refine or bool(split_rules(context.spec.rules)[1])
    freed = loaded.volumes[1:] if wanted.picture and not kept else () if kept else loaded.volumes
    return Limits(
        deadline=deadline,
        memory=context.memory,
        ahead=ahead,
        keeps_logits=wanted.to_refine,
        freed_mib=sum(volume.voxels_ZYX.nbytes for volume in freed) / 2**20,
    )


def _check_rules(label_map_ZYX: NDArray[np.uint8], rules: Sequence[Rule], memory: Memory) -> None:
    if memory.budget_mib is not None:
        needed_mib = memory_bytes(label_map_ZYX, rules) / 2**20
        memory.check(needed_mib, "post-processing the labels")


def _scan(loaded: LoadedCase, spec: PredictorSpec) -> Scan:
    """Return what rules on the scan's grid look at."""
    names = (channel.name for channel in spec.channels)
    volumes = loaded.volumes
    return Scan(
        spacing_mm_ZYX=volumes[0].geometry.spacing_mm_ZYX,
        channels={name: each.voxels_ZYX for name, each in zip(names, volumes, strict=True)},
        points=loaded.points,
    )
