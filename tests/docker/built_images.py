"""Images that several tests start from, built from this tree once, whichever test comes first."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TAGS = {
    "flare": "flarekit:latest",
    "gc": "flarekit-gc:latest",
    "cpu": "flarekit:cpu",
    "gc-cpu": "flarekit-gc:cpu",
}


@cache
def built(target: str) -> str:
    """Build a target of the Dockerfile and return its tag; another process's build is waited for.

    What has been built before is found in Docker's cache.
    """
    if shutil.which("docker") is None or docker("info").returncode:
        pytest.skip("no Docker engine")
    index = os.environ.get("TORCH_INDEX")
    extra = ["--build-arg", f"TORCH_INDEX={index}"] if index else []
    with (Path(tempfile.gettempdir()) / "flarekit-docker-build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build = docker(
            "build", "--network", "host", "--target", target, *extra, "-t", TAGS[target], ROOT
        )
    assert build.returncode == 0, build.stdout[-3000:] + build.stderr[-3000:]
    return TAGS[target]


def docker(*arguments) -> subprocess.CompletedProcess[str]:
    """Run a docker command."""
    return subprocess.run(
        ["docker", *map(str, arguments)], text=True, capture_output=True, check=False
    )
