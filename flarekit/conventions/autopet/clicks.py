"""Clicks and scribbles of autoPET IV and V: read from JSON, drawn as channels.

`{"type": "Multiple points", "points": [{"point": [x, y, z], "name": "tumor"}, ...]}`; indices of
voxels, x first. A scribble is a row of such points. Heat maps are those of the organisers' nnU-Net
baseline: a Gaussian of three voxels around every voxel that was clicked, each voxel once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Points
from flarekit.conventions._platform_images import read_json
from flarekit.core.errors import InputError

TUMOR, BACKGROUND = "tumor", "background"


def read_clicks(path: Path, shape_ZYX: tuple[int, int, int]) -> tuple[Points, tuple[str, ...]]:
    """Read the clicks of a file.

    Clicks outside the volume and entries that are no points are left out; the notes count them.

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


def heat_map(
    places_ZYX: NDArray[np.int64], shape_ZYX: tuple[int, int, int], sigma_voxels: float
) -> NDArray[np.float32]:
    """Draw clicks as a heat map.

    Equals `scipy.ndimage.gaussian_filter` of a volume that is 1 in every clicked voxel, which
    reflects at the volume's faces; only the surroundings of the clicks are computed.

    Args:
        places_ZYX: (N, 3) indices inside the volume; the same voxel counts once.
        shape_ZYX: of the result.
        sigma_voxels: of the Gaussian; 0 marks the voxels themselves.
    """
    from scipy.ndimage import gaussian_filter1d

    drawn = np.zeros(shape_ZYX, np.float32)
    profiles: dict[tuple[int, int], tuple[slice, NDArray[np.float64]]] = {}
    for place in np.unique(places_ZYX, axis=0):
        if sigma_voxels == 0:
            drawn[tuple(place)] = 1
            continue
        parts = []
        for axis, (at, length) in enumerate(zip(place.tolist(), shape_ZYX, strict=True)):
            if (axis, at) not in profiles:
                impulse = np.zeros(length)
                impulse[at] = 1
                profile = gaussian_filter1d(impulse, sigma_voxels)
                reach = np.flatnonzero(profile)
                where = slice(int(reach[0]), int(reach[-1]) + 1)
                profiles[axis, at] = where, profile[where]
            parts.append(profiles[axis, at])
        (z, of_z), (y, of_y), (x, of_x) = parts
        drawn[z, y, x] += of_z[:, None, None] * of_y[:, None] * of_x
    return drawn
