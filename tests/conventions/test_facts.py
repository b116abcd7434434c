"""What organisers state, and where it is asked for: every convention says it in one file."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from flarekit import conventions
from flarekit.conventions.facts import ConventionFacts, preset_of
from flarekit.core.errors import UsageError
from flarekit.profiler.limits import tolerances_of

PRESETS = conventions.presets()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_complete(name):
    limits = PRESETS[name]
    assert limits.time_s is not None
    assert limits.gpu_mib is not None
    assert limits.ram_mib is not None
    assert tolerances_of(limits).gpu_mib == limits.gpu_mib


def test_the_presets_are_those_of_the_challenges():
    assert sorted(PRESETS) == ["autopet3", "flare22", "flare23", "flare24", "flare26", "uls23"]
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


def test_a_fact_that_nobody_reads_is_refused():
    with pytest.raises(ValidationError, match="colour"):
        ConventionFacts({"title": "Somebody", "colour": "red"})
