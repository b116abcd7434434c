"""What the rule shape_gate, and others, take away: false positives, and lesions.

    python profiling/accuracy_gate.py att_umamba_petct --dataset DATASET --material MAPS

The gate is measured on the training lesions of DATASET and of synthetic bodies around the organ
maps that the recipe trained on (--fit bodies). It is tried on bodies around maps that training
never used, healthy (no lesion is drawn) and diseased, on the validation and held-out cases of
DATASET, and on whole-body PETs in --pets (X_suv, X_ct where there is one, X_label where lesions are
labelled); one without a CT has a flat one, as in accuracy_real_body.py. The network runs once per
case; its mask is scored as it is, with the gate, and with each of the rules in --rules, such as
suv_threshold=1, behind those that the predictor has. --quick takes one body of each kind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from accuracy_bodies import unseen_maps
from accuracy_cases import Array, Spacing, oriented, petct_of
from accuracy_real_body import FLAT_HU, ct_of
from measured import bare_parser, machine, write

import flarekit
from flarekit.core.errors import FlarekitError
from flarekit.core.spec import PredictorFolder, Rule
from flarekit.evaluation.lesions import match_lesions
from flarekit.postprocess import Scan, apply_rules
from flarekit.segmentation.predictors import find_predictor
from flarekit.synthesis import wholebody_petct
from flarekit.training.cases import case_ids
from flarekit.training.gate import RULE, Fitted, fit_gate
from flarekit.training.recipe import Recipe, read_recipe
from flarekit.training.sources import material_files


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A PET/CT with its lesions; `lesions_ZYX` is None where they are not labelled."""

    kind: str
    name: str
    channels: tuple[Array, Array]
    lesions_ZYX: Array
    spacing_mm: Spacing


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = bare_parser(__doc__)
    parser.add_argument("predictor", help="name or folder")
    parser.add_argument("--dataset", type=Path, required=True, help="nnU-Net raw layout")
    parser.add_argument("--material", type=Path, required=True, help="organ label maps")
    parser.add_argument("--pets", type=Path, help="real whole-body PETs")
    parser.add_argument("--fit", type=int, default=24, help="bodies that the gate is measured on")
    parser.add_argument("--bodies", type=int, default=4, help="of each kind")
    parser.add_argument("--rules", nargs="*", default=(), help="more of them, each NAME=VALUE")
    parser.add_argument("--lost", type=float, default=0.01, help="as of flarekit train gate")
    parser.add_argument("--output", type=Path, help="a JSON file with the figures of every case")
    parser.add_argument("--quick", action="store_true", help="one body of each kind, and no more")
    return parser.parse_args(line)


def trained_bodies(folder: Path, material: Path, recipe: Recipe, count: int) -> Path:
    """Lay out synthetic bodies that training saw as a data set."""
    facts = recipe.training.synthesis
    assert facts is not None
    maps = material_files(material, facts.held_out)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for seed in range(facts.seeds[0], min(facts.seeds[1], facts.seeds[0] + count)):
        organs, spacing_mm = oriented(maps[seed % len(maps)])
        body = wholebody_petct(organs.astype(np.uint8), spacing_mm, seed)
        affine = np.diag([*(-spacing_mm[2], -spacing_mm[1]), spacing_mm[0], 1.0])
        for name, array in (
            (f"imagesTr/body{seed}_0000", body.hu_ZYX),
            (f"imagesTr/body{seed}_0001", body.suv_ZYX),
            (f"labelsTr/body{seed}", body.lesions_ZYX),
        ):
            nibabel.save(nibabel.Nifti1Image(array.T, affine), folder / f"{name}.nii.gz")
    return folder


def examinations(arguments: argparse.Namespace, recipe: Recipe) -> Iterator[Examination]:
    """Yield everything that the gate is tried on."""
    facts = recipe.training.synthesis
    assert facts is not None
    for number, path in enumerate(unseen_maps(arguments.material, facts)[: arguments.bodies]):
        organs, spacing_mm = oriented(path)
        for kind, most in (("healthy body", 0), ("diseased body", 12)):
            body = wholebody_petct(
                organs.astype(np.uint8), spacing_mm, facts.seeds[1] + number, most_lesions=most
            )
            yield Examination(
                kind=kind,
                name=path.name[:12],
                channels=(body.hu_ZYX, body.suv_ZYX),
                lesions_ZYX=body.lesions_ZYX > 0,
                spacing_mm=spacing_mm,
            )
    kept_apart = {
        "validation crop": recipe.training.validation,
        "held-out crop": recipe.training.held_out,
    }
    crops = [
        (kind, case_id)
        for kind, names in kept_apart.items()
        for case_id in case_ids(arguments.dataset, only=names)[: 1 if arguments.quick else None]
    ]
    for kind, case_id in crops:
        channels, lesions, spacing_mm = petct_of(arguments.dataset, case_id)
        yield Examination(
            kind=kind,
            name=case_id,
            channels=channels,
            lesions_ZYX=lesions,
            spacing_mm=spacing_mm,
        )
    for path in sorted(arguments.pets.glob("*_suv.nii.gz")) if arguments.pets else ():
        suv, spacing_mm = oriented(path)
        case = path.name.removesuffix("_suv.nii.gz")
        hu = None if path.with_name(f"{case}_ct.nii.gz").is_file() else FLAT_HU
        label = path.with_name(path.name.replace("_suv", "_label"))
        lesions = oriented(label)[0] > 0 if label.is_file() else np.zeros(suv.shape, bool)
        yield Examination(
            kind="real body" if label.is_file() else "real body, tumour not labelled",
            name=path.name,
            channels=(ct_of(arguments.pets, case, suv, spacing_mm, hu), suv),
            lesions_ZYX=lesions,
            spacing_mm=spacing_mm,
        )


