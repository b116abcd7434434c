"""Whether a mask lies where it should: on the uptake, and changed where somebody has clicked."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.autopet import samples
from flarekit.verification.check import PASS, Finding, fail, skip

_NEAR_MM = 15.0  # a change belongs to a click that lies so near to any of its voxels
_MOST = 0.5  # share of the changed voxels
_FEW_VOXELS = 5
_MIRRORED = 2  # lesions at least that only a mirrored mask holds

Bools = NDArray[np.bool_]


def on_lesions(mask_ZYX: Bools | None) -> Finding:
    """Judge whether a mask of the sample lies on its hot lesions only when mirrored."""
    if not _fits(mask_ZYX):
        return skip("there is no mask of the PET's shape")
    flips = [axes for count in range(4) for axes in combinations(range(3), count)]
    places = tuple(np.transpose(samples.HOT)[::-1])
    hits = {axes: int(np.flip(mask_ZYX, axes)[places].sum()) for axes in flips}
    best = max(flips, key=lambda axes: hits[axes])  # the first of equals: as it is
    if hits[()] or hits[best] < _MIRRORED:
        return PASS if hits[()] else skip("the mask does not hold the generated lesions")
    letters = " and ".join("zyx"[axis] for axis in best)
    return fail(
        f"{hits[best]} of {len(samples.HOT)} hot lesions lie in the mask when it is mirrored along "
        f"{letters}, none as it is"
    )


def placed(before_ZYX: Bools | None, after_ZYX: Bools | None) -> Finding:
    """Judge by the mask without and with `PLACED_CLICKS` of the sample whether they lie right.

    A connected part of the change counts wherever one of its voxels is near a click: lesions grow
    from their click, and are taken away as a whole.
    """
    if not (_fits(before_ZYX) and _fits(after_ZYX)):
        return skip("there are no two masks of the PET's shape to compare")
    changed: Bools = before_ZYX != after_ZYX
    if changed.sum() < _FEW_VOXELS:
        return skip(
            "neither a tumor click on faint uptake nor a background click on a lesion changes "
            "the mask, so it does not show how clicks are read"
        )
    places = [(round(x), round(y), round(z)) for (x, y, z), _ in samples.PLACED_CLICKS]
    shares = _shares(changed, {"x, y, z": places, **_misread(places)})
    if shares.pop("x, y, z") >= _MOST:
        return PASS
    clicks = " and ".join(map(str, places))
    how = max(shares, key=lambda name: shares[name])
    if shares[how] >= _MOST:
        there = " and ".join(map(str, _misread(places)[how]))
        return fail(f"clicks at voxels (x, y, z) {clicks} act at {there}: they are read as {how}")
    z, y, x = np.argwhere(changed).mean(axis=0).round().astype(int).tolist()
    return fail(
        f"clicks at voxels (x, y, z) {clicks} change {int(changed.sum())} voxels, most of them "
        f"elsewhere (around {x, y, z})"
    )


def _fits(mask_ZYX: Bools | None) -> TypeGuard[Bools]:
    return mask_ZYX is not None and mask_ZYX.shape == samples.SHAPE_XYZ[::-1]


def _misread(places: Sequence[samples.Index]) -> dict[str, list[samples.Index]]:
    read = [samples.readings(place) for place in places]
    return {name: [places[name] for places in read] for name in read[0]}


def _shares(changed: Bools, readings: Mapping[str, Sequence[samples.Index]]) -> dict[str, float]:
    """Return for each reading the share of the changed voxels that belongs to its places."""
    import cc3d
    from scipy.spatial import KDTree

    where = np.argwhere(changed)
    numbers = cc3d.connected_components(changed, connectivity=26)[tuple(where.T)]
    tree = KDTree(where[:, ::-1] * samples.SPACING_MM_XYZ)
    shares = {}
    for name, places in readings.items():
        near = tree.query_ball_point(np.multiply(places, samples.SPACING_MM_XYZ), _NEAR_MM)
        touched = np.unique(numbers[[row for rows in near for row in rows]])
        shares[name] = float(np.isin(numbers, touched).mean())
    return shares
