"""Rules that run on the scan's own grid: what they look at, and whether they fit into memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.core.spec import PredictorSpec, Rule
from flarekit.postprocess import Scan, apply_rules, memory_bytes, split_rules
from flarekit.segmentation.loaded import LoadedCase
from flarekit.segmentation.memory import Memory


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


def check_rules_fit(
    label_map_ZYX: NDArray[np.uint8], rules: Sequence[Rule], memory: Memory
) -> None:
    """Check that rules fit into the memory that is allowed.

    Raises:
        BudgetError: they do not.
    """
    if memory.budget_mib is not None:
        needed_mib = memory_bytes(label_map_ZYX, rules) / 2**20
        memory.check(needed_mib, "post-processing the labels")


def only_wanted(label_map_ZYX: NDArray[np.uint8], spec: PredictorSpec) -> NDArray[np.uint8]:
    """Return a label map without the labels that masks do not get; itself where they get all."""
    if not spec.only_labels:
        return label_map_ZYX
    table = np.zeros(256, np.uint8)
    for value in spec.mask_labels.values():
        table[value] = value
    return table[label_map_ZYX]


def scan_of(loaded: LoadedCase, spec: PredictorSpec) -> Scan:
    """Return what rules on the scan's grid look at."""
    names = (channel.name for channel in spec.channels)
    volumes = loaded.volumes
    return Scan(
        spacing_mm_ZYX=volumes[0].geometry.spacing_mm_ZYX,
        channels={name: each.voxels_ZYX for name, each in zip(names, volumes, strict=True)},
        points=loaded.points,
    )
