"""Small things that several tests need: a predictor with a tiny network, a scan on disk."""

from __future__ import annotations

import atexit
import fcntl
import functools
import gc
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import typer.main
import typer.testing
from hypothesis import HealthCheck, settings

from flarekit import models
from flarekit.core.files import sha256_of
from flarekit.core.spec import PredictorFolder, read_spec
from tests.still_clock import StillClock, still_clock

# a busy machine takes long to draw an input, or to run one example, which says nothing about the
# code under test
settings.register_profile(
    "busy", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
)
settings.load_profile("busy")

SHARED = Path(__file__).parents[2] / "shared"

TOY = """
name = "toy"
title = "two labels, random weights"
convention = "flare"

[architecture]
name = "nnunet"

[architecture.arguments]
input_channels = {channels}
n_stages = 2
features_per_stage = [4, 8]
kernel_sizes = [[3, 3, 3], [3, 3, 3]]
strides = [[1, 1, 1], [2, 2, 2]]
n_conv_per_stage = [1, 1]
num_classes = 3
n_conv_per_stage_decoder = [1]

{channel_tables}

[grid]
spacing_mm_ZYX = [2.0, 2.0, 2.0]
tile_ZYX = [8, 16, 16]
step = 0.5

[labels]
organ = 1
lesion = 4

[[rules]]
name = "largest_component"
labels = ["organ"]

[weights]
file = "model.safetensors"
sha256 = "{sha256}"
parameters = {parameters}
"""

CHANNEL = """
[[channels]]
name = "CT"
intensity = { kind = "window", low_hu = -200, high_hu = 300, mean = 0, std = 100 }
"""


MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30  # bytes in memory that tests never fill


def pytest_configure(config: pytest.Config) -> None:
    """Keep the folders of tests in memory where there is room: on a disk, removing one takes 3 ms.

    Those of container tests stay on disk: what a container writes there would be its own memory.
    """
    in_containers = "docker" in config.option.markexpr.replace("not docker", "")
    if not in_containers and "TMPDIR" not in os.environ and _has_room(MEMORY):
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # which is asked for again


def _has_room(folder: Path) -> bool:
    """Tell whether files of tests fit into a folder and may be run there."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return False
    may_run = not state.f_flag & os.ST_NOEXEC
    return may_run and os.access(folder, os.W_OK) and state.f_bavail * state.f_frsize >= ROOM


REST_OF = {"quick": pytest.mark.long, "long": pytest.mark.slow}  # what the others become


@pytest.hookimpl(tryfirst=True)  # before markers choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make `long` what `quick(count)` leaves over of a test's parameters, and so on to `slow`."""
    alike: dict[tuple[str, Path, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("cluster") is not None:
            item.add_marker(pytest.mark.xdist_group("Ray"))  # one process: one Ray at a time
        for name in REST_OF:
            marker = item.get_closest_marker(name)
            if marker is not None and marker.args and item.get_closest_marker("slow") is None:
                key = (name, item.path, item.nodeid.split("[")[0])
                alike.setdefault(key, []).append(item)
    for (name, _, _), group in alike.items():
        marker = group[0].get_closest_marker(name)
        assert marker is not None
        for index in set(range(len(group))) - spread_over(len(group), *marker.args):
            group[index].add_marker(REST_OF[name])


def spread_over(length: int, count: int) -> set[int]:
    """Return so many indices, from the first to the last; all where there are no more."""
    if count >= length:
        return set(range(length))
    return {round(index * (length - 1) / max(1, count - 1)) for index in range(count)}


gc.disable()  # until all tests are collected: what is imported and found stays


def pytest_collection_finish() -> None:
    """Spare every test what takes long only because there are thousands of tests.

    The collector of garbage looks at what tests make. What PyTorch logs goes to the root logger:
    pytest hangs its handlers onto every logger that keeps its records, six times a test.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)  # then all is taken down as usual
    gc.enable()
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch") and isinstance(logger, logging.Logger):
            logger.propagate = True


@pytest.fixture(scope="session", autouse=True)
def _commands_made_once() -> Iterator[None]:
    """Make the tree of commands once; Typer makes it for every call."""
    made = functools.cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", made)
        patch.setattr("typer.testing._get_command", made)
        yield


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Read only files that have tests with one of the markers that `-m` asks for.

    That takes a third of the time, and a machine with a GPU may lack packages that other tests
    need. Pytest asks further where this returns None.
    """
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    wanted = asked_for(config.option.markexpr)
    if not wanted or not is_test:
        return None
    text = collection_path.read_text(encoding="utf-8")
    return None if any(f"mark.{name}" in text for name in wanted) else True


def asked_for(expression: str) -> set[str]:
    """Return the markers of which a test has to have one; none where others will do too.

    A marker that makes others is among them: `quick` makes tests `long`, which makes them `slow`.
    """
    if "not (" in expression:
        return set()
    names = set(re.findall(r"\w+", re.sub(r"\bnot \w+", "", expression))) - {"and", "or"}
    makers = {"long": {"quick"}, "slow": {"quick", "long"}}
    return names.union(*(makers.get(name, set()) for name in names))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a GPU where there is none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real scans, or skip."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real scans are kept outside the repository and are not here")
    return SHARED


@functools.cache
def toy_files(channels: int) -> tuple[bytes, str]:
    """Return the weights and the facts of a predictor with a tiny random network."""
    import torch

    torch.manual_seed(3)
    network = models.create(
        "nnunet",
        input_channels=channels,
        n_stages=2,
        features_per_stage=[4, 8],
        kernel_sizes=[[3, 3, 3]] * 2,
        strides=[[1, 1, 1], [2, 2, 2]],
        n_conv_per_stage=[1, 1],
        num_classes=3,
        n_conv_per_stage_decoder=[1],
    )
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        models.save_weights(network, weights, dtype=torch.float32)
        facts = TOY.format(
            channels=channels,
            channel_tables=CHANNEL * channels,
            sha256=sha256_of(weights),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
        )
        return weights.read_bytes(), facts


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[..., PredictorFolder]:
    """Return a function that makes a predictor folder with a tiny random network."""

    def make(channels: int = 1) -> PredictorFolder:
        weights, facts = toy_files(channels)
        folder = tmp_path / "weights" / "toy"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "predictor.toml").write_text(facts)
        return read_spec(folder)

    return make


