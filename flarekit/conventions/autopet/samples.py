"""PET/CTs as autoPET's platform hands them over, and as it may come to.

A trunk with three hot lesions, and faint uptake at one place and wherever a click on that place
would lie if its indices were read in another order, or as millimetres: whatever an image makes of
the click, it finds the same uptake there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.files import make_folder
from flarekit.verification.platform_inputs import write_inputs_json

Index = tuple[int, int, int]  # of a voxel, x first
Place = tuple[float, float, float]
Click = tuple[Place, str]  # an index, and what lies there: "tumor" or "background"
Field = NDArray[np.float32]

USUAL, OTHER_PET, CLICKS = "case_0001", "pet_of_case_0001", "lesion-clicks.json"
SHAPE_XYZ: Index = (96, 80, 100)
SPACING_MM_XYZ: Place = (4.07, 4.07, 5.0)
ORIGIN_MM_XYZ: Place = (-141.22, -185.78, -366.0)  # LPS; where `FAINT` as mm is inside the body
FAINT: Index = (46, 34, 24)
HOT: tuple[Index, ...] = ((28, 48, 73), (73, 48, 28), (34, 30, 56))
BLADDER: Index = (47, 31, 14)
USUAL_CLICKS: tuple[Click, ...] = ((HOT[0], "tumor"), (BLADDER, "background"))
PLACED_CLICKS: tuple[Click, ...] = ((FAINT, "tumor"), (HOT[0], "background"))

_SEED = 0  # of a body whose own uptake leaves the faint places alone
_FAINT_SUV, _HOT_SUV, _QUIET_SUV = 2.2, (11.0, 9.0, 13.0), 0.6
_FAINT_MM, _HOT_MM, _QUIET_MM, _BORDER_MM = 9.0, 12.0, 26.0, 4.0  # radii
_LESION_HU, _AIR_HU = 40.0, -1024.0
_FINER, _MARGIN = 1.5, 4  # of the CT on another grid: voxels per voxel, and more around them
_MIDDLE_MM_YX = (135.0, 193.0)
# halves of (Z, Y, X) axes and middles, in mm from the lowest slice and the middle of the body
_ORGANS: Mapping[str, Sequence[tuple[Place, Place]]] = {
    "lungs": [((95, 66, 48), (400, 0, -66)), ((95, 66, 48), (400, 0, 66))],
    "kidneys": [((48, 22, 24), (240, 42, -58)), ((48, 22, 24), (240, 42, 58))],
    "heart": [((40, 38, 46), (350, -18, 20))],
    "liver": [((58, 58, 72), (280, -8, -55))],
    "spleen": [((44, 28, 22), (285, 30, 88))],
    "stomach": [((34, 28, 36), (270, -22, 52))],
    "bladder": [((26, 28, 32), (70, -8, 0))],
}


@dataclass(frozen=True, kw_only=True)
class PetCt:
    """A generated examination, oriented: Z superior, Y posterior, X left.

    Attributes:
        hu_ZYX: CT, float32.
        suv_ZYX: PET, float32.
    """

    hu_ZYX: Field
    suv_ZYX: Field


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How a case differs from the usual one.

    Attributes:
        pet_stem: the PET's name; the CT keeps its own.
        ct_off_mm: how far the CT lies beside the PET's grid.
        finer_ct: whether the CT has smaller voxels and reaches further.
        uptake: whether there is any.
        nan: whether a corner of the PET, in air, holds NaN.
        raw: whether voxels are stored uncompressed and as wide numbers.
        clicks: what was clicked on; None for no file.
    """

    pet_stem: str = USUAL
    ct_off_mm: float = 0.0
    finer_ct: bool = False
    uptake: bool = True
    nan: bool = False
    raw: bool = False
    clicks: tuple[Click, ...] | None = USUAL_CLICKS


STRAY_CLICKS: tuple[Click, ...] = (
    *USUAL_CLICKS,
    ((-1, -1, -1), "tumor"),
    (SHAPE_XYZ, "tumor"),
    ((10**6, 2, -(10**6)), "background"),
)
FLOAT_CLICKS: tuple[Click, ...] = tuple(
    ((x + 0.37, y - 0.25, float(z)), name) for (x, y, z), name in USUAL_CLICKS
)
SCRIBBLES: tuple[Click, ...] = tuple(
    ((x + step, y, z), name) for (x, y, z), name in USUAL_CLICKS for step in range(-3, 4)
)


def readings(place: Index) -> dict[str, Index]:
    """Return where a click lies when it is misread: how it was read -> index of the voxel."""
    found = {
        ", ".join("xyz"[axis] for axis in order): (
            place[order[0]],
            place[order[1]],
            place[order[2]],
        )
        for order in permutations(range(3))
        if order != (0, 1, 2)
    }
    x, y, z = (
        round((mm - origin) / spacing)
        for mm, origin, spacing in zip(place, ORIGIN_MM_XYZ, SPACING_MM_XYZ, strict=True)
    )
    return {**found, "millimetres": (x, y, z)}


