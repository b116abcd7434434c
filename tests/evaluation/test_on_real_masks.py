"""Real masks against themselves moved by a few voxels, scored once more by other means."""

from __future__ import annotations

import csv
import warnings

import cc3d
import nibabel
import numpy as np
import pytest

from flarekit import conventions
from flarekit.evaluation.evaluate import evaluate
from flarekit.evaluation.masks import find_pairs
from flarekit.evaluation.results import write_csv
from flarekit.evaluation.scheme import Settings
from tests.evaluation import plain

FLARE = conventions.scheme_of("flare")

ULS23 = conventions.scheme_of("uls23")

AUTOPET = conventions.scheme_of("autopet")

pytestmark = pytest.mark.data


def move(sources, folder, shift_XYZ):
    """Write masks beside themselves moved, and return the pairs."""
    (folder / "truth").mkdir()
    (folder / "pred").mkdir()
    for source in sources:
        image = nibabel.load(source)
        values = np.asarray(image.dataobj).astype(np.uint8)
        for name, voxels in (("truth", values), ("pred", np.roll(values, shift_XYZ, (0, 1, 2)))):
            nibabel.save(nibabel.Nifti1Image(voxels, image.affine), folder / name / source.name)
    return find_pairs(folder / "pred", folder / "truth")[0]


def load(path):
    image = nibabel.load(path)
    return np.uint8(image.get_fdata()), image.header.get_zooms()


def flare_by_the_book(pair, monkeypatch):
    """Return FLARE24's DSC and NSD of each organ with DeepMind's own functions."""
    package = pytest.importorskip("surface_distance")
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)  # it was written for numpy 1
    truth, spacing = load(pair.truth)
    predicted, _ = load(pair.predicted)
    scores = []
    for value, tolerance in enumerate((5, 3, 3, 5, 2, 2, 2, 2, 2, 3, 5, 7, 3), 1):
        one, other = truth == value, predicted == value
        if not one.any() or not other.any():
            scores += [float(one.any() == other.any())] * 2
            continue
        if value in (5, 6, 10):
            z = np.where(one)[2]
            one, other = one[:, :, z.min() : z.max()], other[:, :, z.min() : z.max()]
        dsc = package.compute_dice_coefficient(one, other)
        nsd = 0.0
        if dsc >= 0.2:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                distances = package.compute_surface_distances(one, other, spacing)
            nsd = package.compute_surface_dice_at_tolerance(distances, tolerance)
        scores += [round(dsc, 4), round(nsd, 4)]
    return [float(score) for score in scores]


def test_flare_scores_of_moved_organs(shared, tmp_path, monkeypatch):
    sources = sorted((shared / "data" / "Dataset001_Abdomen" / "labelsTr").glob("*.nii.gz"))[::9]
    pairs = move(sources, tmp_path, (2, -3, 1))
    scheme = FLARE.load()
    chosen = Settings(edition="24", labels=scheme.default_labels("24"))
    write_csv(evaluate(pairs, FLARE, chosen, workers=2), tmp_path / "scores.csv")
    _, *rows, _ = csv.reader((tmp_path / "scores.csv").read_text().splitlines())
    assert len(rows) == len(pairs) == 3
    for pair, row in zip(pairs, rows, strict=True):
        expected = flare_by_the_book(pair, monkeypatch)
        assert [float(cell) for cell in row[2:]] == expected
        assert 0.5 < np.mean(expected) < 0.95


def autopet_by_the_book(pair):
    truth, spacing = load(pair.truth)
    predicted, _ = load(pair.predicted)
    voxel_ml = float(np.prod(np.float32(spacing))) / 1000
    volumes = []
    for mask, other in ((predicted, truth), (truth, predicted)):
        parts = cc3d.connected_components(mask.astype(int), connectivity=18)
        alone = [
            (parts == number).sum()
            for number in range(1, parts.max() + 1)
            if ((parts == number) * other).sum() == 0
        ]
        volumes.append(sum(alone) * voxel_ml)
    dice = 2 * (truth * predicted.astype(int)).sum() / (int(truth.sum()) + int(predicted.sum()))
    return [dice, *volumes]


def test_autopet_scores_of_moved_lesions(shared, tmp_path):
    sources = sorted((shared / "data" / "Dataset002_PETCT" / "labelsTr").glob("*.nii.gz"))[::6]
    pairs = move(sources, tmp_path, (9, 4, 2))
    result = evaluate(
        pairs,
        AUTOPET,
        Settings(edition="5", labels={"lesion": 1}),
        workers=2,
    )
    for pair, case in zip(pairs, result.cases, strict=True):
        figures = case.rows[0].scores["lesion"]
        assert [figures[key] for key in ("dice", "fpv_ml", "fnv_ml")] == autopet_by_the_book(pair)
        counts = plain.lesion_counts(load(pair.truth)[0] > 0, load(pair.predicted)[0] > 0)
        assert (figures["found"], figures["missed"], figures["spurious"]) == counts


def test_uls23_scores_of_moved_lesions(shared, tmp_path):
    sources = sorted((shared / "data" / "lesion_vois").glob("*_mask.nii.gz"))
    pairs = move(sources, tmp_path, (3, -2, 1))
    result = evaluate(pairs, ULS23, Settings(edition="23", labels={"lesion": 1}))
    for pair, case in zip(pairs, result.cases, strict=True):
        truth, predicted = (load(path)[0].T > 0 for path in (pair.truth, pair.predicted))
        figures = case.rows[0].scores["lesion"]
        assert figures["dice"] == plain.dice(truth, predicted)
        for key, one, other in zip(
            ("long_axis_error", "short_axis_error"),
            plain.diameters(truth),
            plain.diameters(predicted),
            strict=True,
        ):
            assert figures[key] == abs(one - other) / (one + other)
