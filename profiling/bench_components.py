"""Time keeping the largest component of 13 labels: one shared pass against a pass per label.

    python profiling/bench_components.py [--rounds 5] [--quick --output FOLDER]

A phantom's label map, enlarged to 512 x 512 x 100, as it is and with one voxel in a thousand given
a random label. Alternating rounds; ratios are medians over rounds of a contender's time by
flarekit's in the same round. All contenders must agree, or the script stops. The result goes to
components.json beside this file.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import cc3d
import numpy as np
from measured import QUICK_MM, parsed, parser_of, write
from numpy.typing import NDArray
from scipy import ndimage

from flarekit.core.spec import Rule
from flarekit.engine._cpu import cpu_name
from flarekit.phantom import abdomen_phantom
from flarekit.postprocess import apply_rules

SHAPE_ZYX, QUICK_ZYX = (200, 512, 512), (40, 64, 64)
SPECKLE = {"clean": 0.0, "speckled": 1e-3}  # share of voxels
VOXEL_ML = 0.7 * 0.7 * 2.5 / 1000
LABELS = {f"organ {value}": value for value in range(1, 14)}
LARGEST = Rule(name="largest_component", labels=tuple(LABELS))
FILL = Rule(name="fill_holes", labels=tuple(LABELS))
LabelMap = NDArray[np.uint8]


def enlarged(small: LabelMap, speckle: float, shape_ZYX: tuple[int, int, int]) -> LabelMap:
    index = [np.arange(n) * size // n for n, size in zip(shape_ZYX, small.shape, strict=True)]
    label_map = small[np.ix_(*index)]
    generator = np.random.default_rng(0)
    where = generator.integers(0, label_map.size, int(label_map.size * speckle))
    label_map.ravel()[where] = generator.integers(0, len(LABELS) + 1, len(where))
    return label_map


def flarekit(label_map: LabelMap) -> LabelMap:
    return apply_rules(label_map, [LARGEST], LABELS, voxel_ml=VOXEL_ML)


def flarekit_and_fill_holes(label_map: LabelMap) -> LabelMap:
    return apply_rules(label_map, [LARGEST, FILL], LABELS, voxel_ml=VOXEL_ML)


def cc3d_per_label(label_map: LabelMap) -> LabelMap:
    result = np.zeros_like(label_map)
    for value in LABELS.values():
        numbered = cc3d.connected_components(label_map == value, connectivity=26)
        voxels = cc3d.statistics(numbered, no_slice_conversion=True)["voxel_counts"]
        if len(voxels) > 1:
            result[numbered == 1 + np.argmax(voxels[1:])] = value
    return result


def scipy_per_label(label_map: LabelMap) -> LabelMap:
    result = np.zeros_like(label_map)
    for value in LABELS.values():
        numbered, count = ndimage.label(label_map == value, np.ones((3, 3, 3)))
        if count:
            result[numbered == 1 + np.argmax(np.bincount(numbered.ravel())[1:])] = value
    return result


CONTENDERS: dict[str, Callable[[LabelMap], LabelMap]] = {
    each.__name__: each
    for each in (flarekit, flarekit_and_fill_holes, cc3d_per_label, scipy_per_label)
}


def measure(label_map: LabelMap, rounds: int) -> dict[str, object]:
    kept = flarekit(label_map)
    for contender in (cc3d_per_label, scipy_per_label):
        if not np.array_equal(contender(label_map), kept):
            raise SystemExit(f"{contender.__name__} does not agree with flarekit")
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, contender in CONTENDERS.items():
            began = time.perf_counter()
            contender(label_map)
            times[name].append(time.perf_counter() - began)
    ratios = {
        name: round(statistics.median(np.divide(times[name], times["flarekit"]).tolist()), 2)
        for name in CONTENDERS
    }
    print(ratios)
    return {"removed_voxels": int((kept != label_map).sum()), "ratios": ratios, "seconds": times}


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    told = parsed(parser, line)
    shape_ZYX, rounds = (QUICK_ZYX, 1) if told.quick else (SHAPE_ZYX, told.rounds)
    small = abdomen_phantom(1, spacing_mm_ZYX=QUICK_MM if told.quick else None).labels_ZYX
    result = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("connected-components-3d", "numpy", "scipy")},
        "shape_ZYX": shape_ZYX,
        "labels": len(LABELS),
        "maps": {
            name: measure(enlarged(small, share, shape_ZYX), rounds)
            for name, share in SPECKLE.items()
        },
    }
    write(told.output / "components.json", result)


if __name__ == "__main__":
    main()
