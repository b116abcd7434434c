"""Images from predictors: what goes into the build, and what is refused before Docker is asked."""

from __future__ import annotations

import errno
import os
import tarfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flarekit.cli.main import app
from flarekit.containers.docker_command import DockerError
from flarekit.core.errors import OutputError, PredictorError, UsageError
from flarekit.images.build import (
    BuildError,
    BuildRequest,
    budget_arguments,
    build,
    task_facts,
    write_context,
)
from flarekit.images.save import SaveRequest, save
from flarekit.images.verify import VerifyRequest, verify
from tests.containers.fake_docker import FakeDocker

ROOT = Path(__file__).parents[2]


def request(toy, **changes):
    return BuildRequest(
        **{"predictor": str(toy.folder), "convention": "flare", "tag": "team", **changes}
    )


@pytest.fixture
def _no_engine(monkeypatch, tmp_path):
    """Take the docker command away."""
    monkeypatch.setenv("PATH", str(tmp_path))


def test_the_context_holds_the_package_and_one_predictor(toy, tmp_path):
    (toy.folder / "compiled").mkdir()
    context = tmp_path / "context"
    context.mkdir()
    write_context(toy, context)
    assert (context / "Dockerfile").is_file()
    assert (context / "flarekit" / "cli" / "main.py").is_file()
    assert [path.name for path in (context / "weights").iterdir()] == ["toy"]
    assert not (context / "weights" / "toy" / "compiled").exists()
    assert not list(context.rglob("__pycache__"))


def test_a_file_that_predictors_share_by_a_link_is_whole_in_the_context(toy, tmp_path):
    content = toy.weights.read_bytes()
    toy.weights.rename(tmp_path / "shared.safetensors")
    toy.weights.symlink_to(tmp_path / "shared.safetensors")
    context = tmp_path / "context"
    context.mkdir()
    write_context(toy, context)
    copied = context / "weights" / "toy" / toy.weights.name
    assert not copied.is_symlink()
    assert copied.read_bytes() == content


def copied_by(dockerfile):
    """Return the names that a Dockerfile copies from its context."""
    lines = dockerfile.read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    own = [line for line in lines if line.startswith("COPY ") and "--from" not in line]
    return [name for line in own for name in line.split()[1:-1]]


