from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from flarekit.containers import ImageFacts
from flarekit.core.errors import UsageError
from flarekit.images.apptainer import definition
from flarekit.images.save import SaveRequest, save

FACTS = ImageFacts(
    names=("team:latest",),
    architecture="amd64",
    system="linux",
    user="",
    entrypoint=(),
    command=("sh", "-c", "echo started in $PWD"),
    working_dir="/tmp",
    variables={},
    labels={"flarekit.convention": "flare", "flarekit.facts": '{"a":\n 1}'},
    size_bytes=1,
)


def sections_of(text):
    head, *parts = text.split("\n%")
    return head, {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def started(text, folder, *arguments):
    fake = folder / "flarekit"
    fake.write_text("#!/bin/sh\nprintf 'flarekit %s\\n' \"$*\"\n")
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    script = sections_of(text)[1]["runscript"]
    return subprocess.run(
        ["sh", "-c", script, "sh", *arguments],
        text=True,
        capture_output=True,
        env=environment,
        check=True,
    ).stdout


def test_the_definition_is_built_from_the_saved_image():
    text = definition("team:latest", FACTS, "team.tar.gz")
    head, sections = sections_of(text)
    assert "Bootstrap: docker-archive\nFrom: team.tar.gz" in head
    assert "apptainer build team.sif team.def" in head
    assert "MASKS:/workspace/outputs" in head
    assert 'flarekit.facts {"a": 1}' in sections["labels"]


@pytest.mark.parametrize(
    ("archive", "line"),
    [
        ("team.v1.2.tar.gz", "apptainer build team.v1.2.sif team.v1.2.def"),
        ("our team.tar.gz", "apptainer build 'our team.sif' 'our team.def'"),
    ],
)
def test_the_command_names_the_file_that_lies_beside_the_image(archive, line):
    head, _ = sections_of(definition("team:latest", FACTS, archive))
    assert f"#   {line}\n" in head
    assert f"From: {archive}\n" in f"{head}\n"


def test_a_label_s_name_stays_on_its_line():
    facts = replace(FACTS, labels={"of\n%post\n    two lines": "a\n%post"})
    sections = sections_of(definition("team:latest", facts, "team.tar.gz"))[1]
    assert list(sections) == ["labels", "runscript"]
    assert sections["labels"].split("\n")[0] == "    of-%post-two-lines a %post"


def test_it_starts_as_the_image_does_and_takes_flarekit_s_arguments(tmp_path):
    text = definition("team:latest", FACTS, "team.tar.gz")
    assert started(text, tmp_path) == "started in /tmp\n"
    assert started(text, tmp_path, "predict", "--shard", "1/8") == "flarekit predict --shard 1/8\n"


def test_another_team_s_image_keeps_its_own_command(tmp_path):
    facts = replace(FACTS, labels={}, entrypoint=("echo", "it's"), command=("its own",))
    text = definition("other", facts, "other.tar.gz")
    assert started(text, tmp_path) == "it's its own\n"
    assert started(text, tmp_path, "mine") == "it's mine\n"
    assert started(
        definition("o", replace(facts, entrypoint=()), "o.tar.gz"), tmp_path, "echo", "x"
    )


def test_a_name_cannot_add_lines_to_the_definition():
    assert "\nFrom: evil" not in definition("a\nFrom: evil", FACTS, "team.tar.gz")


def test_a_definition_is_named_as_one(tmp_path):
    for path, kind in (("team.tar.gz", "apptainer-def"), ("team.def", "docker")):
        with pytest.raises(UsageError, match="is not a"):
            save(SaveRequest(image="team", path=tmp_path / path, format=kind))
