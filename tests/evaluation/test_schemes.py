from __future__ import annotations

import dataclasses
import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from flarekit import conventions
from flarekit.core.errors import InputError, UsageError
from flarekit.evaluation.scheme import Row, Settings
from flarekit.evaluation.tolerances import TOLERANCES_MM
from tests.evaluation import plain
from tests.evaluation.strategies import masks

NOTHING = np.zeros((6, 6, 6), np.uint8)
LESION = Settings(edition="5", labels={"lesion": 1})


def block(value=1, *, depth=slice(1, 4), shape=(6, 6, 6)):
    values = np.zeros(shape, np.uint8)
    values[depth, 1:5, 1:5] = value
    return values


def figures(scheme, truth, predicted, settings_):
    (row,) = conventions.scheme_of(scheme).load().score("a", truth, predicted, settings_)
    return row.scores


def same(one, other):
    return one == other or (math.isnan(one) and math.isnan(other))


def test_flare26_scores_lesions_and_is_not_the_default():
    scheme = conventions.scheme_of("flare").load()
    assert scheme.default_labels("26") == {"lesion": 1}
    assert scheme.EDITIONS[-1] == "24"


@pytest.mark.parametrize("name", [*conventions.scored(), "papers"])
def test_every_scheme_keeps_its_contract(name, mask):
    scheme = conventions.scheme_of(name).load()
    for edition in scheme.EDITIONS:
        usual = scheme.default_labels(edition)
        numbers = {name: values for name, values in usual.items() if isinstance(values, tuple)}
        single = {name: value for name, value in usual.items() if name not in numbers}
        chosen = Settings(edition=edition, labels=single, regions=numbers)
        scheme.check(chosen)
        label, (value, *_) = next(iter(chosen.members.items()))
        truth = mask(block(value))
        rows = [
            *scheme.score("same", truth, truth, chosen),
            *scheme.score("missing", truth, None, chosen),
        ]
        assert [row.row_id for row in rows] == ["same", "missing"]
        first = next(iter(rows[0].scores[label]))  # Dice
        assert rows[0].scores[label][first] == 1
        assert rows[1].scores[label][first] == 0
        summary = scheme.summarise(rows, chosen)
        assert summary.labels[label][first].value == 0.5
        assert summary.labels[label][first].count == 2
        assert scheme.summarise([], chosen).labels == {}


def test_an_unknown_scheme_gets_a_hint():
    with pytest.raises(UsageError) as raised:
        conventions.scheme_of("autopt").load()
    assert raised.value.fix == "did you mean 'autopet'?"


# --- FLARE


def flare(edition="24", **labels):
    return Settings(edition=edition, labels=labels or {"liver": 1})


def test_flare_labels_and_tolerances_are_the_edition_s():
    scheme = conventions.scheme_of("flare").load()
    assert list(scheme.default_labels("22").values()) == list(range(1, 14))
    assert scheme.default_labels("23") == {**scheme.default_labels("22"), "lesion": 14}
    assert scheme.default_labels("21") == {"liver": 1, "kidneys": 2, "spleen": 3, "pancreas": 4}
    with pytest.raises(UsageError, match="tolerance for heart") as raised:
        scheme.check(flare(heart=3))
    assert "--tolerance heart=MM" in raised.value.fix
    scheme.check(dataclasses.replace(flare(heart=3), tolerances_mm={"heart": 4.0}))


def test_flare_counts_what_is_empty(mask):
    organ, nothing = mask(block()), mask(NOTHING)
    assert figures("flare", nothing, nothing, flare())["liver"] == {"dsc": 1, "nsd": 1}
    assert figures("flare", nothing, organ, flare())["liver"] == {"dsc": 0, "nsd": 0}
    assert figures("flare", organ, nothing, flare())["liver"] == {"dsc": 0, "nsd": 0}
    # an organ that neither mask has scores 0 all the same where the mask is missing
    assert figures("flare", nothing, None, flare())["liver"] == {"dsc": 0, "nsd": 0}