def test_everything_that_the_dockerfile_copies_is_in_the_context(toy, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    write_context(toy, context)
    copied = copied_by(context / "Dockerfile")
    assert copied
    assert [name for name in copied if not list(context.glob(name))] == []


def is_sent(path):
    """Tell whether .dockerignore lets a file of the checkout reach the builder."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split():
        pattern = line.removeprefix("!").removeprefix("**/")
        names = [str(path), *map(str, path.parents), *(path.parts if "**/" in line else ())]
        if any(fnmatch(name, pattern) for name in names):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "serve.Dockerfile"])
def test_everything_that_a_checkout_s_dockerfile_copies_is_sent_to_the_builder(dockerfile):
    made = {"__pycache__", "dist", "node_modules"}
    for name in copied_by(ROOT / dockerfile):
        found = [path for each in ROOT.glob(name) for path in (each, *each.rglob("*"))]
        files = [path.relative_to(ROOT) for path in found if path.is_file()]
        kept = [path for path in files if not made & set(path.parts)]
        assert kept, name
        assert [path for path in kept if not is_sent(path)] == [], name
    assert not is_sent(Path("flarekit/web/dist/index.html"))
    assert not is_sent(Path("tests/conftest.py"))


@pytest.mark.parametrize(
    ("convention", "budgets"),
    [
        ("flare", {"TIME_BUDGET": "15", "GPU_MEMORY_BUDGET": "4096"}),
        ("autopet", {"TIME_BUDGET": "270", "GPU_MEMORY_BUDGET": "0"}),
        ("dicom", {"TIME_BUDGET": "0", "GPU_MEMORY_BUDGET": "0"}),
    ],
)
def test_images_carry_what_their_organiser_tolerates_in_their_environment(
    toy, tmp_path, convention, budgets
):
    assert budget_arguments(convention) == budgets
    context = tmp_path / "context"
    context.mkdir()
    write_context(toy, context)
    dockerfile = (context / "Dockerfile").read_text()
    for name in budgets:
        assert f"ARG {name}=convention" in dockerfile
        assert f"FLAREKIT_{name}=${{{name}}}" in dockerfile
    assert "FLAREKIT_RAM_BUDGET=container" in dockerfile


def test_an_edition_s_limits_are_what_its_image_keeps():
    assert budget_arguments("flare", "flare26") == {
        "TIME_BUDGET": "54",
        "GPU_MEMORY_BUDGET": "4096",
    }
    assert budget_arguments("flare", "flare22")["TIME_BUDGET"] == "15"
    with pytest.raises(UsageError, match="no preset 'autopet5'"):
        budget_arguments("flare", "autopet5")


@pytest.mark.usefixtures("_no_engine")
def test_a_predictor_with_other_labels_than_the_edition_s_is_refused(toy):
    with pytest.raises(PredictorError, match="masks of flare26 hold 0 and 1, .* hold lesion 4"):
        build(request(toy, preset="flare26"))
    with pytest.raises(DockerError):  # all labels suit the other editions
        build(request(toy, preset="flare23"))


def test_the_facts_tell_the_verifier_the_task(toy):
    assert task_facts(toy.spec, "flare")["values"] == [1, 4]
    assert task_facts(toy.spec, "uls23")["values"] == [1]


def test_a_predictor_without_outputs_is_no_algorithm_of_the_platform(toy):
    with pytest.raises(PredictorError, match="which outputs"):
        task_facts(toy.spec, "grandchallenge")


@pytest.mark.usefixtures("_no_engine")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tag": "Team A"}, "not a tag"),
        ({"convention": "flair"}, "no convention"),
        ({"predictor": "nothing"}, "nothing"),
    ],
)
def test_bad_requests_are_refused_before_docker_is_asked(toy, changes, words):
    with pytest.raises(UsageError, match=words):
        build(request(toy, **changes))


@pytest.mark.usefixtures("_no_engine")
def test_damaged_weights_are_not_built_in(toy):
    (toy.folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(PredictorError, match="wrong"):
        build(request(toy))


def test_a_full_disk_of_this_machine_is_told_before_docker_is_asked(toy, tmp_path, monkeypatch):
    engine = FakeDocker(tmp_path / "bin")
    monkeypatch.setenv("PATH", engine.path)

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("flarekit.images.build.shutil.copytree", full)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        build(request(toy))
    assert "TMPDIR" in caught.value.fix
    assert [call for call in engine.calls if call[0] == "build"] == []


@pytest.mark.usefixtures("_no_engine")
def test_without_an_engine_the_error_says_so(toy, tmp_path):
    for act in (
        lambda: build(request(toy)),
        lambda: save(SaveRequest(image="team", path=tmp_path / "team.tar.gz")),
        lambda: verify(VerifyRequest(image="team", convention="flare", backend="docker")),
    ):
        with pytest.raises(DockerError, match="docker is not installed") as caught:
            act()
        assert caught.value.exit_code == 5


def test_a_packed_predictor_is_what_the_platform_unpacks(toy, tmp_path):
    arguments = ["weights", "pack", str(toy.folder), "-o", str(tmp_path / "model.tar.gz")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        assert sorted(tar.getnames()) == ["model.safetensors", "predictor.toml"]


def test_a_file_that_predictors_share_by_a_link_is_whole_in_a_packed_one(toy, tmp_path):
    toy.weights.rename(tmp_path / "shared.safetensors")
    toy.weights.symlink_to(tmp_path / "shared.safetensors")
    arguments = ["weights", "pack", str(toy.folder), "-o", str(tmp_path / "model.tar.gz")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        kinds = {member.name: member.isfile() for member in tar}
    assert kinds == {"model.safetensors": True, "predictor.toml": True}


def test_what_docker_says_in_colours_is_passed_on_without_them(toy, tmp_path, monkeypatch):
    engine, said = FakeDocker(tmp_path / "bin"), []
    engine.answers("build", code=1, out=b"Step 1/2\n\x1b[91mno space\x1b[0m left\n")
    monkeypatch.setenv("PATH", engine.path)
    with pytest.raises(BuildError, match="Step 1/2\nno space left"):
        build(request(toy), say=said.append)
    assert said == ["Step 1/2", "no space left"]
