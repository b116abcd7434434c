"""From which probability on, and how far around, a locator is followed so that no lesion is lost.

    python profiling/fit_locator.py att_umamba_petct --cases FOLDER
    python profiling/fit_locator.py PREDICTOR --cases FOLDER --quick --output DIR

FOLDER is what `flarekit train compact --cases FOLDER` keeps: the predictor's own training cases on
its grid, none of those that are held out. Cases that are there twice count once, those that fit
into one tile not at all: that tile is run whatever is found. The locator looks at each of them. For
every pair of `least_probability` and `margin_mm` (`[locator]` in predictor.toml) there are: the
tiles that stand over what may hold a label, those of the usual window that touch it, the lesions
(18 neighbours) of which no voxel lies in one of the former, and those of which no voxel is thought
possible. Tiles everywhere stand beside them. The network itself is not run. The result goes to
locator_PREDICTOR_fit.json beside this file. --quick takes one case.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cc3d
import numpy as np
from bench_locator import asking
from measured import parsed, parser_of, write
from numpy.typing import NDArray
from safetensors import safe_open

import flarekit
from flarekit.core.errors import UsageError
from flarekit.core.spec import PredictorSpec
from flarekit.engine import Tile
from flarekit.segmentation.limits import run_at_once, tiles_of
from flarekit.segmentation.loaded import load_case
from flarekit.segmentation.locator import LocatorMap
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.scans import scan_input
from flarekit.segmentation.segmenter import Segmenter
from flarekit.training.kept import read_kept
from flarekit.training.training_case import TrainingCase

PAIRS = [(0.05, 15.0), *((p, 25.0) for p in (0.05, 0.02, 0.01, 0.005, 0.002))]
_LIKE_MM = 0.5  # a case whose spacing is further from the predictor's is another network's


class Counts(NamedTuple):
    """Of one case and pair of facts, or of all cases."""

    tiles: int
    of_usual_window: int
    in_no_tile: int
    not_possible: int


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--cases", type=Path, required=True, help="kept by a training")
    return parsed(parser, line)


def cases_of(folder: Path, spec: PredictorSpec) -> Iterator[TrainingCase]:
    """Yield the kept cases of a predictor, each once."""
    known = spec.architecture.arguments["num_classes"]  # those of organs beside lesions as well
    seen = set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            channels, *shape = file.get_slice("image").get_shape()
            classes = file.get_slice("possible").get_shape()
        small = all(n <= tile for n, tile in zip(shape, spec.grid.tile_ZYX, strict=True))
        if small or channels != len(spec.channels) or classes != [known]:
            continue
        case = read_kept(path)
        far = np.abs(np.subtract(case.spacing_mm_ZYX, spec.grid.spacing_mm_ZYX)).max()
        sums = int(case.classes_ZYX.sum()), round(float(case.image_CZYX.mean(dtype=float)), 4)
        if far <= _LIKE_MM and (case.case_id, *shape, *sums) not in seen:
            seen.add((case.case_id, *shape, *sums))
            yield case


def voxels_of(case: TrainingCase, spec: PredictorSpec) -> NDArray[np.float32]:
    """Return a case's voxels in the units of a scan."""
    scaled = [
        image.astype(np.float32) * channel.intensity.std + channel.intensity.mean
        for image, channel in zip(case.image_CZYX, spec.channels, strict=True)
    ]
    return np.stack(scaled)


def counted(segmenter: Segmenter, case: TrainingCase) -> tuple[int, int, list[Counts]]:
    """Return the lesions of a case, its tiles everywhere, and what every pair leaves of both."""
    spec, context = segmenter.spec, segmenter.context()
    compute = context.compute()
    assert compute.locator is not None
    source = scan_input(voxels_of(case, spec), spec, spacing_mm=case.spacing_mm_ZYX)
    loaded = load_case(source.read, spec)
    found = compute.locator.look(loaded.volumes, context.memory, (spec, loaded.located))
    placement, engine = loaded.located.placement(spec), compute.engine
    labelled = range(1, 1 + len(spec.labels))  # other classes come behind those of the labels
    lesion = np.isin(case.classes_ZYX, labelled).astype(np.uint8)
    parts = cc3d.connected_components(placement.grid_labels(lesion), connectivity=18)
    shape, step = placement.shape_ZYX, spec.grid.step
    everywhere = tiles_of(engine, shape, step, placement.needed_ZYX, fitted=False)
    counts = []
    for probability, margin_mm in PAIRS:
        facts = compute.locator.facts.model_copy(
            update={"least_probability": probability, "margin_mm": margin_mm}
        )
        logits = found.logits_KZYX.astype(np.float32)
        again = LocatorMap.of(logits, found.values, found.placement, facts)
        needed = placement.needed_where(again.possible_ZYX, found.placement).needed_ZYX
        assert needed is not None
        tiles = tiles_of(engine, shape, step, needed, fitted=True)
        covered = _covered(tiles, run_at_once(engine), shape)
        usual = tiles_of(engine, shape, step, needed, fitted=False)
        lost = _without(parts, covered), _without(parts, needed)
        counts.append(Counts(len(tiles), len(usual), *lost))
    return int(parts.max()), len(everywhere), counts


def _covered(
    tiles: Sequence[Tile], size: tuple[int, int, int], shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    covered = np.zeros(shape, bool)
    for first in tiles:
        covered[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))] = True
    return covered


def _without(parts: NDArray[Any], where: NDArray[np.bool_]) -> int:
    """Return how many components have no voxel there."""
    return len(set(np.unique(parts)) - set(np.unique(parts[where])) - {0})


def main(line: Sequence[str] | None = None) -> Path:
    arguments = parse_arguments(line)
    predictor = asking(find_predictor(arguments.predictor))
    spec = predictor.spec
    assert spec.locator is not None
    rows = []
    with flarekit.load(predictor, device="cpu") as segmenter:
        for case in cases_of(arguments.cases, spec):
            rows.append(counted(segmenter, case))
            print(case.case_id, *rows[-1], flush=True)
            if arguments.quick:
                break
    if not rows:
        raise UsageError(f"{arguments.cases}: no case of {spec.name}", fix="name its --cases")
    pairs = [
        {"least_probability": probability, "margin_mm": margin_mm}
        | Counts(*(sum(each) for each in zip(*(row[2][k] for row in rows), strict=True)))._asdict()
        for k, (probability, margin_mm) in enumerate(PAIRS)
    ]
    totals = {
        "predictor": spec.name,
        "locator_sha256": spec.locator.sha256,
        "cases": len(rows),
        "lesions": sum(row[0] for row in rows),
        "tiles_everywhere": sum(row[1] for row in rows),
    }
    path: Path = arguments.output / f"locator_{spec.name}_fit.json"
    write(path, totals | {"pairs": pairs})
    return path


if __name__ == "__main__":
    main()
