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
    idle = [result(f"anytime_abdomen_ct{which}")["idle"] for which in ("", "_fp32")]
    bf16, fp32 = (sorted(scan["full"]["taken_s"] for scan in each["scans"]) for each in idle)
    least = sorted(scan["least"]["taken_s"] for each in idle for scan in each["scans"])
    yield f"F is {least[0]:.1f} to {least[-1]:.1f} s here"
    yield f"R {bf16[0]:.1f} to {bf16[-1]:.1f} s in bf16"
    yield f"and {fp32[0]:.1f} to {fp32[-1]:.1f} s in fp32"
    kept = [int(row["kept"].split()[0]) for each in idle for row in each["summary"]]
    yield f"{sum(kept)} of {4 * len(kept)} runs ended within their budget"
    busy = result("anytime_abdomen_ct_loaded")["loaded"]["summary"]
    kept = [int(row["kept"].split()[0]) for row in busy]
    yield f"{sum(kept)} of {4 * len(kept)} ({busy[0]['dice']:.3f} with R"
    yield f"{busy[1]['dice']:.3f} half of the way"
    yield f"ended {max(row['latest_s'] for row in busy):.2f} s after its budget"


SAID = {
    "service.md": of_the_service,
    "cohorts.md": of_cohorts,
    "predictor_folder.md": of_predictor_folders,
    "speed.md": of_speed,
}


@pytest.mark.parametrize("page", SAID)
def test_figures_in_sentences_are_those_that_were_measured(page):
    text = " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())
    for sentence in SAID[page]():
        assert sentence in text, sentence
