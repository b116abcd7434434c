"""Lesions of random shape and texture, blended into real CTs, as volumes of interest around them.

What a lesion looks like depends on where it lies: solid or partly solid nodules in lungs; darker or
brighter, cystic, necrotic or rim-enhancing ones in soft tissue; nodes and deposits in fat.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.synthesis.shapes import BlobLook, Shape, Spacing, blob_depth, smooth_noise

_AIR, _LUNG_MOST, _FAT_MOST, _TISSUE_MOST = -1000.0, -400.0, -20.0, 220.0
_SMALLEST_LUNG_ML = 30.0
_PLACES = (("lung", 0.4), ("tissue", 0.4), ("fat", 0.2))
_TRIES = 40
_SIZE_MM = 170.0  # of the volume of interest in plane
_MARGIN_MM = 20.0  # that is kept above and below the lesion


@dataclass(frozen=True, kw_only=True)
class LesionVoi:
    """A volume of interest around one lesion.

    Attributes:
        hu_ZYX: float32.
        lesion_ZYX: uint8, 1 in the lesion, whose middle is the middle voxel.
    """

    hu_ZYX: NDArray[np.float32]
    lesion_ZYX: NDArray[np.uint8]


def ct_lesion_voi(hu_ZYX: NDArray[np.floating], spacing_mm: Spacing, seed: int) -> LesionVoi:
    """Put one lesion somewhere into a CT and cut out its surroundings.

    Args:
        hu_ZYX: a CT, Z along the body's axis; may be clipped (then lungs and air are filled in).
        spacing_mm: of its voxels.
        seed: decides everything.

    Raises:
        ValueError: the scan has no place for a lesion.
    """
    rng = np.random.default_rng([11, seed])
    hu = unclipped(hu_ZYX.astype(np.float32), spacing_mm, rng)
    places = tissue_masks(hu, spacing_mm)
    for _ in range(_TRIES):
        diameter = float(np.clip(rng.lognormal(np.log(22), 0.55), 6, 90))
        centre, place = _draw_place(places, diameter, spacing_mm, rng)
        if centre is None:
            continue
        box = _box(centre, spacing_mm, hu.shape, 0.95 * diameter + 12)
        local = tuple(c - side.start for c, side in zip(centre, box, strict=True))
        blended, mask = blend(hu[box], spacing_mm, local, diameter, place, rng)
        mask &= hu[box] > _AIR + 60  # a lesion ends where the body does
        if mask.sum() < 8 or _touches_edge(mask, box, hu.shape):
            continue
        whole = np.zeros(hu.shape, np.uint8)
        whole[box] = _main_part(mask)
        hu[box] = blended
        return _cut(hu, whole, spacing_mm)
    raise ValueError("found no place for a lesion")


def unclipped(
    hu_ZYX: NDArray[np.float32], spacing_mm: Spacing, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Fill in air and lungs where a scan was stored clipped; other scans only get a floor of air.

    Large smooth areas at the lowest value are air where they reach the edge of the slices, lung
    where they are large and enclosed, and gas otherwise.
    """
    import cc3d
    from scipy.ndimage import gaussian_filter

    lowest = float(hu_ZYX.min())
    if lowest < -500:
        return np.maximum(hu_ZYX, _AIR)
    dark = gaussian_filter(hu_ZYX, [2.0 / mm for mm in spacing_mm]) < lowest + 6
    parts = cc3d.connected_components(dark, connectivity=6)
    filled = hu_ZYX.copy()
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    edges = {
        *np.unique(parts[:, 0]), *np.unique(parts[:, -1]),
        *np.unique(parts[:, :, 0]), *np.unique(parts[:, :, -1]),
    }  # fmt: skip
    lung = _lung_texture(hu_ZYX.shape, spacing_mm, rng)
    for index, count in enumerate(np.bincount(parts.ravel())):
        if not index or count * voxel_ml < 0.3:
            continue
        where = (parts == index) & (hu_ZYX <= lowest + 20)
        if index in edges:
            filled[where] = _AIR + 10 * rng.standard_normal(int(where.sum()))
        elif count * voxel_ml > _SMALLEST_LUNG_ML:
            filled[where] = lung[where]
            _restretch(filled, hu_ZYX, where, lowest)
        else:
            filled[where] = -900 + 20 * rng.standard_normal(int(where.sum()))
    return filled


