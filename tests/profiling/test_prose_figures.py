"""Figures in sentences of docs/ are those of the files in profiling/ that the pages name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def result(name):
    return json.loads((ROOT / "profiling" / f"{name}.json").read_text(encoding="utf-8"))


def of_the_service():
    told = result("service_load_cpu")
    first, second, third = (f"{mib:.0f}" for mib in told["resident_mib_highest_by_thirds"])
    assert told["became"] == {
        "states": {"done": told["accepted"]},
        "lost": 0,
        "masks_that_changed": 0,
    }
    yield f"{told['accepted']} cases accepted, {told['accepted']} done, no mask lost or changed"
    yield f"{told['answers']['429']} answers 429"
    yield f"memory at most {first}, {second} and {third} MiB in the three thirds"


def of_cohorts():
    told = result("cohort")["throughput"]
    yield f"of {told['cases']} small CTs on two cores it segmented"
    yield f"it segmented {told['ratio_without_ray_s_start']:.2f} times as many an hour"
    yield f"without Ray's start of {told['of_which_ray_s']:.1f} s"


def of_predictor_folders():
    agreed = result("agree_nnunet")["flarekit_fp32_against_nnunetv2"].values()
    yield f"agree in {100 * min(case['voxels_equal'] for case in agreed):.3f} % of the voxels"


def of_speed():
    measured = result("anytime_abdomen_ct")
    yield f"in {computed_in(measured)} on an {measured['processor']}"
    scans = measured["idle"]["scans"]
    for name, which in (("F", "least"), ("R", "full")):
        taken = sorted(scan[which]["taken_s"] for scan in scans)
        yield f"{name} {'is ' if name == 'F' else ''}{taken[0]:.1f} to {taken[-1]:.1f} s"
    kept, of = kept_of(measured["idle"]["summary"])
    yield f"{kept} of {of} runs ended within their budget and 0.2 s"
    many = result("deadlines_abdomen_ct")
    yield f"beside {['no', 'one', 'two'][many['busy']]} busy processes"
    yield f"{many['kept']} of {many['runs']} did"
    yield f"the latest ended {max(many['latest_s'], 0):.2f} s after its budget"


def computed_in(measured):
    """Return the precision that `auto` was on that processor."""
    return (
        "bf16" if {"amx_bf16", "avx512_bf16"} & set(measured["capability"].split(",")) else "fp32"
    )


def kept_of(summary):
    """Return how many runs ended by their budget and 0.2 s, and of how many."""
    pairs = [[int(word) for word in row["kept"].split(" of ")] for row in summary]
    return tuple(map(sum, zip(*pairs, strict=True)))


def of_locators():
    told = result("anytime_att_umamba_petct")
    (scan,) = told["idle"]["scans"]
    full, least = scan["full"], scan["least"]
    half, whole = (
        next(each for each in scan["budgets"] if each["s"] == share) for share in (0.5, 1.0)
    )
    assert (half["tiles"], whole["tiles"], full["tiles"]) == (1, 4, 16)
    yield f"took {full['taken_s']:.1f} s and had a Dice of {full['dice']:.3f}"
    yield f"had {least['dice']:.3f} after {least['taken_s']:.1f} s"
    yield f"one tile of 16, and {half['dice']:.3f}, with all of it four, and {whole['dice']:.3f}"
    late = [each["late_s"] for each in scan["budgets"]]
    yield f"{sum(s <= 0.2 for s in late)} of {len(late)} runs ended within their budget and 0.2 s"
    yield f"the latest {max(late):.2f} s after it"
    yield f"a load of {told['load_before']:.1f}; the full run takes {full['cpu_s']:.1f} s"
    bodies = result("locator_att_umamba_petct_wholebody")["summary"]
    every, left = bodies["without"], bodies["with"]
    assert every["found"] == left["found"]
    yield f"none of the {every['found']:.0f} lesions that are found"
    yield f"the {left['tiles']} tiles that stay (of {every['tiles']}) stand elsewhere"
    yield f"falls from {every['dice']:.3f} to {left['dice']:.3f}"
    yield f"for {100 * (1 - left['cpu_s'] / every['cpu_s']):.0f} % less processor time"


def of_the_gate():
    told = result("gate_att_umamba_petct")

    def summed(kind, rule, what):
        return sum(row[rule][what] for row in told["cases"] if row["kind"].startswith(kind))

    def ml(kind):
        return [f"{summed(kind, rule, 'false_ml'):.1f} ml" for rule in ("without", "with")]

    yield f"measured on {told['gate']['components']} lesions"
    before, after = ml("healthy")
    yield f"takes {before} of false positives in three healthy bodies to {after}"
    found = [summed("diseased", rule, "found") for rule in ("with", "without")]
    yield f"{found[0]} of {summed('diseased', 'with', 'lesions')} lesions are found in place of"
    yield f"in place of {found[1]}"
    yield f"On two real whole bodies it takes {ml('real')[0]} to {ml('real')[1]}"
    for kind in ("real", "validation", "held-out"):
        assert summed(kind, "with", "found") == summed(kind, "without", "found")
    crops = sum("crop" in row["kind"] for row in told["cases"])
    yield f"no lesion is lost there, nor on {crops} crops"


SAID = {
    "flare26.md": of_the_gate,
    "service.md": of_the_service,
    "cohorts.md": of_cohorts,
    "predictor_folder.md": of_predictor_folders,
    "speed.md": of_speed,
    "locators.md": of_locators,
}


def test_the_card_says_what_rules_would_do_to_real_bodies():
    text = " ".join((ROOT / "weights/att_umamba_petct/CARD.md").read_text(encoding="utf-8").split())
    cases = result("gate_att_umamba_petct")["cases"]
    real = [row for row in cases if row["kind"].startswith("real")]
    for rule in ("without", "with", "suv_threshold 1", "min_volume_ml 1"):
        assert f"{sum(row[rule]['false_ml'] for row in real):.1f} ml" in text, rule
    crops = [row for row in cases if row["kind"] == "validation crop"]
    without, with_least_suv = (
        sum(row[rule]["dice"] for row in crops) / len(crops)
        for rule in ("without", "suv_threshold 1")
    )
    assert f"from a mean Dice of {without:.3f} to {with_least_suv:.3f}" in text


@pytest.mark.parametrize("page", SAID)
def test_figures_in_sentences_are_those_that_were_measured(page):
    text = " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())
    for sentence in SAID[page]():
        assert sentence in text, sentence