def figures_of(mask: Array, case: Examination) -> dict[str, float | None]:
    """Return false positives, lesions found and Dice of a mask; no Dice without a lesion."""
    import cc3d

    truth = np.asarray(case.lesions_ZYX, bool)
    numbered, count = cc3d.connected_components(mask, connectivity=18, return_N=True)
    touching = np.setdiff1d(np.unique(numbered[truth]), [0])
    match = match_lesions(truth, mask)
    voxel_ml = float(np.prod(case.spacing_mm)) / 1000
    total = int(mask.sum() + truth.sum())
    return {
        "false_components": int(count) - len(touching),
        "false_ml": round(match.spurious_voxels * voxel_ml, 2),
        "lesions": match.found + match.missed,
        "found": match.found,
        "dice": round(2 * int((mask & truth).sum()) / total, 4) if truth.any() else None,
    }


def rules_of(fitted: Fitted, more: Sequence[str]) -> dict[str, Rule]:
    """Return what is tried: the gate, and NAME=VALUE."""
    labels = (fitted.label,)
    named = [line.partition("=") for line in more]
    return {
        "with": Rule(name=RULE, labels=labels, value=fitted.most, gate=fitted.gate),
        **{f"{n} {v}": Rule(name=n, labels=labels, value=float(v)) for n, _, v in named},
    }


def tried(
    predictor: PredictorFolder,
    label: str,
    rules: Mapping[str, Rule],
    cases: Iterator[Examination],
) -> list[dict[str, Any]]:
    """Segment every examination once, and score its mask without and with each of the rules."""
    names = [channel.name for channel in predictor.spec.channels]
    value = predictor.spec.labels[label]
    rows = []
    with flarekit.load(predictor.folder, device="cpu") as segmenter:
        for case in cases:
            stacked = np.stack(case.channels).astype(np.float32)
            result = segmenter.segment(stacked, spacing_mm=case.spacing_mm)
            scan = Scan(
                spacing_mm_ZYX=case.spacing_mm, channels=dict(zip(names, stacked, strict=True))
            )
            voxel_ml = float(np.prod(case.spacing_mm)) / 1000
            row: dict[str, Any] = {"kind": case.kind, "case": case.name}
            row["without"] = figures_of(result.labels == value, case)
            for name, rule in rules.items():
                ruled = apply_rules(
                    result.labels, [rule], {label: value}, voxel_ml=voxel_ml, scan=scan
                )
                row[name] = figures_of(ruled == value, case)
            rows.append(row)
            print(row, file=sys.stderr)
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line per kind of case."""
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        parts = [f"{kind}: {len(own)} cases"]
        for what in [name for name in own[0] if name not in ("kind", "case")]:
            each = [row[what] for row in own]
            dice = [figures["dice"] for figures in each if figures["dice"] is not None]
            said = f"{what} the gate" if what in ("without", "with") else f"with {what}"
            parts.append(
                f"{said} {sum(f['false_components'] > 0 for f in each)} cases with false "
                f"positives, {sum(f['false_components'] for f in each)} of them, "
                f"{sum(f['false_ml'] for f in each):.1f} ml, {sum(f['found'] for f in each)} of "
                f"{sum(f['lesions'] for f in each)} lesions found"
                + (f", Dice {np.mean(dice):.3f}" if dice else "")
            )
        yield "; ".join(parts)


def main(line: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(line)
    if arguments.quick:
        arguments.bodies, arguments.fit, arguments.pets = 1, 3, None
    try:
        predictor = find_predictor(arguments.predictor)
        recipe = read_recipe(predictor.folder / "recipe.toml")
        with tempfile.TemporaryDirectory() as scratch:
            bodies = trained_bodies(
                Path(scratch, "bodies"), arguments.material, recipe, arguments.fit
            )
            fitted = fit_gate(predictor, [arguments.dataset, bodies], lost=arguments.lost)
        print(
            f"gate: {fitted.gate.components} lesions, most {fitted.most:g}, keeps "
            f"{fitted.kept:.1%} of them"
        )
        rules = rules_of(fitted, arguments.rules)
        rows = tried(predictor, fitted.label, rules, examinations(arguments, recipe))
    except FlarekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for words in summary(rows):
        print(words)
    if arguments.output is not None:
        gate = {"gate": fitted.gate.model_dump(mode="json"), "most": fitted.most}
        facts = {"predictor": predictor.spec.name, "sha256": predictor.spec.weights.sha256}
        write(
            arguments.output, {**machine(), **facts, "bodies": arguments.fit, **gate, "cases": rows}
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