def _restretch(
    filled: NDArray[np.float32],
    hu_ZYX: NDArray[np.float32],
    lung: NDArray[np.bool_],
    lowest: float,
) -> None:
    """Give borders of a lung, whose values were clipped too, the way from lung to tissue back."""
    from scipy.ndimage import binary_dilation

    border = binary_dilation(lung, iterations=2) & ~lung & (hu_ZYX < 40)
    filled[border] = 40 - (40 - hu_ZYX[border]) * (840 + 40) / (40 - lowest)


def _lung_texture(
    shape: Shape, spacing_mm: Spacing, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return parenchyma with vessels where two smooth fields cross zero together."""
    base = -840 + 25 * smooth_noise(shape, spacing_mm, 12, rng)
    vessels = np.zeros(shape, np.float32)
    for length, width in ((9.0, 0.09), (5.0, 0.08)):
        one, two = (smooth_noise(shape, spacing_mm, length, rng) for _ in range(2))
        vessels = np.maximum(vessels, np.exp(-(one**2 + two**2) / (2 * width**2)))
    grain = 25 * rng.standard_normal(shape, dtype=np.float32)
    return (base + 820 * vessels + grain).astype(np.float32)


def tissue_masks(hu_ZYX: NDArray[np.float32], spacing_mm: Spacing) -> dict[str, NDArray[np.bool_]]:
    """Return where lesions may lie: lung, tissue and fat, each within the body."""
    import cc3d
    from scipy.ndimage import binary_fill_holes, gaussian_filter

    smooth = gaussian_filter(hu_ZYX, [1.5 / mm for mm in spacing_mm])
    solid = cc3d.largest_k(smooth > -300, k=1, connectivity=6) > 0
    body = np.stack([binary_fill_holes(slice_YX) for slice_YX in solid])
    lung = body & (smooth < _LUNG_MOST) & (smooth > -960)
    lung = cc3d.dust(lung, threshold=int(5000 / np.prod(spacing_mm)), connectivity=6) > 0
    return {
        "lung": lung,
        "tissue": solid & (smooth > 0) & (smooth < _TISSUE_MOST),
        "fat": solid & (smooth > -130) & (smooth < _FAT_MOST),
    }


def _draw_place(
    places: dict[str, NDArray[np.bool_]],
    diameter_mm: float,
    spacing_mm: Spacing,
    rng: np.random.Generator,
) -> tuple[tuple[int, int, int] | None, str]:
    """Return a voxel of a kind of tissue that still surrounds it at half the lesion's size."""
    names = [name for name, _ in _PLACES]
    name = str(rng.choice(names, p=[share for _, share in _PLACES]))
    mask = places[name]
    found = np.flatnonzero(mask)
    if not len(found):
        return None, name
    voxel = np.array(np.unravel_index(int(found[rng.integers(len(found))]), mask.shape))
    reach = [max(1, round(0.3 * diameter_mm / mm)) for mm in spacing_mm]
    around = tuple(slice(max(0, c - r), c + r + 1) for c, r in zip(voxel, reach, strict=True))
    if mask[around].mean() < 0.4:
        return None, name
    return (int(voxel[0]), int(voxel[1]), int(voxel[2])), name


def blend(
    hu_ZYX: NDArray[np.float32],
    spacing_mm: Spacing,
    centre_ZYX: tuple[int, ...],
    diameter_mm: float,
    place: str,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a CT with a lesion, and where the lesion is.

    Its inside keeps the grain of the scan; its border is as soft as the scanner's. The place is
    `lung`, `tissue` or `fat`; the CT given is not changed.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.special import expit

    shape = hu_ZYX.shape
    spikes = int(rng.integers(4, 14)) if place == "lung" and rng.random() < 0.5 else 0
    look = BlobLook(
        diameter_mm=diameter_mm,
        elongation=float(rng.uniform(0.05, 0.3)),
        lobes=float(rng.uniform(0.05, 0.55)),
        spikes=spikes,
    )
    depth = blob_depth(shape, spacing_mm, centre_ZYX, look, rng)
    around = (depth < -1) & (depth > -6) & (hu_ZYX > (-980 if place == "lung" else -250))
    host = float(np.median(hu_ZYX[around])) if around.any() else 40.0
    inside = _inside(depth, spacing_mm, diameter_mm, place, host, rng)
    sigma = [1.2 / mm for mm in spacing_mm]
    grain = hu_ZYX - gaussian_filter(hu_ZYX, sigma)
    deviation = (
        float(np.clip(np.median(np.abs(grain[around])) * 1.48, 4, 30)) if around.any() else 8
    )
    own = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 0.6)
    inside = inside + deviation * own / max(float(own.std()), 1e-6)
    softness = float(rng.uniform(0.3, 0.9 if place == "lung" else 1.6))
    share = expit(depth / softness)
    blended: NDArray[np.float32] = ((1 - share) * hu_ZYX + share * inside).astype(np.float32)
    return blended, share > 0.5


def _inside(
    depth: NDArray[np.float32],
    spacing_mm: Spacing,
    diameter_mm: float,
    place: str,
    host: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return the lesion's own intensities, without grain."""
    from scipy.special import expit

    shape = depth.shape
    clumps = smooth_noise(shape, spacing_mm, float(rng.uniform(2, 7)), rng)
    if place == "lung":
        level = rng.normal(25, 25) if rng.random() < 0.85 else rng.normal(-350, 120)
    elif place == "fat":
        level = rng.normal(45, 20)
    else:
        apart = abs(rng.normal(45, 20)) + 12
        level = host + (apart if rng.random() < 0.3 else -apart)
        if rng.random() < 0.2:
            level = rng.normal(10, 8)  # a cyst
    inside = level + float(rng.uniform(2, 14)) * clumps
    core = rng.random()
    if diameter_mm > 18 and core < 0.35:  # necrosis
        deep = expit(depth - rng.uniform(0.12, 0.3) * diameter_mm - 1.5 * clumps)
        inside = inside + deep * (rng.normal(15, 8) - level)
    elif core < 0.5:  # a brighter rim
        inside = inside + rng.uniform(15, 60) * np.exp(-(((depth - 2) / 2.0) ** 2))
    elif core < 0.57:  # calcified
        inside = inside + rng.uniform(100, 400) * (clumps > 2)
    return inside.astype(np.float32)


def _touches_edge(mask: NDArray[np.bool_], box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Return whether a lesion reaches the edge of the scan."""
    where = np.argwhere(mask)
    low = where.min(axis=0) + [side.start for side in box]
    high = where.max(axis=0) + [side.start for side in box]
    return bool((low <= 0).any() or (high >= np.array(shape) - 1).any())


def _main_part(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    import cc3d

    largest: NDArray[np.uint8] = cc3d.largest_k(mask, k=1, connectivity=26).astype(np.uint8)
    return (largest > 0).astype(np.uint8)


def _box(
    centre: tuple[int, int, int], spacing_mm: Spacing, shape: tuple[int, ...], half_mm: float
) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, c - int(half_mm / mm)), min(n, c + int(half_mm / mm) + 1))
        for c, mm, n in zip(centre, spacing_mm, shape, strict=True)
    )


def _cut(hu: NDArray[np.float32], lesion: NDArray[np.uint8], spacing_mm: Spacing) -> LesionVoi:
    """Cut a box whose middle is the lesion's; outside the scan is air."""
    where = np.argwhere(lesion)
    middle = (where.min(axis=0) + where.max(axis=0)) // 2
    extent_mm = (where.max(axis=0) - where.min(axis=0) + 1) * np.array(spacing_mm)
    half_mm = np.array([extent_mm[0] / 2 + _MARGIN_MM, _SIZE_MM / 2, _SIZE_MM / 2])
    half = np.maximum(1, np.round(half_mm / np.array(spacing_mm))).astype(int)
    padding = [(int(n), int(n)) for n in half]
    box = tuple(slice(int(m), int(m + 2 * n)) for m, n in zip(middle, half, strict=True))
    return LesionVoi(
        hu_ZYX=np.pad(hu, padding, constant_values=_AIR)[box],
        lesion_ZYX=np.pad(lesion, padding)[box],
    )