@pytest.fixture
def located_toy(toy: PredictorFolder) -> PredictorFolder:
    """Return the toy predictor with a locator: the same network, on a grid twice coarser."""
    folder = toy.folder / "locator"
    folder.mkdir()
    text = (toy.folder / "predictor.toml").read_text()
    coarse = text.replace('name = "toy"', 'name = "toy_locator"').replace("2.0", "4.0")
    (folder / "predictor.toml").write_text(coarse)
    (folder / "model.safetensors").write_bytes(toy.weights.read_bytes())
    facts = f'\n[locator]\nsha256 = "{toy.spec.weights.sha256}"\n'
    (toy.folder / "predictor.toml").write_text(text + facts)
    return read_spec(toy.folder)


@pytest.fixture(scope="session")
def common(tmp_path_factory) -> Path:
    """Return a folder that all processes of one test run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "common"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def made_once(common) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that has something made once for all processes, and says where it is."""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        path = common / name
        with (common / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                make(common / f"{name}.part")
                (common / f"{name}.part").rename(path)
        return path

    return made


@pytest.fixture(autouse=True)
def _torch_by_default(request, monkeypatch, common):
    """Keep compiled networks and ledgers out of the user's; toy networks need no compiling."""
    monkeypatch.setenv("FLAREKIT_CACHE", str(common / "cache"))
    monkeypatch.setenv("FLAREKIT_STATE", str(common / "state"))
    if request.node.get_closest_marker("docker") is None:
        monkeypatch.setenv("FLAREKIT_ENGINE", "torch")
        monkeypatch.setattr("flarekit.engine.choose_engine", lambda _device: "torch")


@pytest.fixture
def openvino_by_default(_torch_by_default, monkeypatch):
    """Compute with what users have on a CPU; PyTorch takes several times as long there."""
    monkeypatch.setenv("FLAREKIT_ENGINE", "openvino")
    monkeypatch.setattr("flarekit.engine.choose_engine", lambda _device: "openvino")


@pytest.fixture(autouse=True)
def _plain_logging(monkeypatch):
    """Undo what a command of an earlier test did to the package's logger."""
    logger = logging.getLogger("flarekit")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    if logger.level != logging.NOTSET:  # setting it goes through all loggers
        logger.setLevel(logging.NOTSET)


@pytest.fixture
def still() -> Iterator[StillClock]:
    """Let nothing but sleep take time: what this machine does besides does not matter."""
    with still_clock() as clock:
        yield clock


@pytest.fixture
def toy(make_toy: Callable[..., PredictorFolder]) -> PredictorFolder:
    """Return a one-channel predictor folder with a tiny random network."""
    return make_toy()


@pytest.fixture
def write_scan() -> Callable[..., Path]:
    """Return a function that writes an int16 NIfTI scan, voxels indexed (Z, Y, X)."""

    def write(path: Path, voxels_ZYX: Any = None, affine: Any = None) -> Path:
        if voxels_ZYX is None:
            voxels_ZYX = np.random.default_rng(0).integers(-200, 300, (9, 20, 14))
        affine = np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine
        image = nibabel.Nifti1Image(np.asarray(voxels_ZYX).astype(np.int16).T, affine)
        nibabel.save(image, path)
        return path

    return write
