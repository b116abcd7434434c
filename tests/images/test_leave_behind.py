"""What images leave behind: lists of packages and of files, and the script that removes files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from flarekit import conventions
from flarekit.verification.trials import TaskFacts

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "flarekit" / "images" / "docker"
LISTS = sorted(DOCKER.glob("*.txt"))


def run(patterns, folder):
    listed = folder.parent / "list.txt"
    listed.write_text(patterns)
    return subprocess.run(
        [sys.executable, DOCKER / "leave_behind.py", listed, folder],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def packages(tmp_path):
    folder = tmp_path / "site-packages"
    for name in ("a/tests/test_a.py", "a/code.py", "a/include/a.h", "b/tests/deep/tests/t.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x" * 2**20)
    return folder


def test_what_a_list_names_goes_and_nothing_else(packages):
    result = run("# headers\na/include  # of a\n\n**/tests\n", packages)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "left behind: 3 MiB\n"
    assert [path.name for path in packages.rglob("*") if path.is_file()] == ["code.py"]


def test_a_pattern_that_matches_nothing_fails_the_build(packages):
    result = run("a/inclde\n", packages)
    assert result.returncode == 1
    assert "a/inclde matches nothing" in result.stderr


@pytest.mark.parametrize("pattern", ["../list.txt", "/etc/*", "a/../../list.txt"])
def test_nothing_outside_the_folder_can_be_named(packages, pattern):
    result = run(f"{pattern}\n", packages)
    assert result.returncode == 1
    assert "relative" in result.stderr
    assert (packages.parent / "list.txt").exists()


def test_a_link_goes_without_what_it_leads_to(packages):
    (packages / "a" / "linked").symlink_to(packages / "b")
    assert run("a/linked\n", packages).returncode == 0
    assert (packages / "b" / "tests").is_dir()


def test_the_names_for_debuggers_go_from_a_library_that_still_loads(packages):
    library = find_spec("_ctypes").origin
    copy = packages / "a" / "_ctypes.so"
    shutil.copy(library, copy)
    with copy.open("ab") as file:
        file.write(b"names" * 1000)  # behind what is loaded
    before = copy.stat().st_size
    result = run("symbols: a/*.so\n", packages)
    assert result.returncode == 0, result.stderr
    assert before - copy.stat().st_size >= 5000
    loading = (
        "import importlib.machinery as m, importlib.util as u;"
        f"l = m.ExtensionFileLoader('_ctypes', {str(copy)!r});"
        "u.module_from_spec(u.spec_from_loader('_ctypes', l)).CFuncPtr"
    )
    subprocess.run([sys.executable, "-c", loading], check=True)


def test_symbols_of_what_is_no_library_are_an_error(packages):
    result = run("symbols: a/code.py\n", packages)
    assert result.returncode == 1
    assert "is not a library" in result.stderr


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_every_list_says_what_it_is_for(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert [line for line in lines if line and not line.startswith("#")]


def listed(name):
    lines = (DOCKER / name).read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


@pytest.mark.parametrize(
    "name",
    [
        "autopet.packages.txt",
        "compile.packages.txt",
        "cpu.packages.txt",
        "flare.packages.txt",
        "flare_recist.packages.txt",
        "uls23.packages.txt",
    ],
)
def test_a_package_left_behind_is_one_that_would_be_installed(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.match(r"[\w.-]+", each)[0].lower() for each in project["dependencies"]}
    assert listed(name) <= named


def test_lists_of_a_convention_s_packages_are_named_like_it():
    stems = {path.name.removesuffix(".packages.txt") for path in LISTS if "packages" in path.name}
    assert stems - {"cpu", "cuda", "compile"} <= set(conventions.names())


CASES = """
import sys
from pathlib import Path
sys.modules["SimpleITK"] = None  # its import fails, as where it was left behind
import numpy as np
from flarekit import conventions
from flarekit.verification.trials import TaskFacts
name, channels, inputs, outputs = sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:])
convention = conventions.get(name, {})
for case in convention.find_cases(inputs, channels):
    geometry = convention.read_case(case)[0].geometry
    outputs.mkdir(exist_ok=True)
    convention.write_mask(case, np.ones(geometry.shape_ZYX, np.uint8), geometry, outputs)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "name", sorted(path.name.split(".")[0] for path in DOCKER.glob("[!c]*.packages.txt"))
)
def test_a_convention_s_cases_need_nothing_that_its_images_leave_behind(name, tmp_path):
    assert listed(f"{name}.packages.txt") == {"simpleitk"}
    (tmp_path / "inputs").mkdir()
    task = TaskFacts(values=frozenset({0, 1}), settings={})
    conventions.checks_of(name).write_sample(tmp_path / "inputs", task)
    channels = {"autopet": 2}.get(name, 1)
    result = subprocess.run(
        [sys.executable, "-c", CASES, name, str(channels), tmp_path / "inputs", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_list_for_a_gpu_names_no_library_that_pytorch_opens_later():
    needed = ("cudnn", "nvrtc", "cublas", "cusolver.", "cufft.", "nccl", "cusparse", "nvJitLink")
    named = [line for line in listed("torch.files.txt") if ".so" in line and ":" not in line]
    assert named
    assert [line for line in named if any(f"lib{name}" in line for name in needed)] == []


def test_the_dockerfile_reads_no_file_of_the_project_by_itself():
    """What is installed is for the installer to find out."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "tomllib" not in dockerfile
    assert dockerfile.count("uv pip install -r pyproject.toml") == 3
