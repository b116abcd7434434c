"""One case, forward only: read, where, plan, resample once, tiles, labels, rules.

Each step takes what the one before made and is all that holds it, so that voxels go when the next
step no longer needs them.
"""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.core.records import TileRecord
from flarekit.core.volume import Geometry, Volume
from flarekit.postprocess import Scan, apply_rules, split_rules
from flarekit.preprocess import Placement, middle_tile, place
from flarekit.report.quality import removed_shares
from flarekit.report.statistics import label_volumes
from flarekit.segmentation.between_calls import BetweenCalls
from flarekit.segmentation.coarse import restrict_to_coarse
from flarekit.segmentation.context import CaseExtras, Clock, RunContext
from flarekit.segmentation.ending import fill_amount
from flarekit.segmentation.labelling import Fill, KeptLogits, Labelling, Probabilities
from flarekit.segmentation.limits import Limits, Pace, Plan
from flarekit.segmentation.loaded import LoadedCase, warnings_of
from flarekit.segmentation.locator import LocatorMap
from flarekit.segmentation.plan import fits_whole, plan_case
from flarekit.segmentation.reach import Reach, Sweeper
from flarekit.segmentation.scan_rules import apply_scan_rules, check_rules_fit, only_wanted, scan_of
from flarekit.segmentation.segmented import Segmented

_LOG = logging.getLogger(__name__)
_NOTHING_RUN = Reach(tiles=TileRecord(done=0, empty=0, dropped=0, step=1.0, runs=0))


@dataclass(frozen=True, kw_only=True)
class PlacedCase:
    """A case on the network's grid.

    Attributes:
        placement: how it lies there.
        tensor_CZYX: what the network sees; None where there is no time for a single tile.
        plan: how.
        found: by the locator, for what the network does not reach; None where it reaches all.
        first_look: what the locator found, to measure how far the labels agree; None if unmeasured.
        geometry: of the scan as stored.
        scan: the scan as stored, where something after the network looks at it.
        kept: channel name -> volume, of those that pictures or statistics need.
        warnings: what was odd about the files, and how it was taken.
        clock: of the case.
    """

    placement: Placement
    tensor_CZYX: NDArray[np.float32] | None
    plan: Plan
    found: LocatorMap | None
    first_look: LocatorMap | None
    geometry: Geometry
    scan: Scan | None
    kept: Mapping[str, Volume]
    warnings: tuple[str, ...]
    clock: Clock


def is_simple(
    loaded: LoadedCase, context: RunContext, wanted: CaseExtras, deadline: float | None
) -> bool:
    """Return whether the case can be made ready ahead of its turn: nothing has to be given up.

    Args:
        loaded: the case.
        context: what it goes through.
        wanted: beside its labels.
        deadline: of `time.monotonic`, for all of that; None where there is no limit.
    """
    deadline = context.for_mask(deadline, loaded.volumes[0].geometry, wanted)
    if context.spec.coarse is not None:
        return False  # its first pass would compute beside the case before
    limits = _limits(loaded, context, wanted, deadline, ahead=True)
    if deadline is None:
        return fits_whole(loaded.located, context.spec, None, limits)
    if context.compute().locator is not None:
        return False  # it would compute too; what there is time for is known in its turn
    return fits_whole(loaded.located, context.spec, _pace(loaded, context), limits)


