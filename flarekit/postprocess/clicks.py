"""What somebody marked corrects the lesions: for predictors that do not take clicks themselves.

Three points and more that follow each other are a scribble, and where there is one all marks are:
near the mask it moves the border there (`_scribbles.py`), as clicks near the border do; on tumor
away from any lesion, its hottest voxel counts as a click.

A component with a background click and no tumor click becomes background. Of one with both, the
voxels nearer to a background click than to a tumor click do. Around a tumor click that lies on
background, the voxels are added that are connected to it with an uptake of at least a fraction of
the local maximum (0.41 in EANM's guideline for FDG: Boellaard 2015, 10.1007/s00259-014-2961-x), no
further away than 30 mm and not nearer to a background click.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.postprocess._border import Scribble
from flarekit.postprocess._scan import Scan
from flarekit.postprocess._scribbles import (
    NEAR_MM,
    is_drawn,
    moved,
    rows_in,
    signed_distance_mm,
)

TAKES_VALUE = True
NEEDS_CHANNEL = "PET"
_REACH_MM = 30.0
_DEEP = 0.5  # of the greatest depth of a component: a click there means all of it
_PEAK_MM = 6.0  # the maximum is looked for this far around a click

_Points = NDArray[np.int64]
_Spacing = tuple[float, float, float]


def apply_to_scan(
    label_map_ZYX: NDArray[np.uint8], labels: Sequence[int], value: float | None, scan: Scan
) -> NDArray[np.uint8]:
    """Correct the labels by the scan's points `tumor` and `background`; the first label grows."""
    none: _Points = np.zeros((0, 3), np.int64)
    tumor, background = (scan.points.get(name, none) for name in ("tumor", "background"))
    result = label_map_ZYX.copy()
    tumor, background = _scribbled(result, labels, tumor, background, scan)
    if len(background):
        result[_refused(np.isin(result, labels), tumor, background, scan.spacing_mm_ZYX)] = 0
    if value is not None and len(tumor):
        uptake = scan.channel(NEEDS_CHANNEL)
        for click in tumor:
            if result[tuple(click)] == 0:
                _grow(result, labels[0], click, background, uptake, value, scan.spacing_mm_ZYX)
    return result


def _scribbled(
    result: NDArray[np.uint8],
    labels: Sequence[int],
    tumor: _Points,
    background: _Points,
    scan: Scan,
) -> tuple[_Points, _Points]:
    """Move the border where that is marked; return what counts as clicks on tumor, background."""
    rows = [
        *((row, True) for row in rows_in(tumor)),
        *((row, False) for row in rows_in(background)),
    ]
    lesions = np.isin(result, labels)
    drawn = any(is_drawn(row) for row, _ in rows)
    if not rows or not (drawn or lesions.any()):
        return tumor, background
    spacing_mm = scan.spacing_mm_ZYX
    away_mm = np.full(result.shape, np.inf)
    if lesions.any():
        away_mm = signed_distance_mm(lesions, spacing_mm)
    clicks: dict[bool, list[_Points]] = {True: [], False: []}
    near = []
    for row, outwards in rows:
        off_mm = float(np.median(away_mm[tuple(row.T)]))
        shows = bool((scan.channel(NEEDS_CHANNEL)[tuple(row.T)] > 0).any())
        beside = 0 < off_mm <= NEAR_MM and shows
        is_click = not drawn and not (beside if outwards else not _is_deep(row, lesions, away_mm))
        if outwards and drawn and off_mm > NEAR_MM:
            hottest = int(np.argmax(scan.channel(NEEDS_CHANNEL)[tuple(row.T)]))
            clicks[True].append(row[hottest][None])
            continue
        if is_click:
            clicks[outwards].append(row)
            continue
        on_lesion = bool(lesions[tuple(row.T)].any())
        if outwards or on_lesion or len(tumor):
            near.append(Scribble(places_ZYX=row, outwards=outwards))
        if not outwards and not on_lesion:  # a bound for what grows from a click
            clicks[False].append(row)
    if near and lesions.any():
        after = moved(lesions, near, spacing_mm)
        result[lesions & ~after] = 0
        result[after & (result == 0)] = labels[0]
    none: _Points = np.zeros((0, 3), np.int64)
    return np.concatenate([none, *clicks[True]]), np.concatenate([none, *clicks[False]])


def _is_deep(row: _Points, lesions: NDArray[np.bool_], away_mm: NDArray[np.float64]) -> bool:
    """Tell whether a click lies well inside its component: then all of that is meant."""
    import cc3d

    numbered = cc3d.connected_components(lesions, connectivity=26)
    number = int(numbered[tuple(row[0])])
    if number == 0:
        return True
    deepest_mm = float(-away_mm[numbered == number].min())
    return float(-away_mm[tuple(row.T)].min()) >= _DEEP * deepest_mm


def _refused(
    lesions: NDArray[np.bool_], tumor: _Points, background: _Points, spacing_mm: _Spacing
) -> NDArray[np.bool_]:
    """Return the voxels of lesions that background clicks take away."""
    import cc3d

    numbered = cc3d.connected_components(lesions, connectivity=26)
    accepted_by, refused_by = numbered[tuple(tumor.T)], numbered[tuple(background.T)]
    refused = np.isin(numbered, np.setdiff1d(refused_by, [*accepted_by, 0]))
    for number in np.setdiff1d(np.intersect1d(accepted_by, refused_by), [0]):
        places = np.argwhere(numbered == number)
        to_tumor = _distances_mm(places, tumor[accepted_by == number], spacing_mm)
        to_background = _distances_mm(places, background[refused_by == number], spacing_mm)
        refused[tuple(places[to_background < to_tumor].T)] = True
    return refused


def _grow(
    result: NDArray[np.uint8],
    label: int,
    click: _Points,
    background: _Points,
    uptake: NDArray[np.floating | np.integer],
    fraction: float,
    spacing_mm: _Spacing,
) -> None:
    """Paint the lesion around a click into the label map."""
    import cc3d

    box, at = _around(click, _REACH_MM, result.shape, spacing_mm)
    peak, _ = _around(click, _PEAK_MM, result.shape, spacing_mm)
    highest = float(uptake[peak].max())
    if highest <= 0:
        return
    free = result[box] == 0
    hot = free & (uptake[box] >= fraction * highest)
    hot[at] = True
    numbered = cc3d.connected_components(hot, connectivity=26)
    places = np.argwhere(numbered == numbered[at])
    corner = np.array([part.start for part in box])
    from_click = _distances_mm(places + corner, click[None], spacing_mm)
    kept = from_click <= _REACH_MM
    if len(background):
        kept &= from_click < _distances_mm(places + corner, background, spacing_mm)
    result[tuple((places + corner)[kept].T)] = label


def _around(
    click: _Points, reach_mm: float, shape: tuple[int, ...], spacing_mm: _Spacing
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """Return the box around a click within the volume, and where in it the click is."""
    box = []
    for at, length, mm in zip(click.tolist(), shape, spacing_mm, strict=True):
        voxels = int(reach_mm / mm)
        box.append(slice(max(0, at - voxels), min(length, at + voxels + 1)))
    return tuple(box), tuple(int(at) - part.start for at, part in zip(click, box, strict=True))


def _distances_mm(places: _Points, clicks: _Points, spacing_mm: _Spacing) -> NDArray[np.float64]:
    """Return how far each place is from the nearest click."""
    from scipy.spatial import KDTree

    distances: NDArray[np.float64] = KDTree(clicks * spacing_mm).query(places * spacing_mm)[0]
    return distances
