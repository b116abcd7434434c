"""What others reached on other hardware."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, kw_only=True)
class ReferenceCase:
    """A published case; memory in the paper's MB, time in seconds."""

    source: str
    hardware: str
    name: str
    shape_XYZ: tuple[int, int, int]
    time_s: float
    max_gpu_mib: float
    gpu_area_mib_s: float


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A published result, in its authors' words."""

    source: str
    hardware: str
    accuracy: str
    time: str
    gpu: str


@dataclass(frozen=True, kw_only=True)
class References:
    """All that is known."""

    cases: tuple[ReferenceCase, ...]
    anchors: tuple[Anchor, ...]


def references() -> References:
    """Read the references that come with flarekit."""
    text = files("flarekit.profiler").joinpath("reference.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    return References(
        cases=tuple(
            ReferenceCase(**{**entry, "shape_XYZ": tuple(entry["shape_XYZ"])})
            for entry in content["case"]
        ),
        anchors=tuple(Anchor(**entry) for entry in content["anchor"]),
    )