def place_case(
    loaded: LoadedCase, context: RunContext, wanted: CaseExtras, deadline: float | None
) -> PlacedCase:
    """Decide how much the case gets and bring it onto the network's grid, once.

    Args:
        loaded: from `load_case`; give it up, so that its voxels go.
        context: what the case goes through.
        wanted: beside its labels.
        deadline: of `time.monotonic`, for all of that; None where there is no limit.

    Raises:
        BudgetError: it does not fit into memory.
    """
    clock, volumes, spec = loaded.clock, loaded.volumes, context.spec
    deadline = context.for_mask(deadline, volumes[0].geometry, wanted)
    warnings = warnings_of(loaded)
    for warning in warnings:
        _LOG.warning(warning)
    found = _first_look(loaded, context, deadline)
    with clock.stage("plan"):
        limits = _limits(loaded, context, wanted, deadline)
        pace = None if deadline is None and found is None else _pace(loaded, context)
        plan = plan_case(loaded.located, spec, pace, limits, found, exact=context.everywhere)
    placement = plan.placement
    if spec.coarse is not None and (coarse := context.compute().coarse) is not None:
        with clock.stage("coarse"):
            placement = restrict_to_coarse(placement, volumes, coarse, context.memory)
    tensor = None
    if plan.tiles != () or wanted.to_refine or wanted.probabilities:
        tensor = _placed(loaded, placement, context, clock)
    needs_scan = wanted.to_refine or split_rules(spec.rules)[1]
    return PlacedCase(
        placement=placement,
        tensor_CZYX=tensor,
        plan=plan,
        found=found if deadline is not None else None,
        first_look=found if wanted.statistics else None,
        geometry=volumes[0].geometry,
        scan=scan_of(loaded, spec) if needs_scan else None,
        kept=wanted.kept(volumes, spec),
        warnings=warnings,
        clock=clock,
    )


def _first_look(
    loaded: LoadedCase, context: RunContext, deadline: float | None
) -> LocatorMap | None:
    """Let the locator look, where there is one that is needed."""
    if not context.has_locator or (context.everywhere and deadline is None):
        return None
    compute = context.compute()
    if compute.locator is None:
        return None
    with loaded.clock.stage("locator"):
        like = context.spec, loaded.located
        found = compute.locator.look(loaded.volumes, context.memory, like)
    compute.speeds.compare(f"{found.tiles} tiles of the locator", found.tiles_s)
    return found


def _placed(
    loaded: LoadedCase, placement: Placement, context: RunContext, clock: Clock
) -> NDArray[np.float32]:
    """Bring the voxels onto the grid that was chosen, once."""
    began, located = time.monotonic(), loaded.located
    with clock.stage("prepare"):
        tensor = place(loaded.volumes, located, placement, context.spec).tensor_CZYX
    voxels = placement.channels * math.prod(placement.cropped_shape)
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
        small=compute.small,
    )


def compute_case(
    placed: PlacedCase,
    context: RunContext,
    wanted: CaseExtras,
    deadline: float | None,
    between_calls: BetweenCalls | None = None,
) -> Segmented:
    """Run the window over a case that is ready, decide its labels and apply the rules.

    Args:
        placed: the case.
        context: what it goes through.
        wanted: beside its labels.
        deadline: of `time.monotonic`, for all of that; None where there is no limit.
        between_calls: has the labels of an earlier call of the case, and keeps them for the next;
            None where nothing is kept.

    Raises:
        DeviceError: the device has no room, or the network's output is not finite.
        BudgetError: the rules do not fit into memory.
    """
    spec = context.spec
    labelling = Labelling.of(placed.placement, spec)
    probable = Probabilities(placed.placement, spec) if wanted.probabilities else None
    kept = KeptLogits(placed.placement, spec) if wanted.to_refine else None
    sinks = [sink for sink in (probable, kept) if sink is not None]
    sweeper = Sweeper(
        plan=placed.plan,
        placement=placed.placement,
        compute=context.compute(),
        clock=placed.clock,
        deadline=context.for_mask(deadline, placed.geometry, wanted),
        progress=wanted.progress,
    )
    removed: dict[str, float] | None = {} if wanted.statistics else None
    stored = None
    if between_calls is not None and not sinks:
        stored = between_calls.load(placed.geometry.shape_ZYX)
    reach = _NOTHING_RUN
    if stored is None:
        reach = sweeper.run(placed.tensor_CZYX, labelling, sinks)
        stored = _finished(placed, labelling, context, reach, removed)
        if between_calls is not None and not reach.traded:
            between_calls.save(stored)
    return Segmented(
        label_map_ZYX=only_wanted(_scan_rules_applied(stored, placed, context), spec),
        geometry=placed.geometry,
        voxel_ml=placed.placement.stored_voxel_ml,
        tiles=reach.tiles,
        traded=(*placed.plan.traded, *reach.traded),
        warnings=placed.warnings,
        clock=placed.clock,
        placement=placed.plan.placement,
        probabilities=None if probable is None else probable.finish(),
        logits_KZYX=None if kept is None else kept.logits_KZYX,
        before_scan_rules=stored if wanted.to_refine else None,
        scan=placed.scan if wanted.to_refine else None,
        kept=placed.kept,
        curve=reach.curve,
        first_look=placed.first_look,
        removed=removed or {},
    )


