"""What organisers state, and where it is asked for: every convention says it in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from flarekit import conventions
from flarekit.cli.conventions import conventions as show
from flarekit.conventions.facts import ConventionFacts, preset_of
from flarekit.core.errors import UsageError
from flarekit.profiler.limits import tolerances_of
from flarekit.verification.trials import TaskFacts

PRESETS = conventions.presets()
NOBODY = {"title": "Nobody", "tree": {"input": "a", "output": "b"}}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_complete(name):
    limits = PRESETS[name]
    assert limits.time_s is not None or name == "flare25_recist"  # none was found
    assert limits.gpu_mib is not None
    assert limits.ram_mib is not None
    assert tolerances_of(limits).gpu_mib == limits.gpu_mib


def test_the_presets_are_those_of_the_challenges():
    stated = {
        "autopet": ["autopet3", "autopet4", "autopet5"],
        "dicom": [],
        "flare": ["flare21", "flare22", "flare23", "flare24", "flare26"],
        "flare_recist": ["flare25_recist"],
        "grandchallenge": [],
        "plain": [],
        "uls23": ["uls23"],
    }
    for name, presets in stated.items():
        assert sorted(conventions.facts_of(name).limits) == presets
        assert PRESETS.keys() >= set(presets)
    assert PRESETS["flare22"].gpu_mib == 2048
    assert (PRESETS["flare23"].time_s, PRESETS["flare23"].gpu_mib) == (15, 4096)
    assert PRESETS["flare26"].cap_s == 60


def test_a_near_miss_of_a_preset_gets_a_hint():
    with pytest.raises(UsageError) as error:
        preset_of("flare32", PRESETS)
    assert "did you mean" in error.value.fix


@pytest.mark.parametrize("name", conventions.names())
def test_every_convention_says_who_wants_what(name):
    assert conventions.facts_of(name).title
    assert (conventions.facts_of(name).run_line is not None) == (name in conventions.verifiable())


def test_what_organisers_do_not_state_is_marked():
    words = conventions.facts_of("flare").presets["flare26"][0]
    assert words == (
        "time 15 s (?), ended after 60 s (p), GPU memory 4096 MiB (p), memory 28672 MiB (p), "
        "masks hold 0 and 1"
    )
    assert "(" not in conventions.facts_of("flare").presets["flare23"][0]
    assert (
        conventions.facts_of("flare_recist")
        .presets["flare25_recist"][0]
        .startswith("GPU memory none")
    )


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({"guessed": ["cap_s"]}, "does not set"),
        ({"guessed": ["time_s"], "stated_by_participants": ["time_s"]}, "marked twice"),
        ({"guessed": ["colour"]}, "Input should be"),
    ],
)
def test_a_mark_on_what_is_not_there_is_refused(marks, words):
    limits = {"x": {"time_s": 3.0, "source": "nowhere", **marks}}
    with pytest.raises(ValidationError, match=words):
        ConventionFacts({**NOBODY, "limits": limits})


def test_a_fact_that_nobody_reads_is_refused():
    with pytest.raises(ValidationError, match="colour"):
        ConventionFacts({**NOBODY, "colour": "red"})


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", conventions.verifiable())
def test_the_tree_that_people_read_is_the_one_that_is_read_and_written(name, tmp_path):
    facts, checks = conventions.facts_of(name), conventions.checks_of(name)
    checks.write_sample(tmp_path, TaskFacts(values=frozenset({0, 1})))
    outputs = [{"path": "images/organs", "kind": "Segmentation"}]
    settings = {"outputs": outputs} if name == "grandchallenge" else {}
    convention = conventions.get(name, settings, labels={"lesion": 1})
    channels = 2 if name == "autopet" else 1
    cases = convention.find_cases(tmp_path, channels)
    assert cases
    for case in cases:
        for place in [path.relative_to(tmp_path) for path in case.channels] + [case.mask]:
            tree = facts.output_tree if place == case.mask else facts.input_tree
            folder = Path(*("X" if part == case.case_id else part for part in place.parent.parts))
            folder = folder.as_posix()
            if name == "grandchallenge":
                folder = "images/SLUG"
            assert (f"{folder}/" if place.parent.parts else place.suffixes[-1]) in tree


def test_a_convention_is_explained_on_the_command_line(capsys):
    show("autopet")
    said = capsys.readouterr().out
    assert "images/tumor-lesion-segmentation/" in said
    assert "autopet3" in said
    assert "--network none --cap-drop ALL" in said
    assert "/cache may be there in the next call of the same case (p)" in said
    show(None)
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[:-2]] == list(conventions.names())
