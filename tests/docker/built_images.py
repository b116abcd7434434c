"""Images that several tests start from, built from this tree once, whichever test comes first."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from flarekit.containers.docker_command import docker as run
from flarekit.containers.docker_command import engine_fault, reason_in
from flarekit.images.build import BASE

ROOT = Path(__file__).parents[2]
HOST = ("--force-rm", "--network", "host")  # of builds that install packages
TAGS = {
    "flare": "flarekit:latest",
    "gc": "flarekit-gc:latest",
    "cpu": "flarekit:cpu",
    "gc-cpu": "flarekit-gc:cpu",
}
TOOLS = "flarekit-tests:tools"
TOOLS_DOCKERFILE = f"""
FROM {BASE}
RUN pip install --quiet --no-cache-dir numpy nibabel SimpleITK connected-components-3d
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /workspace
"""


@cache
def tools() -> str:
    """Build an image of what others' programs are written with here, and return its tag.

    It is a base for images that are broken on purpose: these do not wait for one of ours.
    """
    need_engine()
    with one_build(TOOLS), tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(TOOLS_DOCKERFILE)
        docker("build", *HOST, "-t", TOOLS, folder)
    return TOOLS


@cache
def built(target: str) -> str:
    """Build a target of the Dockerfile and return its tag; another process's build is waited for.

    What has been built before is found in Docker's cache.
    """
    need_engine()
    index = os.environ.get("TORCH_INDEX")
    extra = ["--build-arg", f"TORCH_INDEX={index}"] if index else []
    with one_build():
        docker("build", *HOST, "--target", target, *extra, "-t", TAGS[target], ROOT)
    return TAGS[target]


@contextmanager
def one_build(tag: str = "flarekit") -> Iterator[None]:
    """Wait for builds of other processes: side by side both would make the stages they share."""
    name = f"{tag.replace(':', '-')}-docker-build.lock"
    with (Path(tempfile.gettempdir()) / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove(image: str) -> None:
    """Remove an image; what further images share with it stays in Docker's cache.

    Other processes may be building on those very layers.
    """
    docker("image", "rm", "--force", "--no-prune", image)


def need_engine() -> None:
    """Skip the test where no Docker engine answers."""
    if (fault := engine_fault()) is not None:
        pytest.skip(fault)


def docker(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a docker command.

    Args:
        arguments: of it.
        check: whether the test goes wrong where the command fails, with what Docker has said.

    Raises:
        AssertionError: it failed, and was not expected to.
    """
    ended = run(*map(str, arguments))
    if check and ended.returncode:
        said = f"{ended.stdout[-3000:]}{ended.stderr[-3000:]}".strip()
        raise AssertionError(
            f"docker {' '.join(ended.args[1:])}: exit code {ended.returncode}: "
            f"{reason_in(ended.stderr)}\n{said}"
        )
    return ended


def size_of(image: str) -> int:
    """Return the size of an image, its base included, in bytes."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", image).stdout)