def test_flare_compares_surfaces_only_of_masks_that_overlap_enough(mask):
    truth = mask(block(depth=slice(0, 6)))
    barely = np.zeros((6, 6, 6), np.uint8)
    barely[0, 1:4, 1:4] = 1  # 9 of 96: a Dice of 0.17
    nsd = {
        edition: figures("flare", truth, mask(barely), flare(edition))["liver"]["nsd"]
        for edition in ("21", "22", "23", "24")
    }
    assert nsd["24"] == 0
    assert nsd["22"] == nsd["23"] > 0
    assert 0 < nsd["21"] < nsd["22"]  # at 1 mm instead of 5


def test_flare_leaves_the_last_true_slice_of_the_aorta_out(mask):
    truth, predicted = block(5, depth=slice(1, 4)), block(5, depth=slice(1, 3))
    predicted[5, 1:5, 1:5] = 5
    got = figures("flare", mask(truth), mask(predicted), flare(aorta=5))["aorta"]
    assert got == {"dsc": 1, "nsd": 1}
    plain_liver = figures("flare", mask(truth), mask(predicted), flare(liver=5))["liver"]
    assert plain_liver["dsc"] == round(2 * 32 / (48 + 48), 4)


def test_flare_does_not_define_the_aorta_of_a_single_slice(mask):
    truth = mask(block(5, depth=slice(2, 3)))
    got = figures("flare", truth, truth, flare(aorta=5))["aorta"]
    assert math.isnan(got["dsc"])
    assert math.isnan(got["nsd"])


def test_flare24_refuses_other_values_where_only_lesions_are_asked_for(mask):
    lesion = block()
    truth, predicted = mask(lesion), lesion.copy()
    predicted[5, 5, 5] = 2
    only = flare(lesion=1)
    assert figures("flare", truth, mask(lesion), only)["lesion"] == {"dsc": 1, "nsd": 1}
    assert figures("flare", truth, mask(predicted), only)["lesion"] == {"dsc": 0, "nsd": 0}


