"""The organisers' own line, as it is printed after an image is built or saved."""

from __future__ import annotations

import shlex

import pytest
from typer.testing import CliRunner

from flarekit import conventions
from flarekit.cli.main import app
from flarekit.containers import ImageFacts
from flarekit.conventions.facts import preset_of
from flarekit.core.errors import UsageError
from flarekit.images import build as building
from flarekit.images.run_line import organisers_line


def image(**labels):
    return ImageFacts(
        names=("team:latest",),
        architecture="amd64",
        system="linux",
        user="",
        entrypoint=(),
        command=(),
        working_dir="/workspace",
        variables={},
        labels={key.replace("_", "."): value for key, value in labels.items()},
        size_bytes=1_000_000,
    )


def test_flare_s_line_is_the_organisers_word_for_word():
    line = organisers_line("team:latest", image(flarekit_convention="flare"))
    assert line == (
        'docker container run -m 28G --rm -v "$PWD/inputs/":/workspace/inputs/ '
        '-v "$PWD/outputs/":/workspace/outputs/ team:latest /bin/bash -c "sh predict.sh"'
    )
    gpu = organisers_line("t", image(flarekit_convention="flare", flarekit_cuda_version="12.6"))
    assert 'run --gpus "device=0" -m 28G' in gpu


@pytest.mark.parametrize("name", conventions.verifiable())
def test_every_organiser_s_line_has_limits_and_folders_of_the_facts(name):
    facts = conventions.facts_of(name).run_line
    words = shlex.split(organisers_line("team", image(), name))
    assert words[:3] == ["docker", "container", "run"]
    mounts = [words[k + 1] for k, word in enumerate(words) if word == "-v"]
    assert [mount.split(":")[1].rstrip("/") for mount in mounts] == [facts.inputs, facts.outputs]
    assert ("none" in words) == (not facts.conditions.network)
    tail = words[words.index("team") + 1 :]
    assert tuple(tail) == (facts.command or ())


def test_an_image_that_nobody_runs_has_no_line():
    assert organisers_line("team", image(flarekit_convention="dicom")) is None
    assert organisers_line("team", image()) is None


def test_building_ends_with_the_line(toy, monkeypatch):
    built = image(flarekit_convention="flare")
    monkeypatch.setattr(building, "build", lambda *_args, **_kwargs: built)
    result = CliRunner().invoke(app, ["build", "-p", str(toy.folder), "-t", "team"])
    assert result.exit_code == 0, result.output
    assert "docker container run -m 28G --rm" in result.output


def test_a_wrong_preset_is_told_the_right_ones():
    for name in ("flare32", "spring"):
        with pytest.raises(UsageError) as caught:
            preset_of(name, conventions.facts_of("flare").limits)
        assert "flare22, flare23, flare24, flare26" in caught.value.fix
    with pytest.raises(UsageError, match="leave --preset out"):
        preset_of("flare23", conventions.facts_of("dicom").limits)
