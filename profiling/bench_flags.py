"""Which share of spoilt scans and masks the quality flags find, and which share of good ones.

Good: held-out and training scans of DATASET, which are clipped at -125 HU; what lies around
the body becomes air again. A good scan may have a bad mask of some organ, so flags are also counted
by label, against the Dice with the manual label. Spoilt scans are segmented as anyone would
segment them; spoilt masks are the held-out masks, changed. Each spoilt one comes from a held-out
scan, and counts as found where it has a flag that the good one has not.

    python profiling/bench_flags.py DATASET

--quick takes one scan.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from measured import parsed, parser_of, write
from numpy.typing import NDArray
from scipy.ndimage import label

import flarekit
from flarekit.core.nifti import read_nifti
from flarekit.core.records import CaseRecord, Flag
from flarekit.evaluation.confusion import dice_per_label
from flarekit.report.quality import Findings, flags_of
from flarekit.report.statistics import label_statistics
from flarekit.segmentation.predictors import find_predictor
from flarekit.training.recipe import read_recipe

PREDICTOR = "abdomen_ct"
AIR_HU = -1000
Voxels = NDArray[Any]
Spoil = Callable[[Voxels, NDArray[np.float64]], tuple[Voxels, NDArray[np.float64]]]


def _around_body(floor_XYZ: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the air that reaches the border of a slice; that in lung and bowel stays clipped."""
    found = np.zeros_like(floor_XYZ)
    for z in range(floor_XYZ.shape[2]):
        parts, _ = label(floor_XYZ[:, :, z])
        sides = (parts[0], parts[-1], parts[:, 0], parts[:, -1])
        outside = np.unique(np.concatenate(sides))
        found[:, :, z] = np.isin(parts, outside[outside > 0])
    return found


