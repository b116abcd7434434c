"""A build that fails is told with the remedy that fits, whichever builder and tool said why."""

from __future__ import annotations

import pytest

from flarekit.images.build import BuildError, BuildRequest, build
from flarekit.images.build_faults import build_fix
from tests.containers.fake_docker import FakeDocker

PIP = """\
Step 4/64 : RUN python -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==0.13.*"
 ---> Running in 0d9b1c2f6d4e
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(': Failed to \
establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/uv/
ERROR: Could not find a version that satisfies the requirement uv==0.13.* (from versions: none)
ERROR: No matching distribution found for uv==0.13.*
The command '/bin/sh -c python -m venv /opt/uv' returned a non-zero code: 1
"""
UV = """\
 > [compile 2/9] RUN uv pip install "torch==2.13.0":
0.412 error: Failed to fetch: `https://pypi.org/simple/torch/`
0.412   Caused by: error sending request for url (https://pypi.org/simple/torch/)
0.412   Caused by: dns error
ERROR: failed to solve: process "/bin/sh -c uv pip install" did not complete successfully: exit \
code: 2
"""
CASES = {
    "full_disk_of_the_daemon": (
        "Step 9/64 : COPY flarekit flarekit\n"
        "Error processing tar file(exit status 1): write /flarekit/web/x: no space left on device",
        "docker system df",
    ),
    "full_disk_of_pip": (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "docker system df",
    ),
    "full_disk_of_buildkit": (
        "ERROR: failed to solve: failed to copy: write /var/lib/docker/x: no space left on device",
        "docker system df",
    ),
    "quota": ("cp: error writing '/own/x': Disk quota exceeded", "docker system df"),
    "no_daemon": (
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon "
        "running?",
        "start Docker",
    ),
    "not_allowed": (
        "permission denied while trying to connect to the Docker daemon socket",
        "start Docker",
    ),
    "daemon_that_went_away": ("error during connect: Post http://docker: EOF", "start Docker"),
    "network_of_pip": (PIP, "needs a network for packages"),
    "network_of_uv": (UV, "needs a network for packages"),
    "network_of_apt": ("E: Unable to locate package g++", "needs a network for packages"),
    "no_such_network": ("network bridge not found", "such as host"),
    "own_certificates": (
        "error: invalid peer certificate: UnknownIssuer",
        "certificates of its own",
    ),
    "no_such_release": (
        "  x No solution found when resolving dependencies:\n  there is no version of torch==9.0",
        "--torch-index",
    ),
    "no_such_base": (
        "Step 1/64 : FROM nothing:1 AS python\npull access denied for nothing, repository does "
        "not exist or may require 'docker login': denied",
        "docker image ls",
    ),
    "no_such_tag": (
        "manifest for python:3.99 not found: manifest unknown: manifest unknown",
        "docker pull",
    ),
    "no_registry": (
        'Get "https://registry.example.org/v2/": dial tcp: lookup registry.example.org: no such '
        "host",
        "the base image cannot be fetched",
    ),
    "too_many_pulls": ("toomanyrequests: You have reached your pull rate limit", "docker login"),
    "base_without_python": ("/bin/sh: 1: python: not found", "Python 3.11"),
    "base_with_another_python": (
        "cp: cannot stat 'opt/flarekit/lib/python3.11/site-packages/flarekit*': No such file",
        "Python 3.11",
    ),
    "base_for_another_processor": ("exec /bin/sh: exec format error", "linux/amd64"),
    "killed": ("The command '/bin/sh -c uv' returned a non-zero code: 137", "for memory"),
    "no_buildx": (
        "ERROR: BuildKit is enabled but the buildx component is missing or broken.",
        "DOCKER_BUILDKIT=0",
    ),
    "anything_else": ("torch 2.0 is built without CUDA, and this is for a GPU", "these lines end"),
    "nothing": ("", "these lines end"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_remedy_is_that_of_the_fault(name):
    said, words = CASES[name]
    assert words in build_fix(said.splitlines())


def test_what_an_earlier_step_said_in_passing_is_not_the_fault():
    earlier = "Step 3/64 : RUN apt-get update\nWarning: connection timed out, trying another mirror"
    later = "Step 4/64 : COPY predict.sh ./\nCOPY failed: no space left on device"
    assert "docker system df" in build_fix(f"{earlier}\n{later}".splitlines())
    assert "these lines end" in build_fix([*earlier.splitlines(), "Step 4/64 : RUN x", "odd"])


@pytest.mark.parametrize("kind", ["full_disk_of_the_daemon", "no_such_base", "network_of_pip"])
def test_the_command_says_why_in_docker_s_words_and_what_to_do(toy, tmp_path, monkeypatch, kind):
    said, words = CASES[kind]
    engine = FakeDocker(tmp_path / "bin")
    engine.answers("build", code=1, out=said.encode())
    monkeypatch.setenv("PATH", engine.path)
    request = BuildRequest(predictor=str(toy.folder), convention="flare", tag="team")
    with pytest.raises(BuildError, match="docker build failed") as caught:
        build(request)
    assert said.splitlines()[-1] in caught.value.message
    assert words in caught.value.fix
