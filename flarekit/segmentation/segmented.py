"""What a case came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flarekit.core.records import TileRecord
from flarekit.core.volume import Geometry, Volume
from flarekit.postprocess import Scan
from flarekit.preprocess import Placement
from flarekit.segmentation.context import Clock
from flarekit.segmentation.locator import LocatorMap


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
        scan: what those rules look at; None where not wanted.
        kept: channel name -> volume, of those that pictures or statistics need.
        curve: when, of `time.monotonic`, which share of the expected label was the network's.
        first_look: what the locator found; None where nothing is measured.
        removed: label -> share of it that rules took away; empty where nothing is measured.
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
    kept: Mapping[str, Volume] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    first_look: LocatorMap | None = None
    removed: Mapping[str, float] = field(default_factory=dict)
