"""Whether networks stay finite in half precision, and how many voxels keep their class there.

    python profiling/half_precision.py [PREDICTOR ...] --data FOLDER [--tiles 8]
    python profiling/half_precision.py PREDICTOR_FOLDER --quick --output FOLDER

Every shipped network, locators included, runs over tiles of real scans: in float32, and in fp16 and
bf16 as on a GPU, with weights cast once and the rest left to autocast, here on the CPU. FOLDER
holds the scans named in SCANS. Tiles are spread evenly over those of a scan that hold more than one
value; of a 2D network each is a few slices. What a predictor's facts allow (`half_precisions`) has
to be finite everywhere and to agree on 99.5 % of the voxels. The result goes to
half_precision_cpu.json beside this file; rows of predictors that are not named stay. A processor
that computes in neither fp16 nor bf16 cannot tell.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from measured import QUICK_MM, left_out, machine, parsed, parser_of, write

from flarekit.core.scan_files import read_scan
from flarekit.core.spec import PredictorFolder
from flarekit.engine._tiles import tile_rows
from flarekit.engine._torch_device import DTYPES
from flarekit.engine._torch_networks import placed
from flarekit.phantom import abdomen_phantom
from flarekit.preprocess import prepare
from flarekit.segmentation.predictors import find_predictor, networks_of, predictor_folders

NAME = "half_precision_cpu.json"
HALVES = ("fp16", "bf16")
LEAST_EQUAL = 0.995
SLICES = 4  # of a 2D network
CPU = torch.device("cpu")
# convention and first channel -> cases, each a file per channel
SCANS: dict[tuple[str, str], list[list[str]]] = {
    ("flare", "CT"): [["cases/CRLM1004_0000.nii.gz"], ["cases/example_ct_0000.nii.gz"]],
    ("autopet", "CT"): [
        [f"Dataset002_PETCT/imagesTr/{case}_000{channel}.nii.gz" for channel in (0, 1)]
        for case in ("STS_001", "STS_003")
    ],
    ("uls23", "CT"): [
        ["lesion_vois/R01-001_uls23_ct.nii.gz"],
        ["lesion_vois/pyradiomics_lung1_ct.nii.gz"],
    ],
    ("uls23", "T1"): [
        [f"Dataset004_SarcomaMR/imagesTr/{case}_0000.nii.gz"] for case in ("STS_008", "STS_016")
    ],
}


@dataclass
class Counted:
    """What the tiles of a network say of one precision."""

    tiles: int = 0
    finite: int = 0
    voxels: int = 0
    equal: int = 0
    least: float = 1.0
    both: dict[int, int] = field(default_factory=dict)
    either: dict[int, int] = field(default_factory=dict)

    def add(self, exact: torch.Tensor, logits: torch.Tensor) -> None:
        """Compare the classes of one tile with those in float32."""
        classes = logits.argmax(1)
        equal = int((classes == exact).sum())
        self.tiles += 1
        self.finite += bool(logits.isfinite().all())
        self.voxels += exact.numel()
        self.equal += equal
        self.least = min(self.least, equal / exact.numel())
        for label in range(1, logits.shape[1]):
            a, b = exact == label, classes == label
            self.both[label] = self.both.get(label, 0) + int((a & b).sum())
            self.either[label] = self.either.get(label, 0) + int(a.sum()) + int(b.sum())

    def row(self) -> dict[str, Any]:
        """Return shares and the lowest Dice of a label that is there."""
        dice = [2 * self.both[label] / n for label, n in self.either.items() if n]
        return {
            "finite_tiles": round(self.finite / self.tiles, 4),
            "equal_voxels": round(self.equal / self.voxels, 6),
            "equal_voxels_of_the_worst_tile": round(self.least, 6),
            "least_dice": round(min(dice), 5) if dice else None,
            "holds": self.finite == self.tiles and self.equal >= LEAST_EQUAL * self.voxels,
        }


class Largest:
    """The largest number that any module of a network gives."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.value, self.module = 0.0, ""
        for name, module in network.named_modules():
            module.register_forward_hook(
                lambda _module, _given, output, name=name: self._see(name, output)
            )

    def _see(self, name: str, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            most = float(output.abs().max())
            if most > self.value:
                self.value, self.module = most, name


def tiles_of(
    predictor: PredictorFolder, scans: Sequence[Path], most: int
) -> Iterator[torch.Tensor]:
    """Yield tiles of a scan as the network takes them, (1, C, Z, Y, X) or (slices, C, Y, X)."""
    spec = predictor.spec.for_mode("fast")
    volumes = [read_scan(scan, air=0.0 if k else -1000.0) for k, scan in enumerate(scans)]
    tensor_CZYX = prepare(volumes, spec).tensor_CZYX
    depth, height, width = tile_ZYX = spec.grid.tile_ZYX
    sides = [
        (0, max(0, tile - size)) for tile, size in zip(tile_ZYX, tensor_CZYX.shape[1:], strict=True)
    ]
    tensor_CZYX = np.pad(tensor_CZYX, [(0, 0), *sides], mode="edge")
    rows = tile_rows(tensor_CZYX.shape[1:], tile_ZYX, spec.grid.step, slices_at_once=SLICES)
    every = [
        tensor_CZYX[:, row.z : row.z + row.depth, y : y + height, x : x + width]
        for row in rows
        for y, x in row.places
    ]
    lively = [tile for tile in every if np.ptp(tile) > 0] or every
    chosen = np.unique(np.linspace(0, len(lively) - 1, most).round().astype(int))
    for index in chosen:
        tile = torch.from_numpy(np.ascontiguousarray(lively[index]))
        yield tile[None] if depth > 1 else tile.transpose(0, 1).contiguous()


@torch.inference_mode()
def measure(
    predictor: PredictorFolder,
    cases: Sequence[Sequence[Path]],
    most: int,
    halves: Sequence[str],
) -> dict[str, Any]:
    """Return what tiles of some cases say of a network, as a row of the result."""
    spec = predictor.spec
    (network,) = networks_of(predictor).build()
    network.eval().requires_grad_(requires_grad=False)
    flat = spec.grid.tile_ZYX[0] == 1
    exact, _ = placed(network, CPU, "fp32", flat=flat)
    ready = {half: placed(network, CPU, half, flat=flat) for half in halves}
    largest, counted = Largest(exact), {half: Counted() for half in halves}
    for scans in cases:
        for tile in tiles_of(predictor, scans, most):
            classes = exact(tile).argmax(1)
            for half, (halved, layout) in ready.items():
                with torch.autocast("cpu", DTYPES[half]):
                    logits = halved(tile.contiguous(memory_format=layout)).float()
                counted[half].add(classes, logits)
    facts = list(spec.half_precisions)
    return {
        "sha256": spec.weights.sha256,
        "scans": [[scan.name for scan in scans] for scans in cases],
        "tiles": counted[halves[0]].tiles,
        "voxels": counted[halves[0]].voxels,
        "largest_number": {"fp32": float(f"{largest.value:.4g}"), "of": largest.module},
        **{half: each.row() for half, each in counted.items()},
        "facts": {"half_precisions": facts},
    }


def members_of(name: str) -> dict[str, PredictorFolder]:
    """Return a predictor and its locator, by what they are called in the result."""
    predictor = find_predictor(name)
    found = {predictor.spec.name: predictor}
    if predictor.locator is not None:
        found[f"{predictor.spec.name}/locator"] = predictor.locator
    return found


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("predictors", nargs="*", help="all that are shipped where none is named")
    parser.add_argument("--data", type=Path, help="folder of the real scans")
    parser.add_argument("--tiles", type=int, default=8, help="of each case, at most")
    arguments = parsed(parser, line)
    if arguments.data is None and not arguments.quick:
        parser.error("name the folder of the real scans with --data")
    missing = left_out(HALVES)
    halves = [half for half in HALVES if half not in missing]
    if not halves:
        parser.error("nothing to measure on this processor")
    path = arguments.output / NAME
    rows = json.loads(path.read_text())["networks"] if path.exists() else {}
    names = arguments.predictors or [folder.name for folder in predictor_folders()]
    with tempfile.TemporaryDirectory() as scratch:
        phantom = Path(scratch) / "phantom_0000.nii.gz"
        if arguments.quick:
            arguments.tiles = 1
            drawn = abdomen_phantom(3, spacing_mm_ZYX=QUICK_MM)
            nibabel.save(nibabel.Nifti1Image(drawn.hu_ZYX.T, drawn.affine), phantom)
        for member, predictor in (pair for name in names for pair in members_of(name).items()):
            cases = [[phantom] * len(predictor.spec.channels)]
            if not arguments.quick:
                spec = predictor.spec
                named = SCANS[spec.convention, spec.channels[0].name]
                cases = [[arguments.data / scan for scan in scans] for scans in named]
            rows[member] = measure(predictor, cases, arguments.tiles, halves)
            print(member, json.dumps(rows[member]), flush=True)
            write(path, {"machine": machine(), "networks": dict(sorted(rows.items()))})


if __name__ == "__main__":
    main()