def _cut(voxels_XYZ: Voxels, affine: NDArray[np.float64]) -> tuple[Voxels, NDArray[np.float64]]:
    """Leave only the lower half of the scan: the liver is cut."""
    return voxels_XYZ[:, :, : voxels_XYZ.shape[2] * 55 // 100], affine


def _halved(voxels_XYZ: Voxels, affine: NDArray[np.float64]) -> tuple[Voxels, NDArray[np.float64]]:
    """State half the spacing, as where units or matrices are mixed up."""
    return voxels_XYZ, affine @ np.diag([0.5, 0.5, 0.5, 1])


def _noisy(voxels_XYZ: Voxels, affine: NDArray[np.float64]) -> tuple[Voxels, NDArray[np.float64]]:
    noise = np.random.default_rng(0).normal(0, 150, voxels_XYZ.shape)
    return voxels_XYZ + noise.astype(np.int16), affine


SCANS: dict[str, Spoil] = {
    "cut through the liver": _cut,
    "stored upside down": lambda voxels, affine: (voxels[:, :, ::-1], affine),
    "left and right exchanged": lambda voxels, affine: (voxels[::-1], affine),
    "without its intercept (+1024)": lambda voxels, affine: (voxels + 1024, affine),
    "inverted": lambda voxels, affine: (-voxels, affine),
    "half the spacing": _halved,
    "noise of 150 HU": _noisy,
    "every fourth slice missing": lambda voxels, affine: (
        voxels[:, :, np.arange(voxels.shape[2]) % 4 > 0],
        affine,
    ),
}


def _without(label_map: Voxels, value: int) -> Voxels:
    return np.where(label_map == value, 0, label_map)


def _half_of(label_map: Voxels, value: int) -> Voxels:
    place = np.argwhere(label_map == value)
    middle = np.median(place[:, 2])
    ZYX = np.indices(label_map.shape)[2]
    return np.where((label_map == value) & (middle < ZYX), 0, label_map)


def _leaked(label_map: Voxels, value: int, mm: float = 12.0) -> Voxels:
    from scipy.ndimage import binary_dilation

    grown = binary_dilation(label_map == value, iterations=round(mm / 1.5))
    return np.where(grown, value, label_map)


def _apart(label_map: Voxels, value: int) -> Voxels:
    """Add a second piece, of a third of the organ, elsewhere in the scan."""
    piece = np.roll(_half_of(label_map, value) == value, label_map.shape[2] // 3, axis=2)
    return np.where(piece & (label_map == 0), value, label_map)


MASKS: dict[str, Callable[[Voxels, int], Voxels]] = {
    "missing": _without,
    "halved": _half_of,
    "leaked by 12 mm": _leaked,
    "a second piece": _apart,
    "three times as large a label": lambda label_map, value: _leaked(label_map, value, 24.0),
}
ORGANS = ("liver", "left_kidney", "spleen", "stomach")


def run(scans: Path, work: Path) -> dict[str, CaseRecord]:
    """Segment a folder with a report, and return what became of every case."""
    record = flarekit.predict(
        scans, work / "masks", PREDICTOR, report=work / "report", pictures=False, device="cpu"
    )
    return {case.case_id: case for case in record.cases}


def sentences(flags: tuple[Flag, ...]) -> list[str]:
    """Return the first flags as they are told, and how many more there are."""
    more = [f"and {len(flags) - 2} more"] if len(flags) > 2 else []
    return [str(flag) for flag in flags[:2]] + more


def told(flags: tuple[Flag, ...]) -> set[tuple[str, str | None]]:
    return {(flag.kind, flag.label) for flag in flags}


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("dataset", type=Path, help="Dataset001_Abdomen, in nnU-Net's raw layout")
    wanted = parsed(parser, line)
    predictor = find_predictor(PREDICTOR)
    held_out = read_recipe(predictor.folder / "recipe.toml").training.held_out
    names = sorted(path.name for path in (wanted.dataset / "imagesTr").glob("*_0000.nii.gz"))
    ids = [name.removesuffix("_0000.nii.gz") for name in names]
    ways = dict(list(SCANS.items())[: 2 if wanted.quick else None])
    tested = [name for name in ids if name in held_out][: 1 if wanted.quick else None]
    good_ids = tested if wanted.quick else ids
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder, "scans")
        scans.mkdir()
        for name in good_ids:
            image = nibabel.load(wanted.dataset / "imagesTr" / f"{name}_0000.nii.gz")
            voxels, affine = np.asarray(image.dataobj).astype(np.int16), image.affine
            voxels[_around_body(voxels <= voxels.min())] = AIR_HU
            nibabel.save(nibabel.Nifti1Image(voxels, affine), scans / f"{name}_0000.nii.gz")
            if name not in tested:
                continue
            for number, spoil in enumerate(ways.values()):
                spoilt = nibabel.Nifti1Image(*spoil(voxels, affine))
                nibabel.save(spoilt, scans / f"{name}-spoilt-{number}_0000.nii.gz")
        done = run(scans, Path(folder))
        rows = [
            {
                "scan": name,
                "spoilt": way,
                "found": case.error is not None or bool(told(case.flags) - told(done[name].flags)),
                "flags": [case.error] if case.error else sentences(case.flags),
            }
            for name in tested
            for number, way in enumerate(ways)
            for case in [done[f"{name}-spoilt-{number}"]]
        ]
        for name in tested:
            rows += spoilt_masks(predictor, Path(folder), name, done[name])
        by_dice = flagged_by_dice(wanted.dataset, predictor, [done[name] for name in good_ids])
    good = {name: [str(flag) for flag in done[name].flags] for name in good_ids}
    ways_found: dict[str, list[int]] = {}
    for row in rows:
        counts = ways_found.setdefault(str(row["spoilt"]), [0, 0])
        counts[0] += bool(row["found"])
        counts[1] += 1
    scan_rows = [row for row in rows if row["spoilt"] in ways]
    mask_rows = [row for row in rows if row["spoilt"] not in ways]
    result = {
        "predictor": PREDICTOR,
        "weights": predictor.spec.weights.sha256,
        "spoilt_scans_found": share(scan_rows),
        "spoilt_masks_found": share(mask_rows),
        "good_flagged": {
            "held out": f"{sum(bool(good[name]) for name in tested)} of {len(tested)}",
            "trained on": f"{sum(bool(good[n]) for n in good_ids if n not in tested)} of "
            f"{len(good_ids) - len(tested)}",
        },
        "good_labels_flagged_by_dice": by_dice,
        "good_flags_by_kind": Counter(flag.kind for name in good_ids for flag in done[name].flags),
        "found_by_way": {way: f"{one} of {all_}" for way, (one, all_) in ways_found.items()},
        "good": good,
        "spoilt": rows,
    }
    write(wanted.output / f"flags_{PREDICTOR}.json", result)
    print(json.dumps({k: v for k, v in result.items() if k not in ("good", "spoilt")}, indent=1))


def flagged_by_dice(
    dataset: Path, predictor: flarekit.PredictorFolder, records: Sequence[CaseRecord]
) -> dict[str, str]:
    """Return how many labels of good scans are flagged, by their Dice with the manual label."""
    counts = {span: [0, 0] for span in ("below 0.5", "0.5 to 0.8", "from 0.8")}
    for record in records:
        assert record.mask is not None
        masks = [
            read_nifti(path).voxels_ZYX.astype(np.uint8)
            for path in (record.mask, dataset / "labelsTr" / f"{record.case_id}.nii.gz")
        ]
        flagged = {flag.label for flag in record.flags}
        for name, dice in dice_per_label(masks[0], masks[1], predictor.labels).items():
            if not (masks[1] == predictor.labels[name]).any():
                continue  # nobody labelled it
            span = "below 0.5" if dice < 0.5 else "0.5 to 0.8" if dice < 0.8 else "from 0.8"
            counts[span][0] += name in flagged
            counts[span][1] += 1
    return {span: f"{one} of {all_}" for span, (one, all_) in counts.items()}


def share(rows: list[dict[str, Any]]) -> str:
    return f"{sum(bool(row['found']) for row in rows)} of {len(rows)}"


def spoilt_masks(
    predictor: flarekit.PredictorFolder, folder: Path, name: str, good: CaseRecord
) -> list[dict[str, Any]]:
    """Spoil the mask of a held-out scan, organ by organ, and return what is flagged."""
    assert good.mask is not None
    mask, scan = read_nifti(good.mask), read_nifti(folder / "scans" / f"{name}_0000.nii.gz")
    rows = []
    for organ in ORGANS:
        for way, spoil in MASKS.items():
            spoilt = spoil(mask.voxels_ZYX.T, predictor.labels[organ]).T.astype(np.uint8)
            spoilt = np.ascontiguousarray(spoilt)
            found = label_statistics(
                spoilt, mask.geometry, predictor.labels, {"CT": scan.voxels_ZYX}
            )
            flags = flags_of(found, predictor.spec.expected, Findings())
            rows.append(
                {
                    "scan": name,
                    "spoilt": f"mask: {way}",
                    "organ": organ,
                    "found": bool(told(flags) - told(good.flags)),
                    "flags": sentences(flags),
                }
            )
    return rows


if __name__ == "__main__":
    main()
