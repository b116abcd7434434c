"""What the profiler's tests share: a GPU library of C, and the command line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import run as run_here
from tests.command import run_process

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def stub_folder(tmp_path_factory) -> Path:
    """Return a folder with a `libnvidia-ml.so.1` that plays a script."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the GPU library's stub")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run(
        [
            *(compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"),
            *("-Wl,-soname,libnvidia-ml.so.1", "-o", folder / "libnvidia-ml.so.1"),
            HERE / "nvml_stub.c",
        ],
        check=True,
    )
    return folder


@pytest.fixture
def stub(stub_folder, tmp_path):
    """Return a function: lines of a script -> environment in which the GPU plays them."""

    def play(*lines) -> dict[str, str]:
        script = tmp_path / "gpu.txt"
        script.write_text("".join(f"{line}\n" for line in lines))
        return {"LD_LIBRARY_PATH": str(stub_folder), "NVML_STUB": str(script)}

    return play


@pytest.fixture
def flarekit():
    """Return a function that runs `flarekit profile`."""

    def run(*arguments, environment=None):
        started = arguments[0] in ("run", "docker")  # what it starts has streams of its own
        return (run_process if started else run_here)("profile", *arguments, **(environment or {}))

    return run
