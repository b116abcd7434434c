"""The courses and densities of `anatomy.toml`, and how a phantom's own differ from them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from flarekit.phantom.geometry import Knot, Point

ANATOMY: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("anatomy.toml").read_text(encoding="utf-8")
)


def course(name: str, rng: np.random.Generator, swell: float = 1.0) -> list[Knot]:
    """Return the knots of a course in mm, shifted as it says, their radii times `swell`."""
    knots: list[Knot] = []
    for x, y, z, radius, *spread_mm in ANATOMY["courses"][name]:
        point: Point = shifted(rng, (x, y, z), *spread_mm) if spread_mm else (x, y, z)
        knots.append((*point, radius * swell))
    return knots


def shifted(rng: np.random.Generator, point: Point, spread_mm: float) -> Point:
    """A point moved at random by about `spread_mm` along each axis, at most twice that."""
    dx, dy, dz = np.clip(rng.normal(0.0, spread_mm, 3), -2 * spread_mm, 2 * spread_mm).tolist()
    return point[0] + dx, point[1] + dy, point[2] + dz