@pytest.mark.long
@given(st.tuples(masks((4, 3, 4), 0.5), masks((4, 3, 4), 0.5)), st.sampled_from(["22", "23", "24"]))
@settings(
    deadline=None,
    max_examples=10,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_flare_scores_are_the_script_s(mask, pair, edition):
    spacing = (0.75, 0.75, 2.5)  # exact in float32
    truth, predicted = (mask(each, spacing) for each in pair)
    least = {"22": 0.0, "23": 0.1, "24": 0.2}[edition]
    for organ, tolerance in (("duodenum", 7), ("gallbladder", 2), ("esophagus", 3)):
        sliced = organ == "esophagus"
        occupied = np.flatnonzero(pair[0].any(axis=(1, 2)))
        if sliced and len(occupied) and occupied[0] == occupied[-1]:
            continue  # where the script stops
        got = figures("flare", truth, predicted, flare(edition, **{organ: 1}))[organ]
        expected = plain.flare(pair[0].T, pair[1].T, spacing, tolerance, least, sliced)
        assert (got["dsc"], got["nsd"]) == expected


def test_flare_means_leave_the_lesion_to_itself():
    def row(liver, lesion):
        return Row(
            row_id="a",
            scores={"liver": {"dsc": liver, "nsd": 1.0}, "lesion": {"dsc": lesion, "nsd": 0.0}},
        )

    chosen = flare("23", liver=1, lesion=14)
    summary = (
        conventions.scheme_of("flare")
        .load()
        .summarise([row(0.1111, 0.2), row(0.2222, 0.3)], chosen)
    )
    liver = float(np.round(np.mean([0.1111, 0.2222]), 4))
    assert summary.labels["liver"]["dsc"].value == liver
    assert summary.labels["lesion"]["dsc"].value == 0.25
    assert summary.overall == {"dsc": liver, "nsd": 1.0}


# --- autoPET


@pytest.mark.long
@given(
    st.tuples(masks((4, 5, 6), 0.25), masks((4, 5, 6), 0.25)),
    st.sampled_from(["1", "2", "3", "4", "5"]),
)
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_autopet_figures_are_the_scripts(mask, pair, edition):
    truth, predicted = pair
    chosen = Settings(edition=edition, labels={"lesion": 1})
    got = figures("autopet", mask(truth), mask(predicted), chosen)["lesion"]
    x, y, z = np.float32((0.7, 0.9, 2.5))
    voxel_ml = float(x * y * z) / 1000
    both_empty = not truth.any() and not predicted.any()
    dice = math.nan if both_empty else plain.dice(truth, predicted)
    missed = plain.untouched(truth, predicted) * voxel_ml
    if edition > "2" and not truth.any():
        dice = missed = math.nan
    assert same(got["dice"], dice)
    assert same(got["fnv_ml"], missed)
    assert got["fpv_ml"] == plain.untouched(predicted, truth) * voxel_ml
    if edition == "5":
        found, lost, spurious = plain.lesion_counts(truth, predicted)
        f1 = math.nan if not truth.any() else 2 * found / (2 * found + lost + spurious)
        assert same(got["f1"], f1)
        assert (got["found"], got["missed"], got["spurious"]) == (found, lost, spurious)
    else:
        assert set(got) == {"dice", "fpv_ml", "fnv_ml"}


def test_autopet_counts_a_missing_prediction_as_one_that_misses_everything(mask):
    got = figures("autopet", mask(block()), None, LESION)["lesion"]
    voxel_ml = 0.7 * 0.9 * 2.5 / 1000
    assert (got["dice"], got["f1"], got["fpv_ml"], got["missed"]) == (0, 0, 0, 1)
    assert got["fnv_ml"] == pytest.approx(48 * voxel_ml)
    healthy = figures("autopet", mask(NOTHING), None, LESION)["lesion"]
    assert (healthy["dice"], healthy["f1"]) == (0, 0)
    assert math.isnan(healthy["fnv_ml"])


def test_autopet_means_leave_out_what_is_not_defined_and_sum_lesions_up(mask):
    scheme = conventions.scheme_of("autopet").load()
    three = NOTHING.copy()
    three[0, 0, 0] = three[0, 0, 3] = three[0, 3, 0] = 1
    rows = [
        *scheme.score("healthy", mask(NOTHING), mask(three), LESION),
        *scheme.score("found", mask(block()), mask(block()), LESION),
        *scheme.score("missed", mask(three), mask(NOTHING), LESION),
    ]
    summary = scheme.summarise(rows, LESION)
    assert summary.labels["lesion"]["dice"].value == 0.5
    assert summary.labels["lesion"]["dice"].count == 2
    assert summary.overall["fpv_ml"] == pytest.approx(3 * 0.7 * 0.9 * 2.5 / 1000 / 3)
    assert summary.overall["f1"] == 0.5
    assert summary.overall["f1_aggregated"] == 2 * 1 / (2 * 1 + 3 + 3)
    assert summary.overall["lesions_missed"] == 3


@pytest.mark.parametrize("name", ["autopet", "uls23"])
def test_one_label_is_scored_where_there_is_one(name):
    scheme = conventions.scheme_of(name).load()
    with pytest.raises(UsageError, match="one label, not 2"):
        scheme.check(Settings(edition=scheme.EDITIONS[-1], labels={"a": 1, "b": 2}))


# --- ULS23

ULS = Settings(edition="23", labels={"lesion": 1})


def ball(z, y, x, radius, shape=(128, 36, 40)):
    grid = np.ogrid[: shape[0], : shape[1], : shape[2]]
    away = sum((axis - centre) ** 2 for axis, centre in zip(grid, (z, y, x), strict=True))
    return (away <= radius**2).astype(np.uint8)


def test_uls23_scores_a_lesion(mask):
    truth, predicted = ball(4, 20, 20, 6, (9, 40, 40)), ball(5, 21, 19, 4.3, (9, 40, 40))
    got = figures("uls23", mask(truth), mask(predicted), ULS)["lesion"]
    true_axes, axes = plain.diameters(truth > 0), plain.diameters(predicted > 0)
    assert got["dice"] == plain.dice(truth > 0, predicted > 0)
    assert got["long_axis_error"] == abs(axes[0] - true_axes[0]) / (axes[0] + true_axes[0])
    assert got["short_axis_error"] == abs(axes[1] - true_axes[1]) / (axes[1] + true_axes[1])
    nothing = figures("uls23", mask(truth), None, ULS)["lesion"]
    assert nothing == {"dice": 0, "long_axis_error": 1, "short_axis_error": 1}
    empty = mask(np.zeros((3, 4, 5)))
    assert figures("uls23", empty, empty, ULS)["lesion"] == {
        "dice": 0,
        "long_axis_error": 0,
        "short_axis_error": 0,
    }


def aligned(volume, spacing, shift):
    """Move one sample onto the other as the organisers do, with splines."""
    x, y, z = (length // step for length, step in zip(shift, spacing, strict=True))
    return ndimage.shift(volume.T, (-x, -y, z), mode="nearest").T


def test_uls23_scores_a_stack_with_its_samples(mask, tmp_path):
    lesions = [ball(64, 18, 20, 4), ball(64, 18, 20, 6), ball(60, 10, 27, 6)]
    predictions = [ball(64, 18, 20, 3), ball(63, 20, 19, 6), ball(58, 11, 29, 5)]
    spacings = [[0.8, 0.8, 1.0], [0.7, 0.75, 1.5], [0.7, 0.75, 1.5]]
    shift = [5.2, -6.1, 5.9]
    (tmp_path / "single_sample.json").write_text("[0, 1]")
    (tmp_path / "multi_sample.json").write_text(json.dumps([[[1, 2, shift]], [[0, 1, [0, 0, 0]]]]))
    (tmp_path / "stacked_spacing.json").write_text(json.dumps(spacings))
    truth = mask(np.concatenate(lesions), path=tmp_path / "stack.mha")
    rows = (
        conventions.scheme_of("uls23")
        .load()
        .score("stack", truth, mask(np.concatenate(predictions)), ULS)
    )
    assert [row.row_id for row in rows] == [
        "stack[0]",
        "stack[1]",
        "stack samples[0]",
        "stack samples[1]",
    ]
    consistency = rows[2].scores["lesion"]["consistency"]
    moved = aligned(predictions[2], spacings[1], shift)
    assert consistency == plain.dice(predictions[1] > 0, moved > 0)
    assert rows[3].scores["lesion"]["consistency"] == plain.dice(
        predictions[0] > 0, predictions[1] > 0
    )
    overall = conventions.scheme_of("uls23").load().summarise(rows, ULS).overall

    def mean(key):
        return statistics.mean(
            row.scores["lesion"][key] for row in rows if key in row.scores["lesion"]
        )

    assert overall["challenge_score"] == (
        0.8 * mean("dice")
        + 0.05 * (1 - min(1, mean("long_axis_error")))
        + 0.05 * (1 - min(1, mean("short_axis_error")))
        + 0.1 * mean("consistency")
    )


def test_uls23_takes_a_stack_apart_by_its_shape(mask):
    stack = np.zeros((256, 256, 256), bool)
    stack[60:64, 100:110, 100:107] = stack[200, 50:60, 50] = True
    rows = conventions.scheme_of("uls23").load().score("a", mask(stack), mask(stack), ULS)
    assert [row.row_id for row in rows] == ["a[0]", "a[1]"]
    assert all(row.scores["lesion"]["dice"] == 1 for row in rows)


def test_uls23_has_no_challenge_score_without_samples(mask):
    truth = mask(ball(4, 20, 20, 6, (9, 40, 40)))
    rows = conventions.scheme_of("uls23").load().score("a", truth, truth, ULS)
    overall = conventions.scheme_of("uls23").load().summarise(rows, ULS).overall
    assert "challenge_score" not in overall
    assert overall["score_without_consistency"] == pytest.approx(1)


def test_uls23_moves_masks_by_whole_voxels_as_a_spline_does():
    from flarekit.conventions.uls23.scoring import _moved

    rng = np.random.default_rng(3)
    volume = rng.random((20, 24, 22)) < 0.3
    for by in ((3, -2, 5), (0, 0, 0), (-7, 6, -4), (1, 25, -30)):
        spline = ndimage.shift(volume.astype(np.uint8), by, mode="nearest")
        assert (_moved(volume, by) == (spline > 0)).all()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"multi_sample.json": "[]"}, "needs stacked_spacing"),
        ({"single_sample.json": "[0, 9]"}, "another stack than one of 1"),
        ({"single_sample.json": "[true"}, "is not JSON"),
        ({"single_sample.json": "[[1]]"}, "not as ULS23's"),
        (
            {"multi_sample.json": "[[[0, 1, [0, 0]]]]", "stacked_spacing.json": "[[1, 1, 1]]"},
            "not as ULS23's",
        ),
        (
            {"multi_sample.json": "[[[0, 0, [0, 0, 0]]]]", "stacked_spacing.json": "[]"},
            "another stack",
        ),
    ],
)
def test_uls23_names_organiser_files_that_do_not_fit(mask, tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    truth = mask(np.ones((2, 3, 4)), path=tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=words):
        conventions.scheme_of("uls23").load().score("a", truth, truth, ULS)


# --- the papers


def test_papers_have_every_figure(mask):
    truth, predicted = block(2, depth=slice(0, 3)), block(2, depth=slice(1, 5))
    chosen = Settings(edition="1", labels={"liver": 2, "heart": 7})
    got = figures("papers", mask(truth), mask(predicted), chosen)
    assert set(got["liver"]) == {
        *(
            "dice",
            "iou",
            "accuracy",
            "precision",
            "recall",
            "specificity",
            "mcc",
            "balanced_accuracy",
            "ravd",
        ),
        *("asd_mm", "assd_mm", "hd_mm", "hd95_mm", "nsd"),
    }
    assert "nsd" not in got["heart"]  # no tolerance
    assert math.isnan(got["heart"]["dice"])
    figures_ = plain.surface_figures(
        truth.T > 0, predicted.T > 0, np.float32((0.7, 0.9, 2.5)).astype(float), 5
    )
    liver = got["liver"]
    names = ("nsd", "asd_mm", "assd_mm", "hd_mm")
    assert [liver[name] for name in names] == pytest.approx(figures_)
    assert liver["ravd"] == pytest.approx(1 / 3)
    assert liver["recall"] == pytest.approx(2 / 3)
    assert liver["precision"] == 0.5


def test_papers_leave_out_of_means_what_is_not_defined(mask):
    chosen = Settings(edition="1", labels={"liver": 1, "heart": 7})
    scheme = conventions.scheme_of("papers").load()
    rows = [
        *scheme.score("a", mask(block()), mask(block()), chosen),
        *scheme.score("b", mask(block()), None, chosen),
    ]
    summary = scheme.summarise(rows, chosen)
    assert summary.labels["liver"]["hd_mm"].count == 1
    assert summary.labels["liver"]["precision"].value == 0.5
    assert math.isnan(summary.labels["heart"]["dice"].value)
    assert summary.overall["dice"] == 0.5
    assert summary.overall["hd_mm"] == 0


def test_the_organisers_labels_and_tolerances_are_theirs():
    assert conventions.scheme_of("autopet").load().default_labels("3") == {"lesion": 1}
    assert conventions.scheme_of("uls23").load().default_labels("23") == {"lesion": 1}
    assert conventions.scheme_of("papers").load().default_labels("1") == {"lesion": 1}
    flare = conventions.scheme_of("flare").load()
    organs = [
        "liver",
        "right_kidney",
        "spleen",
        "pancreas",
        "aorta",
        "inferior_vena_cava",
        "right_adrenal_gland",
        "left_adrenal_gland",
        "gallbladder",
        "esophagus",
        "stomach",
        "duodenum",
        "left_kidney",
    ]
    for edition in ("22", "24"):
        assert flare.default_labels(edition) == {name: k for k, name in enumerate(organs, 1)}
    assert flare.default_labels("23") == {**flare.default_labels("24"), "lesion": 14}
    assert flare.default_labels("21") == {"liver": 1, "kidneys": 2, "spleen": 3, "pancreas": 4}
    tolerances = dict(zip(organs, (5, 3, 3, 5, 2, 2, 2, 2, 2, 3, 5, 7, 3), strict=True))
    assert {**tolerances, "lesion": 2} == TOLERANCES_MM


def test_the_first_label_without_a_tolerance_is_the_one_to_give_one():
    labels = {"liver": 1, "heart": 2, "lung": 3}
    with pytest.raises(UsageError) as caught:
        conventions.scheme_of("flare").load().check(Settings(edition="24", labels=labels))
    assert "no surface tolerance for heart, lung" in caught.value.message
    assert caught.value.fix.startswith("add --tolerance heart=MM")


def test_every_label_of_the_papers_is_its_own_value_and_no_higher_one(mask):
    both = np.maximum(block(1, depth=slice(0, 2)), block(2, depth=slice(3, 5)))
    labels = {"liver": 1, "lesion": 2}
    scores = figures("papers", mask(both), mask(both), Settings(edition="1", labels=labels))
    assert {name: each["dice"] for name, each in scores.items()} == {"liver": 1, "lesion": 1}
    assert {name: each["nsd"] for name, each in scores.items()} == {"liver": 1, "lesion": 1}


def test_the_axes_of_a_lesion_are_compared_long_with_long_and_short_with_short(mask):
    flat, square = np.zeros((3, 30, 30), np.uint8), np.zeros((3, 30, 30), np.uint8)
    flat[1, 10:14, 5:25], square[1, 5:25, 5:25] = 1, 1
    lesion = Settings(edition="23", labels={"l": 1})
    for truth, predicted in ((flat, square), (square, flat)):
        scores = figures("uls23", mask(truth), mask(predicted), lesion)
        assert scores["l"]["long_axis_error"] < 0.2
        assert scores["l"]["short_axis_error"] > 0.5


# --- FLARE25, task 1


RECIST = Settings(edition="25", labels={}, regions={"lesion": tuple(range(1, 256))})


def recist(truth, predicted):
    scheme = conventions.scheme_of("flare_recist").load()
    rows = scheme.score("a", truth, predicted, RECIST)
    return {row.row_id: row.scores["lesion"] for row in rows}, scheme.summarise(rows, RECIST)


def test_flare25_scores_every_lesion_by_its_number(mask):
    truth, predicted = block(3), block(3)
    truth[5, 5, 5] = 7
    predicted[0] = 9  # a number that no true lesion has
    rows, summary = recist(mask(truth), mask(predicted))
    assert rows == {"a[3]": {"dsc": 1.0, "nsd": 1.0}, "a[7]": {"dsc": 0.0, "nsd": 0.0}}
    assert summary.overall == {"dsc": 0.5, "nsd": 0.5}


def test_flare25_scores_as_flare_scores_a_lesion(mask):
    truth, predicted = mask(block()), mask(block(depth=slice(2, 6)))
    flare26 = figures("flare", truth, predicted, Settings(edition="26", labels={"lesion": 1}))
    rows, _ = recist(truth, predicted)
    assert rows["a"] == flare26["lesion"]
    assert 0 < rows["a"]["dsc"] < 1


def test_flare25_of_a_file_without_lesions_is_1_where_nothing_is_marked(mask):
    assert recist(mask(NOTHING), mask(NOTHING))[0] == {"a": {"dsc": 1.0, "nsd": 1.0}}
    assert recist(mask(NOTHING), mask(block(2)))[0] == {"a": {"dsc": 0.0, "nsd": 0.0}}
    assert recist(mask(NOTHING), None)[0] == {"a": {"dsc": 0.0, "nsd": 0.0}}


def test_flare25_scores_no_second_label():
    with pytest.raises(UsageError, match="by their numbers"):
        conventions.scheme_of("flare_recist").load().check(
            Settings(edition="25", labels={"a": 1, "b": 2})
        )
