"""Docker through its command: reasons in its own words, bytes of any kind, names that stay."""

from __future__ import annotations

import os
import threading
import time

import pytest

from flarekit.containers import Conditions, Run, SandboxError
from flarekit.containers.docker import DockerSandbox
from flarekit.containers.docker_command import (
    docker,
    first_device,
    gpus_argument,
    machine_fix,
    open_up,
    reason_in,
)
from flarekit.containers.saved_image import read_archive
from flarekit.core.errors import FlarekitError, InputError
from flarekit.images.save import SaveRequest, save
from flarekit.images.verify import VerifyRequest, verify
from tests.containers import small_images
from tests.containers.fake_docker import FakeDocker

OLD, NEW = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Return a docker command that plays, in front of any other."""
    made = FakeDocker(tmp_path / "bin")
    monkeypatch.setenv("PATH", made.path)
    return made


@pytest.fixture
def saved(tmp_path):
    """Return a function that writes a saved image with these names."""

    def write(*names, ending=".tar", **how):
        path = tmp_path / f"team{ending}"
        layers = [small_images.layer(small_images.entry("a", b"x"))]
        return small_images.save(path, layers, names=names, **how)

    return write


REASONS = [
    (
        "Error response from daemon: unable to find user algorithm: no matching entries in passwd "
        "file\nError: failed to start containers: x\n",
        "unable to find user algorithm",
    ),
    (
        'docker: Error response from daemon: could not select device driver "" with capabilities: '
        "[[gpu]]\n\nRun 'docker run --help' for more information\n",
        "could not select device driver",
    ),
    (
        "WARNING: The requested image's platform (linux/arm64) does not match\n"
        'docker: Error response from daemon: exec: "/bin/bash": no such file or directory\n',
        "/bin/bash",
    ),
    (
        "Unable to find image 'x:latest' locally\ndocker: Error response from daemon: pull access "
        "denied for x\nSee 'docker run --help'.\n",
        "pull access denied",
    ),
    ("", "no reason given"),
    ("\n  something else\nlast\n", "something else"),
]


@pytest.mark.parametrize(("said", "words"), REASONS)
def test_the_reason_is_docker_s_own_first_line_and_never_its_last(said, words):
    reason = reason_in(said)
    assert words in reason
    assert "--help" not in reason
    assert "failed to start" not in reason


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ('could not select device driver "nvidia" with capabilities', "NVIDIA Container Toolkit"),
        ("unknown or invalid runtime name: nvidia", "NVIDIA Container Toolkit"),
        ("nvidia-container-cli: device error: 9: unknown device", "nvidia-smi -L"),
        ("invalid volume specification: '/a:b:/c'", "colon"),
        ("invalid mode: /workspace/inputs/", "colon"),
        ('invalid argument "x" for "--gpus" flag: invalid count', "device=0,1"),
        ('invalid argument "1q" for "-m, --memory" flag: invalid size', "as docker run takes it"),
    ],
)
def test_a_reason_that_is_this_machine_s_has_a_remedy_of_its_own(reason, words):
    assert words in machine_fix(f"Error response from daemon: {reason}")


def test_a_reason_in_the_image_is_not_taken_for_the_machine_s():
    for reason in ("unable to find user x", 'exec: "/x": no such file', "No command specified"):
        assert machine_fix(f"Error response from daemon: {reason}") is None


@pytest.mark.parametrize(
    ("given", "passed", "first"),
    [
        ("all", "all", "0"),
        ("2", "2", "0"),
        ("device=3", "device=3", "3"),
        ("device=0,1", '"device=0,1"', "0"),
        ('"device=2,1"', '"device=2,1"', "2"),
        ("device=GPU-a,GPU-b", '"device=GPU-a,GPU-b"', "GPU-a"),
        ("all,capabilities=utility", "all,capabilities=utility", "0"),
        ('all,"capabilities=compute,utility"', 'all,"capabilities=compute,utility"', "0"),
        ("device=1,2,capabilities=utility", '"device=1,2",capabilities=utility', "1"),
        ('capabilities=utility,"device=4,5"', 'capabilities=utility,"device=4,5"', "4"),
    ],
)
def test_gpus_are_passed_as_docker_reads_them_with_quotes_once(given, passed, first):
    assert gpus_argument(given) == passed
    assert first_device(given) == first


def test_verify_quotes_devices_as_profile_does(engine):
    engine.has(NEW, "team:latest")
    run = Run(mounts=(), conditions=Conditions(gpus="device=0,1"))
    DockerSandbox("team:latest").run(run)
    (created,) = [call for call in engine.calls if call[0] == "run"]
    assert created[created.index("--gpus") + 1] == '"device=0,1"'


def test_output_that_is_no_utf_8_is_read_with_replacements(engine):
    engine.has(NEW, "team:latest")
    engine.answers("run", out="\u5206\u5272\n".encode("gbk"), err=b"caf\xe9 \xff\n")
    outcome = DockerSandbox("team:latest").run(Run(mounts=()))
    assert outcome.exit_code == 0
    assert outcome.last_line.startswith("caf\ufffd")


@pytest.mark.long
def test_what_a_run_tried_last_is_counted_too(engine, monkeypatch):
    class Slow:
        def __init__(self, pid):
            assert pid == os.getpid()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def count(self):
            time.sleep(0.1)
            return 3

    engine.has(NEW, "team:latest")
    engine.lasts_until("inspect")  # until its start was heard of
    engine.answers("inspect", out=f"{os.getpid()}\n".encode())
    engine.answers(
        "events", out=b'{"Action":"start","timeNano":1}\n{"Action":"die","timeNano":2}\n'
    )
    monkeypatch.setattr("flarekit.containers.docker_run.NetworkTries", Slow)
    assert DockerSandbox("team:latest").run(Run(mounts=())).network_tries == 3


@pytest.mark.parametrize(
    ("life", "not_started"),
    [
        (b'{"Action":"start","timeNano":1}\n{"Action":"die","timeNano":2000000001}\n', False),
        (b'{"Action":"create","timeNano":1}\n', True),
        (b"", True),
    ],
)
def test_a_run_that_was_over_before_anybody_listened_is_told_from_one_that_did_not_start(
    engine, life, not_started
):
    engine.has(NEW, "team:latest")
    engine.answers("run", code=127, err=b"sh: 1: predikt: not found\n")
    engine.answers("events --until", out=life)
    outcome = DockerSandbox("team:latest").run(Run(mounts=()))
    assert (outcome.exit_code, bool(outcome.not_started)) == (127, not_started)
    assert not_started or outcome.seconds == 2.0


def test_an_event_that_is_cut_short_costs_nothing(engine):
    engine.has(NEW, "team:latest")
    engine.answers("events --since", out=b'{"Action":"create"}\n{"Action":"st')
    assert DockerSandbox("team:latest").run(Run(mounts=())).exit_code == 0


@pytest.mark.long
def test_a_signal_that_ended_the_run_is_noted_however_late_its_command_comes_back(
    engine, monkeypatch
):
    engine.has(NEW, "team:latest")
    engine.lasts_until("kill")
    engine.answers("inspect", out=f"{os.getpid()}\n".encode())
    engine.answers("events --since", out=b'{"Action":"start","timeNano":1}\n')
    engine.answers("events --until", out=b"")

    def comes_back_late(*words):
        answer = docker(*words)
        if words[0] == "kill":
            time.sleep(0.5)
        return answer

    monkeypatch.setattr("flarekit.containers.docker_run.docker", comes_back_late)
    run = Run(mounts=(), terminate_after_s=0.01)
    assert DockerSandbox("team:latest").run(run).stopped_after_s is not None


@pytest.mark.long
def test_nothing_goes_on_beside_a_run_that_is_over(engine):
    """Not even where the group that was found is there for longer than the container."""
    before = set(threading.enumerate())
    engine.has(NEW, "team:latest")
    engine.lasts_until("inspect")
    engine.answers("inspect", out=f"{os.getpid()}\n".encode())
    engine.answers("events", out=b'{"Action":"start","timeNano":1}\n')
    DockerSandbox("team:latest").run(Run(mounts=(), terminate_after_s=600.0))
    assert set(threading.enumerate()) <= before


def test_no_image_is_fetched_in_place_of_the_one_that_is_verified(engine):
    engine.has(NEW, "team:latest")
    DockerSandbox("team:latest").run(Run(mounts=()))
    (line,) = [call for call in engine.calls if call[0] == "run"]
    assert line[line.index("--pull") + 1] == "never"


def test_line_ends_of_what_docker_says_are_kept(engine):
    engine.answers("logs", out=b"one\r\ntwo\n")
    assert docker("logs", "x").stdout == "one\r\ntwo\n"


@pytest.mark.parametrize("code", [125, 126, 127])
def test_a_container_that_does_not_start_says_why_in_docker_s_words(engine, code):
    engine.has(NEW, "team:latest")
    engine.answers(
        "run",
        code=code,
        err=b"docker: Error response from daemon: unable to find user algorithm\n"
        b"Error: failed to start containers: x\n",
    )
    outcome = DockerSandbox("team:latest").run(Run(mounts=()))
    assert (
        outcome.not_started == "docker: Error response from daemon: unable to find user algorithm"
    )
    assert outcome.exit_code


def test_a_fault_of_this_machine_is_not_the_image_s(engine):
    engine.has(NEW, "team:latest")
    engine.answers(
        "run",
        code=125,
        err=b'docker: Error response from daemon: could not select device driver ""\n',
    )
    with pytest.raises(SandboxError, match="could not select device driver") as caught:
        DockerSandbox("team:latest").run(Run(mounts=()))
    assert "NVIDIA Container Toolkit" in caught.value.fix


@pytest.mark.long
def test_a_name_that_another_image_has_stays_where_it_is_when_a_tar_is_verified(
    engine, saved, caplog
):
    engine.has(NEW, "team:latest", "other:1")
    engine.loads(OLD, "team:latest")
    sandbox = DockerSandbox("team.tar", read_archive(saved("team:latest")))
    assert engine.names == {"team:latest": NEW, "other:1": NEW}
    assert "team:latest keeps naming another image here" in caplog.text
    sandbox.run(Run(mounts=()))
    (created,) = [call for call in engine.calls if call[0] == "run"]
    assert created[-1] == OLD
    sandbox.close()
    assert ["image", "rm", OLD] in engine.calls


@pytest.mark.long
def test_links_are_put_into_an_image_that_goes_by_its_id_through_a_name_for_the_time(engine, saved):
    engine.has(NEW, "team:latest")
    engine.loads(OLD, "team:latest")
    sandbox = DockerSandbox("team.tar", read_archive(saved("team:latest")))
    sandbox.run(Run(mounts=(), linked={"/input": "/mnt/input"}))
    (name,) = [each for each, owner in engine.names.items() if owner == OLD]
    assert name.startswith("flarekit-verify:")
    sandbox.close()
    assert ["image", "rm", "--force", name] in engine.calls


def test_every_name_in_a_tar_is_given_back_not_only_the_first(engine, saved):
    engine.has(NEW, "team:2")
    engine.loads(OLD, "team:latest", "team:2")
    DockerSandbox("team.tar", read_archive(saved("team:latest", "team:2"))).close()
    assert engine.names == {"team:latest": OLD, "team:2": NEW}
    assert ["image", "rm", OLD] not in engine.calls


def test_a_tar_without_names_has_none_though_the_engine_knows_the_image(engine, saved):
    engine.has(NEW, "team:latest")
    engine.loads(NEW)
    sandbox = DockerSandbox("team.tar", read_archive(saved()))
    assert sandbox.facts.names == ()


def test_a_tar_that_docker_refuses_is_named_with_docker_s_reason(engine, saved):
    engine.answers("image load", code=1, err=b"Error response from daemon: no space left\nend\n")
    with pytest.raises(InputError, match="no space left"):
        DockerSandbox("team.tar", read_archive(saved("team:latest")))


FULL = b"Error response from daemon: write /var/lib/docker/x: no space left on device\n"
GONE = b"Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n"


@pytest.mark.quick(2)
@pytest.mark.parametrize(("said", "words"), [(FULL, "make room"), (GONE, "start Docker")])
@pytest.mark.parametrize("command", ["load", "save", "tag", "inspect", "link"])
def test_a_fault_of_this_machine_has_its_own_remedy_in_every_command(
    engine, saved, tmp_path, command, said, words
):
    engine.has(NEW, "mine:2")
    request = SaveRequest(image="mine:2", path=tmp_path / "team.tar.gz", convention="flare")
    answered = "build" if command == "link" else f"image {command}"
    engine.answers(answered, code=1, err=said)
    acts = {
        "load": lambda: DockerSandbox("team.tar", read_archive(saved("team:latest"))),
        "link": lambda: DockerSandbox("mine:2").run(Run(mounts=(), linked={"/input": "/mnt"})),
    }
    with pytest.raises(FlarekitError) as caught:
        acts.get(command, lambda: save(request))()
    assert words in caught.value.fix


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
def test_every_compression_that_docker_loads_is_read(saved, ending):
    assert read_archive(saved("team:latest", ending=ending)).images[0].names == ("team:latest",)


def test_a_tar_of_an_ending_that_is_known_is_missing_and_not_an_image_s_name(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        verify(VerifyRequest(image=str(tmp_path / "none.tar.xz"), convention="flare"))


@pytest.mark.parametrize("code", [0, 1, 125])
def test_what_another_user_left_is_opened_as_root_inside(engine, tmp_path, code):
    engine.answers("run", code=code)
    assert open_up("team:latest", tmp_path) == (code == 0)
    (call,) = engine.calls
    assert call[call.index("--user") + 1] == "0"
    assert call[call.index("-v") + 1] == f"{tmp_path}:/opened"
    assert call[-3:] == ["team:latest", "-c", "chmod -R a+rwX /opened"]


def test_save_says_which_image_loses_its_name(engine, tmp_path):
    engine.has(OLD, "team:latest")
    engine.has(NEW, "mine:2")
    request = SaveRequest(image="mine:2", path=tmp_path / "team.tar.gz", convention="flare")
    saved = save(request)
    assert engine.names["team:latest"] == NEW
    (warning,) = saved.warnings
    assert "team:latest was another image" in warning
    assert "a" * 12 in warning


def test_save_says_nothing_where_no_name_moves(engine, tmp_path):
    engine.has(NEW, "mine:2")
    request = SaveRequest(image="mine:2", path=tmp_path / "team.tar.gz", convention="flare")
    assert save(request).warnings == ()
    assert save(request).warnings == ()
