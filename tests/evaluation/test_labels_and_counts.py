"""Where labels come from, of how many cases a mean is, and whether masks hold what is scored."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from flarekit import conventions
from flarekit.cli.console import Console
from flarekit.cli.evaluate import run_evaluate
from flarekit.cli.requests import Scoring
from flarekit.core.errors import FlarekitError, UsageError
from flarekit.evaluation.evaluate import evaluate
from flarekit.evaluation.masks import find_pairs, read_mask
from flarekit.evaluation.results import as_dict
from flarekit.evaluation.scheme import Settings

AUTOPET = conventions.scheme_of("autopet")

PAPERS = conventions.scheme_of("papers")

MM, METRE, MICROMETRE = 2, 1, 3
FACTORS = {MM: 1.0, METRE: 0.001, MICROMETRE: 1000.0}


def cube(low, value=1, size=(40, 40, 20)):
    mask = np.zeros(size, np.uint8)
    mask[low : low + 10, low : low + 10, 5:15] = value
    return mask


def save(path, mask, *, unit=MM, spacing=(1.0, 1.0, 2.0), sform=True, pixdim=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3] *= FACTORS[unit]
    image = nibabel.Nifti1Image(mask, affine)
    image.set_sform(affine, 1 if sform else 0)
    image.set_qform(affine, 1)
    image.header["xyzt_units"] = unit
    if pixdim is not None:
        image.header.set_qform(affine, 0)
        image.header["pixdim"][1:4] = pixdim
    nibabel.save(image, path)
    return path


@pytest.fixture
def ask(tmp_path, capsys):
    """Return a function that scores the folders as a person would ask, and what came of it."""

    def run(**options):
        request = Scoring(
            predicted=tmp_path / "p",
            truth=options.pop("truth", tmp_path / "t"),
            workers=1,
            **options,
        )
        code = run_evaluate(request, Console())
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    return run


@pytest.mark.parametrize("unit", [METRE, MICROMETRE])
def test_distances_and_volumes_are_in_mm_whatever_the_header_counts_in(tmp_path, unit):
    same = {}
    for name in (MM, unit):
        truth = save(tmp_path / str(name) / "t" / "a.nii.gz", cube(5), unit=name)
        save(tmp_path / str(name) / "p" / "a.nii.gz", cube(25), unit=name)
        assert read_mask(truth).voxel_ml == pytest.approx(0.002)
        assert read_mask(truth).spacing_mm_XYZ == pytest.approx([1, 1, 2])
        pairs, _ = find_pairs(tmp_path / str(name) / "p", tmp_path / str(name) / "t")
        settings = Settings(edition="1", labels={"lesion": 1}, tolerances_mm={"lesion": 2})
        same[name] = dict(evaluate(pairs, PAPERS, settings).summary.overall)
    assert same[unit] == pytest.approx(same[MM])
    assert same[unit]["hd_mm"] == pytest.approx(np.hypot(20, 20))
    assert same[unit]["nsd"] == 0


def test_a_truth_in_metres_and_a_prediction_in_mm_lie_in_one_place(tmp_path):
    save(tmp_path / "t" / "a.nii.gz", cube(5), unit=METRE)
    save(tmp_path / "p" / "a.nii.gz", cube(5))
    pairs, _ = find_pairs(tmp_path / "p", tmp_path / "t")
    (case,) = evaluate(pairs, PAPERS, Settings(edition="1", labels={"lesion": 1})).cases
    assert case.rows[0].scores["lesion"]["hd_mm"] == 0
    assert not [warning for warning in case.warnings if "apart" in warning]


@pytest.mark.parametrize("pixdim", [(3.0, 3.0, 3.0), (1.0, 1.0, 5.0), (0.1, 0.1, 0.2)])
def test_where_pixdim_and_sform_disagree_the_sform_s_spacing_counts(tmp_path, pixdim):
    mask = read_mask(save(tmp_path / "a.nii.gz", cube(5), pixdim=pixdim))
    assert mask.spacing_mm_XYZ == pytest.approx([1, 1, 2])
    assert mask.spacing_mm_XYZ.dtype == np.float32
    assert any("pixdim" in warning for warning in mask.warnings)


def test_pixdim_that_agrees_but_for_rounding_is_taken_to_the_last_digit(tmp_path):
    spacing = (0.7421875, 0.9, 2.5)
    mask = read_mask(save(tmp_path / "a.nii.gz", cube(5), spacing=spacing))
    assert mask.spacing_mm_XYZ.tolist() == np.float32(spacing).tolist()
    assert not mask.warnings


def four_cases(tmp_path):
    for k in range(4):
        save(tmp_path / "t" / f"c{k}.nii.gz", cube(10))
    for k in range(2):
        save(tmp_path / "p" / f"c{k}.nii.gz", cube(11))
    save(tmp_path / "p" / "c2.nii.gz", cube(10) * 0)


def test_every_mean_says_of_how_many_and_what_missing_and_empty_cases_cost(tmp_path, ask):
    four_cases(tmp_path)
    code, out, _ = ask(convention="papers")
    assert code == 1
    assert "1.0000 of 2" in out  # hd95_mm
    assert "0.4050 of 4" in out
    assert "lesion is in the truth and not in the prediction of c2 (empty), c3 (missing)" in out
    assert "dice 0.4050 of 4 (else 0.8100 of 2)" in out
    assert "not defined for them, and not counted: asd_mm, assd_mm, hd_mm, hd95_mm" in out
    overall = {line.split()[0]: line for line in out.split("overall")[1].splitlines() if line}
    assert overall["hd95_mm"].endswith("of 2")
    assert overall["dice"].endswith("of 4")


def test_the_record_says_the_same(tmp_path):
    four_cases(tmp_path)
    pairs, _ = find_pairs(tmp_path / "p", tmp_path / "t")
    content = as_dict(evaluate(pairs, PAPERS, Settings(edition="1", labels={"lesion": 1})))
    lacking = content["lacking"]["lesion"]
    assert lacking["cases"] == {"c2": "empty", "c3": "missing"}
    assert lacking["means_without"]["dice"] == {"value": pytest.approx(0.81), "count": 2}
    assert content["means"]["lesion"]["hd95_mm"]["count"] == 2
    json.dumps(content, allow_nan=False)


def test_cases_that_lack_nothing_cost_nothing(tmp_path, ask):
    save(tmp_path / "t" / "a.nii.gz", cube(10))
    save(tmp_path / "p" / "a.nii.gz", cube(11))
    code, out, _ = ask(convention="papers")
    assert code == 0
    assert "not in the prediction" not in out


def test_a_case_without_the_label_on_either_side_lacks_nothing(tmp_path):
    save(tmp_path / "t" / "a.nii.gz", cube(10))
    save(tmp_path / "p" / "a.nii.gz", cube(10))
    save(tmp_path / "t" / "b.nii.gz", cube(10) * 0)
    pairs, _ = find_pairs(tmp_path / "p", tmp_path / "t")
    assert not evaluate(pairs, AUTOPET, Settings(edition="5", labels={"lesion": 1})).lacking(
        "lesion"
    )


def test_values_that_no_label_has_and_labels_that_no_mask_has_are_named(tmp_path, ask):
    for side in "pt":
        save(tmp_path / side / "c.nii.gz", cube(10, 255))
    code, _, err = ask(convention="autopet")
    assert code == 1
    assert "255 is not a label's value, and is in 1 true masks and 1 predictions" in err
    assert "no mask, true or predicted, holds lesion" in err
    assert "nothing was scored" in err


def test_a_value_in_predictions_alone_is_named_and_the_rest_is_scored(tmp_path, ask):
    save(tmp_path / "t" / "c.nii.gz", cube(10))
    save(tmp_path / "p" / "c.nii.gz", cube(10) + cube(25, 7))
    code, _, err = ask(labels="lesion=1,cyst=2")
    assert code == 0
    assert "7 is not a label's value, and is in 0 true masks and 1 predictions" in err
    assert "no mask, true or predicted, holds cyst" in err


def test_values_of_labels_that_are_left_out_on_purpose_are_not_strange(tmp_path, ask):
    for side in "pt":
        save(tmp_path / side / "c.nii.gz", cube(10) + cube(25, 3))
    _, _, err = ask(labels="liver=1,spleen=3", ignore="spleen")
    assert "no label's value" not in err


def two_organs(tmp_path):
    for k in range(2):
        save(tmp_path / "t" / f"c{k}.nii.gz", cube(5) + cube(25, 3))
        save(tmp_path / "p" / f"c{k}.nii.gz", cube(6))
    return tmp_path


def test_labels_are_never_assumed(tmp_path, ask):
    two_organs(tmp_path)
    with pytest.raises(UsageError, match="which labels are to be scored is not clear") as caught:
        ask()
    for way in ("--labels", "--predictor", "--convention", "dataset.json"):
        assert way in caught.value.fix


@pytest.mark.parametrize("place", ["t", "."])
@pytest.mark.parametrize("convention", [None, "flare"])
def test_a_dataset_json_beside_the_truth_names_them(tmp_path, ask, place, convention):
    two_organs(tmp_path)
    labels = {"background": 0, "liver": 1, "spleen": 3, "right kidney": 2}
    facts = {"channel_names": {"0": "CT"}, "labels": labels}
    (tmp_path / place / "dataset.json").write_text(json.dumps(facts))
    code, out, err = ask(convention=convention, ignore="right_kidney")
    assert code == 0
    overall = out.split("overall")[1].split()
    assert float(overall[1]) == pytest.approx(0.405, abs=1e-4)
    assert "scores of flare; labels of" in err


def test_labels_of_a_dataset_json_may_have_gaps(tmp_path, ask):
    two_organs(tmp_path)
    facts = {"labels": {"background": 0, "liver": 1, "spleen": 3}}
    (tmp_path / "t" / "dataset.json").write_text(json.dumps(facts))
    code, out, _ = ask(convention="papers")
    assert code == 0
    assert "spleen" in out


def test_labels_that_are_asked_for_come_before_those_of_a_file(tmp_path, ask):
    two_organs(tmp_path)
    (tmp_path / "t" / "dataset.json").write_text("not JSON at all")
    _, out, _ = ask(labels="liver=1")
    assert out.split("overall")[1].split()[1] == "0.8100"
    with pytest.raises(FlarekitError, match=r"dataset\.json: is not JSON"):
        ask()


def test_regions_of_a_dataset_json_are_not_one_value_each(tmp_path, ask):
    two_organs(tmp_path)
    facts = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "whole": [1, 3], "core": [3]},
        "regions_class_order": [1, 3],
    }
    (tmp_path / "t" / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="regions"):
        ask()


def test_labels_that_flare_does_not_know_get_every_figure(tmp_path, ask):
    two_organs(tmp_path)
    _, out, err = ask(labels="heart=1")
    assert "hd95_mm" in out
    assert "scores of papers" in err


def test_a_predictor_brings_its_labels_and_its_organiser_s_scores(tmp_path, ask):
    two_organs(tmp_path)
    _, out, err = ask(predictor="abdomen_ct")
    assert "scores of flare; labels of abdomen_ct" in err
    assert "duodenum" in out


def test_value_1_is_strange_where_no_label_has_it(tmp_path):
    for side in "pt":
        save(tmp_path / side / "a.nii.gz", cube(5) + cube(25, 2))
    pairs, _ = find_pairs(tmp_path / "p", tmp_path / "t")
    found = evaluate(pairs, PAPERS, Settings(edition="1", labels={"spleen": 2}))
    assert found.strange_values == {1: (1, 1)}
    assert found.cases[0].truth_values == (1, 2)


@pytest.mark.parametrize(("off_mm", "warned"), [(0.09, False), (0.11, True)])
def test_masks_that_lie_apart_are_told_from_a_tenth_of_a_millimetre_on(tmp_path, off_mm, warned):
    for side, off in (("t", 0.0), ("p", off_mm)):
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        affine[0, 3] = off
        (tmp_path / side).mkdir()
        nibabel.save(nibabel.Nifti1Image(cube(5), affine), tmp_path / side / "a.nii.gz")
    pairs, _ = find_pairs(tmp_path / "p", tmp_path / "t")
    (case,) = evaluate(pairs, PAPERS, Settings(edition="1", labels={"lesion": 1})).cases
    assert any("apart" in warning for warning in case.warnings) == warned