def _finished(
    placed: PlacedCase,
    labelling: Labelling,
    context: RunContext,
    reach: Reach,
    removed: dict[str, float] | None,
) -> NDArray[np.uint8]:
    """Complete the label map, and learn how long that takes beside painting and the rules."""
    clock, speeds = placed.clock, context.compute().speeds
    found, boxes = placed.found, reach.boxes
    painted: list[float] = []

    def fill(stored_ZYX: NDArray[np.uint8]) -> None:
        """Paint the locator's labels where the network did not come."""
        assert found is not None
        assert boxes is not None
        began = time.monotonic()
        with clock.stage("restore"):
            found.fill(stored_ZYX, boxes)
        painted.append(time.monotonic() - began)

    began, ruled = time.monotonic(), clock.seconds.get("rules", 0.0)
    fills = None if found is None or boxes is None else fill
    stored = _ruled(labelling, context, clock, fills, removed)
    rest_s = time.monotonic() - began - (clock.seconds.get("rules", 0.0) - ruled) - sum(painted)
    for seconds in painted:
        speeds.learn("fill", seconds, fill_amount(placed.placement))
    if placed.tensor_CZYX is not None:
        speeds.learn("finish", max(0.0, rest_s), stored.size)
    return stored


def _scan_rules_applied(
    stored_ZYX: NDArray[np.uint8], placed: PlacedCase, context: RunContext
) -> NDArray[np.uint8]:
    """Apply the rules that look at the scan, and learn how long all rules have taken."""
    spec, clock, label_map_ZYX = context.spec, placed.clock, stored_ZYX
    rules = split_rules(spec.rules)[1]
    if rules or spec.internal:
        with clock.stage("rules"):
            check_rules_fit(stored_ZYX, rules, context.memory)
            voxel_ml = placed.placement.stored_voxel_ml
            label_map_ZYX = apply_scan_rules(stored_ZYX, spec, voxel_ml=voxel_ml, scan=placed.scan)
    context.compute().speeds.learn("rules", clock.seconds.get("rules", 0.0), label_map_ZYX.size)
    return label_map_ZYX


def _ruled(
    labelling: Labelling,
    context: RunContext,
    clock: Clock,
    fill: Fill | None,
    removed: dict[str, float] | None,
) -> NDArray[np.uint8]:
    """Apply the rules that may run where labels were decided; return them on the stored grid."""
    spec = context.spec
    anywhere, _ = split_rules(spec.rules)

    def rules(label_map_ZYX: NDArray[np.uint8], voxel_ml: float) -> NDArray[np.uint8]:
        with clock.stage("rules"):
            check_rules_fit(label_map_ZYX, anywhere, context.memory)
            if removed is None:
                return apply_rules(label_map_ZYX, anywhere, spec.rule_labels, voxel_ml=voxel_ml)
            before = label_volumes(label_map_ZYX, spec.labels, voxel_ml)
            ruled = apply_rules(label_map_ZYX, anywhere, spec.rule_labels, voxel_ml=voxel_ml)
            removed.update(removed_shares(before, label_volumes(ruled, spec.labels, voxel_ml)))
            return ruled

    return labelling.finish(rules, clock.stage, fill)


def _limits(
    loaded: LoadedCase,
    context: RunContext,
    wanted: CaseExtras,
    deadline: float | None,
    *,
    ahead: bool = False,
) -> Limits:
    kept = wanted.to_refine or bool(split_rules(context.spec.rules)[1])
    staying = loaded.volumes if kept else wanted.kept(loaded.volumes, context.spec).values()
    freed = [volume for volume in loaded.volumes if not any(volume is each for each in staying)]
    return Limits(
        deadline=deadline,
        memory=context.memory,
        ahead=ahead,
        keeps_logits=wanted.to_refine,
        freed_mib=sum(volume.voxels_ZYX.nbytes for volume in freed) / 2**20,
    )
