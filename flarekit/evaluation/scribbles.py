"""What an organiser of interactive segmentation marks: scribbles on errors, clicks on the truth.

autoPET V: after each mask one scribble corrects its largest error component, on `tumor` where the
mask lacks it and on `background` where it is too much, in the axial slice that holds most of it:
along its centreline, along a random path in it, or along its boundary. autoPET IV, task 1: clicks
on both are drawn beforehand, and each step gives one more of each. How exactly the organisers draw
is not published: these follow their description, from a seed.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

TUMOR, BACKGROUND = "tumor", "background"
Kind = Literal["centerline", "random", "boundary"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Marks = dict[str, NDArray[np.int64]]  # name -> (N, 3) indices (z, y, x)
_Mask = NDArray[np.bool_]
_CORNERS = 4  # that a random path turns at
_RING = 0.5  # of a boundary that a scribble follows
_MARGIN = 2  # voxels between the truth and a click on background
_HOT_PERCENTILE = 99.0  # of uptake, that clicks on background are drawn among


def no_marks() -> Marks:
    """Return marks with nothing marked."""
    return {name: np.zeros((0, 3), np.int64) for name in (TUMOR, BACKGROUND)}


def added(marks: Marks, name: str, places_ZYX: NDArray[np.int64]) -> Marks:
    """Return marks with some more of a name."""
    return {**marks, name: np.concatenate([marks[name], places_ZYX])}


def corrective_scribble(
    truth_ZYX: _Mask, predicted_ZYX: _Mask, kind: Kind, rng: np.random.Generator
) -> tuple[str, NDArray[np.int64]] | None:
    """Return the scribble on the largest error: what it marks and its voxels; None without error.

    Components are connected by faces, edges or corners; of equally large ones a missed one counts.

    Args:
        truth_ZYX: bool.
        predicted_ZYX: bool, of the same shape.
        kind: how it is drawn.
        rng: decides where the kinds leave a choice.
    """
    import cc3d

    largest, chosen = 0, None
    for name, error in (
        (TUMOR, truth_ZYX & ~predicted_ZYX),
        (BACKGROUND, predicted_ZYX & ~truth_ZYX),
    ):
        numbered = cc3d.connected_components(error, connectivity=26)
        sizes = np.bincount(numbered.ravel())
        sizes[0] = 0
        if sizes.max() > largest:
            largest, chosen = int(sizes.max()), (name, numbered == int(sizes.argmax()))
    if chosen is None:
        return None
    name, error = chosen
    z = int(error.sum(axis=(1, 2)).argmax())
    draw = {"centerline": centerline, "random": random_path, "boundary": boundary}[kind]
    places_YX = draw(_largest_part(error[z]), rng)
    places = np.concatenate([np.full((len(places_YX), 1), z), places_YX], axis=1)
    return name, places.astype(np.int64)


def centerline(area_YX: _Mask, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the middle of an area at every step along its longer axis, within the area."""
    del rng
    places = np.argwhere(area_YX)
    if len(places) < 2:
        return places
    middle = places.mean(axis=0)
    _, _, axes = np.linalg.svd(places - middle, full_matrices=False)
    along = np.floor((places - middle) @ axes[0] + 1e-6).astype(int)
    line = []
    for step in np.unique(along):
        own = places[along == step]
        line.append(own[np.argmin(np.linalg.norm(own - own.mean(axis=0), axis=1))])
    return np.unique(np.array(line, np.int64), axis=0)


def random_path(area_YX: _Mask, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a path between random places of an area, as far as it stays within the area."""
    places = np.argwhere(area_YX)
    corners = places[rng.integers(0, len(places), _CORNERS)]
    path = [corners[:1]]
    for one, other in zip(corners[:-1], corners[1:], strict=True):
        steps = int(np.abs(other - one).max()) + 1
        path.append(np.rint(np.linspace(one, other, steps)).astype(np.int64))
    found = np.unique(np.concatenate(path), axis=0)
    inside: NDArray[np.int64] = found[area_YX[tuple(found.T)]]
    return inside


def boundary(area_YX: _Mask, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return half of the outermost pixels of an area, on one side of it."""
    from scipy.ndimage import binary_erosion

    ring = np.argwhere(area_YX & ~binary_erosion(area_YX))
    angles = np.arctan2(*(ring - np.argwhere(area_YX).mean(axis=0)).T)
    turned = (angles - rng.uniform(-np.pi, np.pi)) % (2 * np.pi)
    return ring[np.argsort(turned, kind="stable")[: max(1, int(np.ceil(_RING * len(ring))))]]


def simulated_clicks(
    truth_ZYX: _Mask,
    uptake_ZYX: NDArray[np.floating | np.integer],
    count: int,
    rng: np.random.Generator,
) -> Marks:
    """Return so many clicks on tumor and on background, which do not look at any mask.

    Clicks on tumor go round the lesions from the largest on: into the voxel that is deepest inside,
    then anywhere within. Those on background lie where uptake is high, away from lesions.

    Args:
        truth_ZYX: bool.
        uptake_ZYX: of the same shape.
        count: of each; fewer where there is no place for them.
        rng: decides.
    """
    import cc3d
    from scipy.ndimage import binary_dilation, distance_transform_edt

    marks = no_marks()
    numbered = cc3d.connected_components(truth_ZYX, connectivity=26)
    sizes = np.bincount(numbered.ravel())
    lesions = (np.argsort(-sizes[1:], kind="stable") + 1).tolist()
    depth = distance_transform_edt(truth_ZYX)
    for turn in range(count if lesions else 0):
        inside = np.argwhere(numbered == lesions[turn % len(lesions)])
        first = turn < len(lesions)
        at = int(depth[tuple(inside.T)].argmax()) if first else int(rng.integers(len(inside)))
        marks = added(marks, TUMOR, inside[at : at + 1])
    away = ~binary_dilation(truth_ZYX, iterations=_MARGIN)
    if away.any():
        level = np.percentile(uptake_ZYX[away], _HOT_PERCENTILE)
        places = np.argwhere(away & (uptake_ZYX >= level))
        chosen = rng.permutation(len(places))[:count]
        marks = added(marks, BACKGROUND, places[chosen])
    return marks


def first_of(marks: Marks, count: int) -> Marks:
    """Return the first so many marks of each name."""
    return {name: places[:count] for name, places in marks.items()}


def _largest_part(area_YX: _Mask) -> _Mask:
    from scipy.ndimage import label

    parts, count = label(area_YX, np.ones((3, 3)))
    if count == 1:
        return area_YX
    largest: _Mask = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    return largest
