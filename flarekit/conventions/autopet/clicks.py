"""Clicks and scribbles of autoPET IV and V: read from JSON.

`{"type": "Multiple points", "points": [{"point": [x, y, z], "name": "tumor"}, ...]}`; indices of
voxels, x first. A scribble is a row of such points.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Points
from flarekit.conventions._platform_images import read_json
from flarekit.core.errors import InputError

TUMOR, BACKGROUND = "tumor", "background"
_SHOWN = 40  # characters of a name


def read_clicks(path: Path, shape_ZYX: tuple[int, int, int]) -> tuple[Points, tuple[str, ...]]:
    """Read the clicks of a file.

    Clicks outside the volume and entries that are not points are left out; the notes count them.

    Args:
        path: the JSON file.
        shape_ZYX: of the volume that was clicked in.

    Returns:
        Name -> (N, 3) int64 indices (z, y, x) in the file's order, and what was odd.

    Raises:
        InputError: the file cannot be read, is not JSON, or holds no list of points.
    """
    content = read_json(path)
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list):
        raise InputError(
            f'{path}: has no list "points"', fix='write {"type": "Multiple points", "points": []}'
        )
    found: dict[str, list[tuple[int, int, int]]] = {}
    outside, malformed = 0, 0
    for entry in points:
        parsed = _parsed(entry)
        if parsed is None:
            malformed += 1
            continue
        name, (x, y, z) = parsed
        if all(0 <= at < n for at, n in zip((z, y, x), shape_ZYX, strict=True)):
            found.setdefault(name, []).append((z, y, x))
        else:
            outside += 1
    notes = []
    if outside:
        notes.append(f"{outside} of {len(points)} points lie outside the volume and are left out")
    if malformed:
        notes.append(f"{malformed} of {len(points)} points are malformed and are left out")
    clicks = {name: np.array(places, np.int64) for name, places in found.items()}
    return clicks, tuple(notes)


def of_known_kinds(clicks: Points) -> tuple[Points, tuple[str, ...]]:
    """Return the clicks on tumor and on background, and how many are of neither.

    Names are the organiser's in whatever case they are written; other clicks show nothing that a
    network knows.
    """
    found: dict[str, list[NDArray[np.int64]]] = {}
    others = dict[str, int]()
    for name, places in clicks.items():
        kind = name.strip().lower()
        if kind in (TUMOR, BACKGROUND):
            found.setdefault(kind, []).append(places)
        else:
            others[name] = len(places)
    known = {kind: np.concatenate(places) for kind, places in found.items()}
    if not others:
        return known, ()
    note = (
        f"{sum(others.values())} points are named neither {TUMOR} nor {BACKGROUND} "
        f"({next(iter(others))[:_SHOWN]!r}) and are left out"
    )
    return known, (note,)


def _parsed(entry: object) -> tuple[str, tuple[int, int, int]] | None:
    """Return a point's name and the voxel (x, y, z) that it lies in."""
    if not isinstance(entry, dict):
        return None
    point = entry.get("point")
    if not isinstance(point, list) or len(point) != 3:
        return None
    if not all(type(at) in (int, float) and abs(at) < 2**31 for at in point):  # no bool
        return None
    x, y, z = (int(np.floor(at + 0.5)) for at in point)
    return str(entry.get("name", "")), (x, y, z)


def none_set(clicks: Points, name: str) -> NDArray[np.int64]:
    """Return the clicks of a name, (0, 3) where there are none."""
    return clicks.get(name, np.zeros((0, 3), np.int64))
