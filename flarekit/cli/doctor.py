"""`flarekit doctor`: what this machine and this installation can do, found out by doing it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import typer

from flarekit.core.extras import how_to_install

if TYPE_CHECKING:
    from flarekit.models.selective_scan import Backend

State = Literal["ok", "absent", "broken"]
_MARKS = {"ok": "+", "absent": "-", "broken": "!"}
_FACTS: dict[str, Any] = {
    "channels": [{"name": "MR", "intensity": {"kind": "z_score"}}],
    "grid": {"spacing_mm_ZYX": [1.0, 1.0, 1.0], "tile_ZYX": [8, 16, 16]},
    "labels": {"anything": 1},
}
_CPU_SCANS: tuple[Backend, ...] = ("reference", "chunked")
_EXTRAS = {
    "surface_distance": "evaluation",
    "matplotlib": "picture",
    "highdicom": "dicom",
    "nnunetv2": "train",
    "monai": "peers",
    "gcapi": "submit",
    "fastapi": "serve",
    "ray": "cluster",
    "pyarrow": "statistics",
    "mamba_ssm": "mamba",
}


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at.

    Attributes:
        topic: what it belongs to.
        what: its name.
        state: `ok`; `absent` where it is optional and not there; `broken` where it is there and
            does not work.
        found: what was found, in words.
    """

    topic: str
    what: str
    state: State
    found: str


def doctor(
    as_json: bool = False,
) -> None:
    """Show what is installed and works: engines, GPUs, Docker, extras, caches, predictors.

    Everything that computes is really run on a few voxels. The exit code is 1 where something that
    is here does not work; optional things that are missing are not a fault.
    """
    found = []
    for each in diagnoses():
        found.append(each)
        if not as_json:
            typer.echo(f"{_MARKS[each.state]} {each.topic:10} {each.what:22} {each.found}")
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    broken = [each for each in found if each.state == "broken"]
    if broken:
        typer.echo(f"{len(broken)} of these do not work, see the lines with '!'", err=True)
        raise typer.Exit(1)


def diagnoses() -> Iterator[Diagnosis]:
    """Yield what is found, topic by topic, as it is found."""
    yield from _machine()
    yield from _engines()
    yield from _gpus()
    yield from _containers()
    yield from _extras()
    yield from _folders()
    yield from _predictors()


def _machine() -> Iterator[Diagnosis]:
    from flarekit.engine._cpu import cpu_has_bf16
    from flarekit.profiler.environment import environment

    facts = environment("0")
    for name in ("flarekit", "python", "system", "cpu", "cores", "ram_mib"):
        yield Diagnosis("machine", name, "ok", facts[name])
    bf16 = "bf16 and fp32" if cpu_has_bf16() else "fp32; bf16 is not in this processor"
    yield Diagnosis("machine", "precisions", "ok", bf16)


def _engines() -> Iterator[Diagnosis]:
    from flarekit import engine

    for name in engine.names():
        yield _engine(name, "cpu")
    if find_spec("torch") is not None:
        yield from _scans("cpu", _CPU_SCANS)


def _engine(name: str, device: str) -> Diagnosis:
    """Segment a few voxels by an engine."""
    what = name if device == "cpu" else f"{name} on {device}"
    if find_spec(name) is None:
        return Diagnosis("engine", what, "absent", f"pip install {name}")
    if find_spec("torch") is None:
        return Diagnosis("engine", what, "ok", "installed; not tried, since torch is not")
    import numpy as np
    import torch

    import flarekit

    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    try:
        with flarekit.load(module=network, facts=_FACTS, engine=name, device=device) as segmenter:
            facts = segmenter.facts
            scan_ZYX = np.arange(9 * 20 * 20, dtype=np.float32).reshape(9, 20, 20)
            segmenter.segment(scan_ZYX, spacing_mm=(1.0, 1.0, 1.0))
    except Exception as error:  # noqa: BLE001 - whatever is wrong is the diagnosis
        return Diagnosis("engine", what, "broken", f"{type(error).__name__}: {error}")
    runs = f"{version(name)} runs in {facts.precision} on {facts.device_name}"
    return Diagnosis("engine", what, "ok", runs)


def _gpus() -> Iterator[Diagnosis]:
    from flarekit.engine._cuda_driver import driver_fault, installed_driver

    driver = installed_driver()
    if driver is None:
        yield Diagnosis("gpu", "NVIDIA driver", "absent", "none answers")
        return
    if find_spec("torch") is None:
        yield Diagnosis("gpu", "NVIDIA driver", "ok", f"{driver}; torch is not installed")
        return
    import torch

    from flarekit.models.selective_scan import BACKENDS

    built_for = torch.version.cuda
    if built_for is None:
        yield Diagnosis("gpu", "NVIDIA driver", "broken", f"{driver}, but torch has no CUDA in it")
        return
    fault = driver_fault(driver, built_for)
    state: State = "ok" if fault is None else "broken"
    yield Diagnosis("gpu", "NVIDIA driver", state, fault or f"{driver}, torch for CUDA {built_for}")
    if fault is not None:
        return
    for index in range(torch.cuda.device_count()):
        yield _engine("torch", f"cuda:{index}")
        yield from _scans(f"cuda:{index}", BACKENDS)


def _scans(device: str, backends: Iterable[Backend]) -> Iterator[Diagnosis]:
    """Run a small selective scan by each backend."""
    import torch

    from flarekit.models.selective_scan._proof import fault_of

    for name in backends:
        fault = fault_of(name, torch.device(device))
        state: State = "ok" if fault is None else "absent"
        yield Diagnosis("scan", f"{name} on {device}", state, fault or "agrees with the reference")


def _containers() -> Iterator[Diagnosis]:
    from flarekit.containers import process
    from flarekit.containers.docker_command import engine_fault

    for name, fault in (("Docker", engine_fault()), ("process sandbox", process.available())):
        yield Diagnosis("container", name, "absent" if fault else "ok", fault or "works")


def _extras() -> Iterator[Diagnosis]:
    for package, extra in _EXTRAS.items():
        here = find_spec(package) is not None
        found = "installed" if here else how_to_install(extra)
        yield Diagnosis("extra", extra, "ok" if here else "absent", found)


def _folders() -> Iterator[Diagnosis]:
    from flarekit.segmentation.predictors import cache_folder
    from flarekit.segmentation.state import state_folder

    for what, folder in (("cache", cache_folder()), ("ledgers of runs", state_folder())):
        if folder is None or not folder.is_dir():
            why = "none is kept" if folder is None else f"{folder} is not there yet"
            yield Diagnosis("folder", what, "absent", why)
            continue
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        yield Diagnosis("folder", what, "ok", f"{folder}, {size / 2**20:.0f} MiB")


def _predictors() -> Iterator[Diagnosis]:
    from flarekit.core.errors import FlarekitError
    from flarekit.segmentation.predictors import (
        find_predictor,
        hash_state,
        needs_trust,
        predictor_folders,
    )

    for folder in predictor_folders():
        try:
            predictor = find_predictor(str(folder))
            state = hash_state(predictor)
        except FlarekitError as error:
            yield Diagnosis("predictor", folder.name, "broken", error.message)
            continue
        found = f"{predictor.spec.weights.sha256[:12]}, {predictor.spec.title}"
        found += "; needs --trust" if needs_trust(predictor) else ""
        if state == "ok":
            yield Diagnosis("predictor", folder.name, "ok", found)
        else:
            yield Diagnosis("predictor", folder.name, "broken", f"its weights are {state}")