@cache
def petct() -> PetCt:
    """Return a trunk with physiological uptake, hot lesions and faint places."""
    from flarekit.synthesis import wholebody_petct

    z_mm, y_mm, x_mm = SPACING_MM_XYZ[::-1]
    body = wholebody_petct(_organs(), (z_mm, y_mm, x_mm), _SEED, most_lesions=0, plain=0)
    hu, suv = body.hu_ZYX, body.suv_ZYX
    faint = (FAINT, *readings(FAINT).values())
    for place in faint:
        _blend(suv, np.minimum(suv, _QUIET_SUV), place, _QUIET_MM)
    radii = [_FAINT_MM] * len(faint) + [_HOT_MM] * len(HOT)
    levels = [_FAINT_SUV] * len(faint) + [*_HOT_SUV]
    for place, radius_mm, level in zip((*faint, *HOT), radii, levels, strict=True):
        _blend(suv, np.full_like(suv, level), place, radius_mm)
        _blend(hu, np.full_like(hu, _LESION_HU), place, radius_mm)
    return PetCt(hu_ZYX=hu, suv_ZYX=suv)


def _organs() -> NDArray[np.uint8]:
    from flarekit.synthesis import ORGANS

    organs = np.zeros(SHAPE_XYZ[::-1], np.uint8)
    middle_mm = (0.0, *_MIDDLE_MM_YX)
    axes = np.ogrid[tuple(slice(n) for n in organs.shape)]
    for name, parts in _ORGANS.items():
        for half_mm, place_mm in parts:
            terms = zip(axes, SPACING_MM_XYZ[::-1], place_mm, middle_mm, half_mm, strict=True)
            organs[sum(((n * mm - at - m) / h) ** 2 for n, mm, at, m, h in terms) < 1] = ORGANS[
                name
            ]
    return organs


def _blend(field: Field, other: Field, place: Index, radius_mm: float) -> None:
    """Put another field into a ball of this one, with a soft border."""
    axes = np.ogrid[tuple(slice(n) for n in field.shape)]
    terms = zip(axes, SPACING_MM_XYZ[::-1], place[::-1], strict=True)
    distance_mm = np.sqrt(sum(((n - at) * mm) ** 2 for n, mm, at in terms))
    weight = np.clip((radius_mm - distance_mm) / _BORDER_MM + 0.5, 0, 1).astype(np.float32)
    field += weight * (other - field)


def writer(variation: Variation) -> Callable[[Path], None]:
    """Return what writes a case into a folder."""
    return lambda folder: write(folder, variation)


def write(folder: Path, variation: Variation) -> None:
    """Write a case in the platform's layout."""
    found = petct()
    suv = found.suv_ZYX.copy() if variation.uptake else np.zeros_like(found.suv_ZYX)
    if variation.nan:
        suv[:6, :6, :6] = np.nan
    pet = _image(suv)
    ct = _image(np.rint(found.hu_ZYX), off_mm=variation.ct_off_mm)
    if variation.finer_ct:
        ct = _finer(ct)
    images, raw = folder / "images", variation.raw
    _save(ct, images / "ct" / f"{USUAL}.mha", "sitkFloat32" if raw else "sitkInt16", raw=raw)
    pet_path = images / "pet" / f"{variation.pet_stem}.mha"
    _save(pet, pet_path, "sitkFloat64" if raw else "sitkFloat32", raw=raw)
    if variation.clicks is not None:
        (folder / CLICKS).write_text(json.dumps(_clicks_json(variation.clicks)))
    write_inputs_json(folder)


def _clicks_json(clicks: Sequence[Click]) -> dict[str, object]:
    points = [{"point": list(place), "name": name} for place, name in clicks]
    version = {"major": 1, "minor": 0}
    return {"version": version, "type": "Multiple points", "points": points}


def _image(voxels_ZYX: Field, *, off_mm: float = 0.0) -> Any:  # noqa: ANN401 - SimpleITK's own
    import SimpleITK

    image = SimpleITK.GetImageFromArray(voxels_ZYX)
    image.SetSpacing(SPACING_MM_XYZ)
    image.SetOrigin([at + off_mm for at in ORIGIN_MM_XYZ])
    return image


def _finer(image: Any) -> Any:  # noqa: ANN401 - SimpleITK's own
    """Return an image on a grid of smaller voxels that begins elsewhere and reaches further."""
    import SimpleITK

    return SimpleITK.Resample(
        image,
        [int(n * _FINER + 2 * _MARGIN) for n in SHAPE_XYZ],
        SimpleITK.Transform(),
        SimpleITK.sitkLinear,
        [at - _MARGIN * mm for at, mm in zip(ORIGIN_MM_XYZ, SPACING_MM_XYZ, strict=True)],
        [mm / _FINER for mm in SPACING_MM_XYZ],
        image.GetDirection(),
        _AIR_HU,
    )


def _save(image: Any, path: Path, pixel: str, *, raw: bool) -> None:  # noqa: ANN401
    import SimpleITK

    make_folder(path.parent)
    cast = SimpleITK.Cast(image, getattr(SimpleITK, pixel))
    SimpleITK.WriteImage(cast, str(path), useCompression=not raw)
